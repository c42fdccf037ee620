"""What questions on series and branches ask of the store, and what they make of the rows."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.monitor.stored import BAD, NARROW, OTHER, keep
from tests.monitor.test_wiring import Recorder
from tests.runner.tiny_target import TinyRepository
from tests.store.builders import (
    BENCHMARK,
    CONFIGURATION,
    START,
    TARGET,
    make_commit,
    make_environment,
    make_report,
    make_run,
)
from virnucpro_monitor.analysis.series import series_key
from virnucpro_monitor.errors import ConfigurationError, NotFoundError
from virnucpro_monitor.monitor import (
    branches,
    comparing,
    histories,
    naming,
    questions,
    reading,
    status,
    stored_runs,
)
from virnucpro_monitor.records import Commit, Outcome, Run
from virnucpro_monitor.runner.builtin import builtin_target
from virnucpro_monitor.store.engine import Engine

SECOND = replace(BENCHMARK, name="second", digest="s" * 64)


class Series:
    """Stands for the runs of a series: gives one answer after another, and keeps the questions."""

    def __init__(self, *answers: list[Run]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(
        self, engine: Any, key: Any, configurations: Any, limit: Any = None, **named: Any
    ) -> Any:
        assert engine == "engine"
        self.asked.append(((key, tuple(configurations), limit), named))
        return self.answers.pop(0)


def with_series(monkeypatch: pytest.MonkeyPatch, module: Any, *answers: list[Run]) -> Series:
    series = Series(*answers)
    monkeypatch.setattr(module, "series_runs", series)
    belongs = {"engine": ("key", ("first", "second"))}
    monkeypatch.setattr(histories, "series_of", lambda engine, run: belongs[engine])
    return series


GOOD_RUN, INHERITS = (
    make_run(3),
    replace(make_run(4), outcome=Outcome.SKIPPED, inherited_outcome=Outcome.FAILED),
)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([[GOOD_RUN]], GOOD_RUN),
        ([[]], None),
        ([[INHERITS], [GOOD_RUN, INHERITS]], GOOD_RUN),
        ([[INHERITS], [INHERITS]], None),  # fewer than were asked for: that is all there is
        ([[INHERITS], 20 * [INHERITS], [GOOD_RUN, INHERITS]], GOOD_RUN),
        ([[INHERITS], 20 * [INHERITS], 500 * [INHERITS], [GOOD_RUN, INHERITS]], GOOD_RUN),
        ([[INHERITS], 20 * [INHERITS], 500 * [INHERITS], [INHERITS]], None),
    ],
)
def test_the_last_good_run_is_looked_for_near_by_first(
    answers: list[list[Run]], found: Run | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = with_series(monkeypatch, histories, *answers)
    engine: Any = "engine"
    assert histories.find_good_before(engine, make_run(9)) == found
    conditions = {"to_position": 8, "outcomes": [Outcome.PASSED, Outcome.SKIPPED]}
    assert series.asked == [
        (("key", ("first",), limit), conditions) for limit in (1, 20, 500, None)[: len(answers)]
    ]
    assert series.answers == []


def test_neighbours_are_looked_for_near_by_first(monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = "engine"
    whole = ("key", ("first", "second"))
    before, after = make_run(8), [make_run(10), make_run(11)]
    windows = [{"from_position": 10, "to_position": end} for end in (29, 509, None)]
    for answers in ([after], [[], after], [[], [], after], [[], [], []]):
        series = with_series(monkeypatch, histories, [before], *answers)
        found = histories.load_neighbours(engine, make_run(9))
        assert found == (before, answers[-1][0] if answers[-1] else None)
        assert series.asked == [
            ((*whole, 1), {"to_position": 8}),
            *(((*whole, None), window) for window in windows[: len(answers)]),
        ]
    hashes = ("a" * 40, "b" * 40)
    series = with_series(monkeypatch, histories, [before, after[0]])
    runs = histories.load_outcomes(engine, before, hashes)
    assert runs == {run.commit.hash: run for run in (before, after[0])}
    assert series.asked == [((*whole, None), {"commits": [*hashes]})]
    off = make_run(9, commit=make_commit(9, position=None, parents=("p" * 40, "q" * 40)))
    series = with_series(monkeypatch, histories, [make_run(2), before])
    assert histories.load_neighbours(engine, off) == (before, None)
    assert series.asked == [((*whole, None), {"commits": ("p" * 40,)})]


def test_the_newest_good_run_counts_through_what_inherits_a_failure(engine: Engine) -> None:
    fails = replace(
        make_report(1).run, outcome=Outcome.SKIPPED, inherited_outcome=Outcome.FAILED,
        inherited_from=make_commit(9).hash, figures=None, gates=(),
    )  # fmt: skip
    keep(
        engine,
        make_report(0), replace(make_report(1), run=fails, sequences=()), make_report(2, BAD),
        make_report(3, BAD),
    )  # fmt: skip
    runs = {run.commit.position: run for run in reading.load_history(engine)}
    assert histories.find_good_before(engine, runs[2]) == runs[0]
    assert histories.load_last_good(engine, runs[3]) == runs[0]
    assert histories.load_last_good(engine, runs[0]) is None
    assert histories.load_neighbours(engine, runs[2]) == (runs[1], runs[3])
    assert histories.load_neighbours(engine, runs[0]) == (None, runs[1])
    assert histories.load_neighbours(engine, runs[3]) == (runs[2], None)


def test_a_range_of_a_series_is_cut_by_the_store_and_then_to_the_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [make_run(number) for number in range(6)]
    engine: Any = "engine"
    card: Any = SimpleNamespace(key="key", configurations=("first", "second"))
    day = START + timedelta(days=4, hours=1)
    unknown = make_commit(9, position=None, committed_at=START + timedelta(days=2))
    for start, end, conditions, places in (
        (None, None, {}, [0, 1, 2, 3, 4, 5]),
        (make_commit(2), None, {"from_position": 2}, [2, 3, 4, 5]),
        (None, make_commit(3), {"to_position": 3}, [0, 1, 2, 3]),
        (make_commit(1), day, {"from_position": 1, "until": day}, [1, 2, 3, 4]),
        (day, make_commit(5), {"since": day, "to_position": 5}, [4, 5]),
        (unknown, None, {}, [2, 3, 4, 5]),
    ):
        series = with_series(monkeypatch, branches, runs)
        found = branches.runs_between(engine, card, start, end)
        assert [run.commit.position for run in found] == places
        assert series.asked == [
            (("key", ("first", "second"), None), {"on_branch": True, **conditions})
        ]
    # Commits whose dates the store does not know are found by when they were run.
    series = with_series(monkeypatch, branches, [], runs)
    late = START + timedelta(days=5)
    assert branches.runs_between(engine, card, late, None) == tuple(runs[5:])
    assert series.asked[1] == (("key", ("first", "second"), None), {})


def test_a_branchs_runs_are_asked_for_no_more_than_are_shown(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = [
        make_report(commit=make_commit(20 + number, position=None, on_branch=False,
                    parents=(make_commit(parent).hash,),
                    committed_at=START + timedelta(days=number)),
                    documents={"branches": ["fix"]})
        for number, parent in ((2, 1), (3, 22))
    ]  # fmt: skip
    keep(engine, *(make_report(number) for number in range(4)), *off)
    (card,) = histories.list_series(engine)
    real = histories.series_runs
    asked: list[tuple[int | None, dict[str, Any]]] = []

    def ask(*given: Any, **named: Any) -> Any:
        asked.append((given[3] if len(given) > 3 else None, named))
        return real(*given, **named)

    monkeypatch.setattr(branches, "series_runs", ask)
    mine = [one.run.commit.hash for one in off]

    def shown(branch: str, limit: int | None) -> list[str]:
        asked.clear()
        return [run.commit.hash for run in branches.branch_runs(engine, card, branch, limit)]

    assert shown("fix", 3) == [make_commit(1).hash, *mine]
    (first, own), second = asked
    assert (first, own.pop("on_branch"), sorted(own.pop("commits")), own) == (
        3, False, sorted(mine), {},
    )  # fmt: skip
    assert second == (1, {"on_branch": True, "to_position": 1})
    assert shown("fix", 2) == mine
    assert len(asked) == 1
    assert shown("fix", None) == [make_commit(0).hash, make_commit(1).hash, *mine]
    assert [limit for limit, _ in asked] == [None, None]
    assert shown(branches.EVERY_BRANCH, 2) == [mine[1], make_commit(3).hash]
    assert asked == [(2, {}), (2, {"on_branch": False})]


def test_cards_come_the_bad_first_and_say_what_tells_them_apart(engine: Engine) -> None:
    keep(
        engine,
        make_report(0), make_report(1, BAD, configuration=NARROW),
        make_report(2, benchmark=SECOND), make_report(3, target=OTHER, benchmark=SECOND),
    )  # fmt: skip
    cards = histories.list_series(engine)
    assert [(card.key.target, card.key.benchmark) for card in cards] == [
        ("sample", "seed"), ("other", "second"), ("sample", "second"), ("sample", "seed"),
    ]  # fmt: skip
    label = "esm2_t6_8M_UR50D · float32 · sdpa · cpu · synthetic weights"
    assert [card.label for card in cards] == [
        f"{label} aaaaaaaa · packs of 512", *(3 * [f"{label} aaaaaaaa · packs of 4,096"]),
    ]  # fmt: skip
    other = replace(NARROW, dtype="bfloat16")
    assert histories.configuration_labels([NARROW, other, NARROW]) == {
        NARROW.digest: label, other.digest: label.replace("float32", "bfloat16"),
    }  # fmt: skip
    assert [incident.state for incident in cards[0].incidents] == ["not_seen"]
    assert [card.is_unwatched for card in cards] == [True, False, False, False]
    assert cards[0].words == f"sample seed {cards[0].label} failed".lower()


def test_the_newest_commit_of_a_branch_is_on_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = make_commit(9, position=None, on_branch=False, committed_at=START + timedelta(days=99))
    theirs = replace(off, hash="d" * 40, committed_at=START + timedelta(days=100))
    keep(
        engine,
        make_report(0), make_report(1), make_report(commit=off, documents={"branches": ["fix"]}),
        make_report(commit=theirs, target=OTHER, documents={"branches": ["fix"]}),
        make_report(commit=off, target=OTHER, documents={"branches": ["fix"]}),
        make_report(
            commit=replace(off, committed_at=START + timedelta(days=150)),
            target=replace(OTHER, name="third"),
        ),
    )  # fmt: skip
    assert comparing.newest_commit(engine, TARGET) == make_commit(1)
    with pytest.raises(NotFoundError, match=r"^No commit of other has a stored run\.$"):
        comparing.newest_commit(engine, OTHER)  # none on its branch
    assert naming.find_commits(engine, "HEAD", "other") == ()
    for name in ("HEAD", "main"):
        assert naming.find_commit(engine, name, TARGET) == make_commit(1)
    assert naming.find_commit(engine, "fix", TARGET) == off
    assert naming.find_commit(engine, "fix", OTHER).hash == theirs.hash
    # No repository is asked for what the built-in target is: it has none of its own.
    monkeypatch.setattr(naming, "is_here", lambda *_: True)
    folder: Any = "folder"
    assert naming._has_repository(builtin_target(), folder) is False
    assert naming._has_repository(TARGET, folder) is True
    assert naming.of_target("https://example.org/a.git:main") == (
        "https://example.org/a.git", "main",
    )  # fmt: skip
    assert naming.of_target("main") == (None, "main")


def test_flips_are_the_most_of_any_set_up(engine: Engine) -> None:
    for configuration, turns in (
        (CONFIGURATION, (BAD, (1.0,) * 3, BAD)),
        (NARROW, (BAD, (1.0,) * 3)),
    ):
        keep(engine, *(make_report(0, turn, configuration=configuration) for turn in turns))
    keep(engine, make_report(1), make_report(0, target=OTHER))
    runs = reading.load_history(engine)
    first = {run.configuration: run for run in runs if run.row_id in (3, 5)}
    flips = questions.load_flips(engine, runs)
    assert flips == {3: 2, 5: 1}
    assert questions.count_flips(first[CONFIGURATION], flips) == 2
    assert questions.count_flips(make_run(7, id=99), flips) == 0
    assert questions.count_flips(make_run(7, id=99, inherited_run_id=5), flips) == 1
    statuses = status.load_statuses(engine)
    assert [(one.target, one.flips) for one in statuses] == [
        ("other", {}), ("sample", {make_commit(0).hash: 2}),
    ]  # fmt: skip
    assert [one.target for one in status.load_statuses(engine, OTHER.location)] == ["other"]


def test_attempts_are_those_of_one_set_up_and_environment(engine: Engine) -> None:
    far = make_environment(host="far")
    nothing: dict[str, Any] = {"outcome": Outcome.NOT_RUN, "figures": None, "gates": ()}
    keep(
        engine,
        make_report(0, BAD), make_report(0, environment=far), make_report(0, configuration=NARROW),
        make_report(0, (), culprit=None, **nothing), make_report(1), make_report(0),
    )  # fmt: skip
    run = reading.load_run(engine, 6)
    assert questions.load_attempts(engine, run) == (Outcome.FAILED, Outcome.PASSED)
    away = reading.load_run(engine, 2)
    assert questions.load_attempts(engine, away) == (Outcome.PASSED,)


def test_what_is_behind_is_counted_from_the_last_commit_with_a_run(
    engine: Engine, tmp_path: Path
) -> None:
    tiny = TinyRepository(tmp_path / "tiny")
    hashes = [tiny.commit({"a": str(number)}) for number in range(4)]
    target = replace(TARGET, location=str(tiny.folder))
    for seen, behind in (([], 4), (hashes[:1], 3), ([hashes[2], hashes[0]], 1), (hashes, 0)):
        assert status.count_commits_behind(target, seen) == (behind, None)
    # What is planned, or waited for a card, is still to come.
    runs = [make_report(place).run for place in range(4)]
    runs = [replace(run, commit=Commit(hash=one)) for run, one in zip(runs, hashes, strict=True)]
    runs[1:] = [replace(run, outcome=Outcome.NOT_RUN) for run in runs[1:]]
    assert status.count_commits_behind(target, status.reached(runs)) == (3, None)
    assert status.count_commits_behind(builtin_target(), hashes) == (None, None)
    none, why = status.count_commits_behind(replace(target, location=str(tmp_path / "gone")), [])
    assert none is None
    assert why is not None
    assert "gone" in why


def test_runs_are_listed_as_they_are_asked_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(engine, make_report(0), make_report(0, BAD), make_report(1, target=OTHER))
    loaded = Recorder(["runs"])
    monkeypatch.setattr(stored_runs.reader, "load_runs", loaded)
    found = stored_runs.list_runs(
        engine, target=OTHER.location, benchmark="seed", outcomes=["failed", "error"], limit=3,
        all_attempts=True,
    )  # fmt: skip
    stored_runs.list_runs(engine)
    assert found == ["runs"]
    assert loaded.calls == [
        ((engine,), {"target": "other", "benchmark": "seed", "limit": 3, "all_attempts": True,
                     "outcomes": [Outcome.FAILED, Outcome.ERROR]}),
        ((engine,), {"target": None, "benchmark": None, "limit": None, "all_attempts": False,
                     "outcomes": None}),
    ]  # fmt: skip
    for limit in (0, 1.5):
        with pytest.raises(ConfigurationError) as caught:
            stored_runs.list_runs(engine, limit=limit)  # type: ignore[arg-type]
        assert str(caught.value) == (
            f"{limit!r} is not a number of commits: use a whole number, at least 1."
        )
    for outcomes, sentence in (
        ("failed", "'failed' is not a list of outcomes: write ['failed']."),
        (["odd"], "'odd' is not a valid Outcome: an outcome is one of passed, failed, error, "
         "skipped, not_run."),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError) as caught:
            stored_runs.list_runs(engine, outcomes=outcomes)
        assert str(caught.value) == sentence


def test_the_packs_of_a_run_are_its_own_and_in_order(engine: Engine) -> None:
    turned = make_report(1)
    turned = replace(
        turned,
        sequences=tuple(
            replace(one, pack=int(one.index == 1), slot=9 - one.index) for one in turned.sequences
        ),
    )
    keep(engine, make_report(0), turned)
    first, second = reading.load_history(engine)
    assert [one.sequence_id for one in reading.load_pack(engine, first, 0)] == [
        "short_1", "short_2", "short_3",
    ]  # fmt: skip
    assert [one.sequence_id for one in reading.load_pack(engine, second, 0)] == [
        "short_3", "short_1",
    ]  # fmt: skip
    assert series_key(first) == series_key(second)
