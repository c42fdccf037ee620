"""A skipped run and the run that it stands on, whatever happened to its commit since."""

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.store.builders import (
    CONFIGURATION,
    ENVIRONMENT,
    make_report,
    remove_run,
)
from virnucpro_monitor.monitor.questions import load_measured
from virnucpro_monitor.records import Outcome, Run, RunReport, to_json
from virnucpro_monitor.report.values import run_values
from virnucpro_monitor.store import health_reader, notes_reader, reader, series_reader
from virnucpro_monitor.store.engine import open_engine, upgrade_database
from virnucpro_monitor.store.inheritance import load_measured_run
from virnucpro_monitor.store.writer import Writer

ASSETS = Path(__file__).parent / "assets"
OTHER = dataclasses.replace(ENVIRONMENT, torch="2.14.0")


def skip(number: int, measured: RunReport, **changes: Any) -> RunReport:
    """The `number`-th commit's run, inherited as the runner does it."""
    run = measured.run
    values: dict[str, Any] = {
        "outcome": Outcome.SKIPPED,
        "inherited_from": run.commit.hash,
        "inherited_outcome": run.outcome,
        "configuration": run.configuration,
        "figures": run.figures,
        "gates": run.gates,
        "code_digest": run.code_digest,
    }
    return make_report(number, (), **{**values, **changes})


def ids(engine: Engine) -> dict[int, int | None]:
    runs = reader.load_runs(engine, all_attempts=True)
    return {run.id or 0: run.inherited_run_id for run in runs if run.outcome is Outcome.SKIPPED}


def test_measures_stay_reachable_after_the_commit_inherits_in_another_environment(
    engine: Engine, writer: Writer
) -> None:
    """r0 measured, r2 inherits from it; then the same code is measured as r1 in another
    environment, and r0 is stored again as inherited from r1, which supersedes what was measured."""
    first, other = (
        make_report(0, (0.9991, 0.9992, 0.9993), documents={"trace": {"layer": 2}}),
        make_report(1, code_digest="code-0", environment=OTHER),
    )
    first_id = writer.save_run(first)
    skipped_id = writer.save_run(skip(2, first))
    other_id = writer.save_run(other)
    again_id = writer.save_run(skip(0, other, environment=OTHER))
    for run_id, measured_id in ((skipped_id, first_id), (again_id, other_id)):
        run = reader.load_run(engine, run_id)
        measured, sequences = load_measured(engine, run)
        assert (measured.id, measured.outcome) == (measured_id, Outcome.PASSED)
        assert len(sequences) == 3
    found = reader.load_sequences(engine, first_id)
    assert [one.similarity for one in found] == [0.9991, 0.9992, 0.9993]
    assert reader.load_documents(engine, first_id) == {"trace": {"layer": 2}}


def test_a_commit_measured_again_leaves_its_heirs_where_they_were(
    engine: Engine, writer: Writer
) -> None:
    first = make_report(0, (0.9991, 0.9992, 0.9993))
    first_id = writer.save_run(first)
    skipped_id = writer.save_run(skip(1, first))
    again_id = writer.save_run(make_report(0, (0.9, 0.9, 0.9)))
    skipped = reader.load_run(engine, skipped_id)
    assert load_measured_run(engine, skipped).id == first_id
    # A later heir stands on what was measured later.
    later_id = writer.save_run(skip(2, make_report(0, (0.9, 0.9, 0.9))))
    assert reader.load_run(engine, later_id).inherited_run_id == again_id


def test_the_runner_names_the_run_where_it_knows_it(engine: Engine, writer: Writer) -> None:
    first = make_report(0)
    first_id = writer.save_run(first)
    writer.save_run(make_report(0))
    run_id = writer.save_run(skip(1, first, inherited_run_id=first_id))
    assert reader.load_run(engine, run_id).inherited_run_id == first_id


@pytest.mark.parametrize("named", ["nothing", "a skipped run", "a run of another commit"])
def test_a_name_that_does_not_fit_is_not_believed(
    named: str, engine: Engine, writer: Writer
) -> None:
    first = make_report(0)
    first_id = writer.save_run(first)
    wrong = {
        "nothing": 999,
        "a skipped run": writer.save_run(skip(1, first)),
        "a run of another commit": writer.save_run(make_report(2)),
    }
    run_id = writer.save_run(skip(3, first, inherited_run_id=wrong[named]))
    assert reader.load_run(engine, run_id).inherited_run_id == first_id


def test_a_run_that_is_stored_before_the_one_it_inherits_from_finds_it_later(
    engine: Engine, writer: Writer
) -> None:
    first = make_report(5)
    early_id = writer.save_run(skip(3, first))
    early = reader.load_run(engine, early_id)
    assert early.inherited_run_id is None
    assert load_measured_run(engine, early) == early
    writer.save_run(make_report(4))
    measured_id = writer.save_run(first)
    assert reader.load_run(engine, early_id).inherited_run_id == measured_id


def test_a_deleted_run_leaves_its_heirs_without_measures(engine: Engine, writer: Writer) -> None:
    first = make_report(0)
    first_id = writer.save_run(first)
    skipped_id = writer.save_run(skip(1, first))
    remove_run(engine, first_id)
    skipped = reader.load_run(engine, skipped_id)
    assert skipped.inherited_run_id is None
    assert skipped.inherited_from == first.run.commit.hash
    assert load_measured_run(engine, skipped) == skipped


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Engine]:
    """`assets/0001_history.sql`, made by the release before runs pointed at each other."""
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as database:
        database.executescript((ASSETS / "0001_history.sql").read_text())
        database.execute("PRAGMA journal_mode=WAL")
    database.close()
    upgrade_database(f"sqlite:///{path}")
    engine = open_engine(f"sqlite:///{path}")
    yield engine
    engine.dispose()


def test_an_upgrade_resolves_what_stored_runs_inherit(upgraded: Engine) -> None:
    assert ids(upgraded) == {
        2: 1,  # superseded since by a skipped run of the same commit
        5: 7,  # the newest measured attempt of its commit
        6: 3,
        9: 8,
        10: 8,  # measured under another configuration only
        11: None,  # from a commit that was never stored
    }


def test_an_upgraded_database_shows_the_same_numbers(upgraded: Engine) -> None:
    """`assets/0001_history.json` is what the release before showed of it."""
    before = json.loads((ASSETS / "0001_history.json").read_text())
    every = reader.load_runs(upgraded, all_attempts=True)
    history = reader.load_sequence_history(upgraded, "sample", "seed@1", "short_1")
    now = {
        "list": [run_values(run) for run in reader.load_runs(upgraded)],
        "attempts": to_json(every),
        "sequences": {
            str(run.id): to_json(reader.load_sequences(upgraded, run.id or 0)) for run in every
        },
        "documents": {str(run.id): reader.load_documents(upgraded, run.id or 0) for run in every},
        "failures": {
            str(run.id): to_json(reader.load_failure(upgraded, run.id or 0)) for run in every
        },
        "series": to_json(series_reader.load_series(upgraded)),
        "marks": to_json(series_reader.load_recent_marks(upgraded, 50)),
        "coverage": to_json(series_reader.load_coverage(upgraded, "sample")),
        "bisections": to_json(notes_reader.load_bisections(upgraded, "sample")),
        "acknowledgements": to_json(notes_reader.load_acknowledgements(upgraded)),
        "heartbeats": to_json(health_reader.load_heartbeats(upgraded)),
        "history of a sequence": [[point.run.id, to_json(point.result)] for point in history],
    }
    assert list(differences(before, json.loads(json.dumps(now)))) == []


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where `now` says something else; fields that came later may be added."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key, value in before.items():
            yield from differences(value, now.get(key, "(missing)"), f"{place}/{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{place}/{index}")
    elif before != now:
        yield f"{place}: {before!r} became {now!r}"


def test_flips_are_counted_over_attempts_of_the_same_code_and_setup(
    engine: Engine, writer: Writer
) -> None:
    bad, good = (0.9, 0.9, 0.9), (1.0, 1.0, 1.0)
    alike = {"code_digest": "same"}
    for similarities in (good, bad, bad, good):
        last = writer.save_run(make_report(0, similarities, **alike))
    assert series_reader.load_flips(engine, "sample") == {last: 2}
    half = dataclasses.replace(CONFIGURATION, dtype="float16")
    writer.save_run(make_report(0, bad, configuration=half, **alike))
    writer.save_run(make_report(0, bad, environment=OTHER, **alike))
    writer.save_run(make_report(1, bad, code_digest="other"))
    assert series_reader.load_flips(engine, "sample") == {last: 2}
    heir = writer.save_run(make_report(3, bad, **alike))  # another commit with the same code
    assert series_reader.load_flips(engine, "sample") == {heir: 3}


def test_what_each_side_came_to_and_what_was_imported_come_back(
    engine: Engine, writer: Writer
) -> None:
    environment = dataclasses.replace(
        ENVIRONMENT, packages={"torch": "2.13.0", "numpy": "2.4.1"}, parts={"threads": "1"}
    )
    assert environment.digest != ENVIRONMENT.digest
    report = make_report(
        0,
        environment=environment,
        packed_outcome=Outcome.FAILED,
        unpacked_outcome=Outcome.PASSED,
    )
    stored = reader.load_run(engine, writer.save_run(report))
    assert (stored.packed_outcome, stored.unpacked_outcome) == (Outcome.FAILED, Outcome.PASSED)
    assert stored.environment == environment
    plain: Run = reader.load_run(engine, writer.save_run(make_report(1)))
    assert (plain.packed_outcome, plain.unpacked_outcome) == (None, None)
    assert plain.environment == ENVIRONMENT
