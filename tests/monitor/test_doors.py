"""Each question that two doors answered with code of their own, asked at both.

What is expected comes from the stored rows or from how the history was made, never from the answer
of the other door.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app import data
from tests.app.conftest import PageRunner, shown_html
from tests.monitor.conftest import CommandLine
from tests.store.builders import (
    BENCHMARK,
    CONFIGURATION,
    CONTENT,
    TARGET,
    make_commit,
    make_report,
)
from virnucpro_monitor import open_monitor
from virnucpro_monitor.analysis.incidents import Incident
from virnucpro_monitor.analysis.series import series_key
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.monitor.histories import SeriesCard
from virnucpro_monitor.records import Failure, Outcome, Protocol, RunReport, content_digest
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.notes_reader import load_acknowledgements
from virnucpro_monitor.store.reader import load_run
from virnucpro_monitor.store.writer import Writer

GOOD = (0.99999, 1.0, 0.9999999)
BAD = (0.99, 1.0, 0.9999)
OTHER_SET = replace(BENCHMARK, name="proteome", digest="c" * 64)

Store = Callable[..., list[int]]


def skipped(number: int, source: RunReport, **changes: object) -> RunReport:
    """A run of the `number`-th commit that inherits from another one's."""
    return replace(
        make_report(
            number,
            (),
            outcome=Outcome.SKIPPED,
            culprit=source.run.culprit,
            figures=source.run.figures,
            gates=source.run.gates,
            inherited_from=source.run.commit.hash,
            inherited_outcome=source.run.outcome,
            reason="No relevant file differs.",
            **changes,
        ),
        sequences=(),
    )


def unable(number: int, backend: str = "auto") -> RunReport:
    """A run whose model was never loaded, so that its backend is not known."""
    return make_report(
        number,
        (),
        outcome=Outcome.ERROR,
        culprit=None,
        gates=(),
        reason="It cannot be imported.",
        configuration=replace(CONFIGURATION, backend=backend),
    )


def app_incident(key: str) -> Incident:
    return next(one for one in data.load_incidents() if one.key == key)


def fresh_card(benchmark: str = "seed") -> SeriesCard:
    data.load_series.forget()  # type: ignore[attr-defined]
    return next(card for card in data.load_series() if card.key.benchmark == benchmark)


# Incidents, what was acknowledged and what was taken back


def test_who_reopened_an_incident_is_told_at_both_doors(
    store: Store, command: CommandLine, run_page: PageRunner, url: str
) -> None:
    store(make_report(0), make_report(1, BAD))
    (key,) = [one["key"] for one in command("incidents", "list")]
    command("incidents", "ack", key, "--why", "known", "--who", "alice")
    command("incidents", "reopen", key, "--who", "bob")
    (note,) = load_acknowledgements(open_engine(url, read_only=True), withdrawn=True)
    assert (note.who, note.withdrawn_by) == ("alice", "bob")
    (told,) = command("incidents", "list")
    assert (told["state"], told["reopened_because"]) == ("open", "It was reopened by bob.")
    shown = app_incident(key)
    assert (shown.state, shown.reopened_because) == ("open", told["reopened_because"])
    assert shown.acknowledgement == note
    (on_card,) = fresh_card().incidents
    assert on_card.reopened_because == told["reopened_because"]
    page = shown_html(run_page("incidents", url, incident=key))
    assert "Open again: It was reopened by bob." in page


def test_a_page_shows_who_acknowledged_and_why(
    store: Store, command: CommandLine, run_page: PageRunner, url: str
) -> None:
    store(make_report(0), make_report(1, BAD))
    (key,) = [one["key"] for one in command("incidents", "list")]
    command("incidents", "ack", key, "--why", "waits for the release", "--who", "alice")
    page = shown_html(run_page("incidents", url, incident=key))
    assert "alice" in page
    assert "waits for the release" in page
    assert "acknowledged" in shown_html(run_page("incidents", url, state="acknowledged"))
    assert [one.state for one in fresh_card().incidents] == ["acknowledged"]


def keys_of_sets(command: CommandLine) -> tuple[str, str]:
    """The keys of the incidents on "proteome" and on "seed"."""
    keys = {one["benchmark"]: one["key"] for one in command("incidents", "list")}
    return keys["proteome"], keys["seed"]


def test_an_acknowledgement_for_a_target_is_seen_through_every_filter(
    store: Store, command: CommandLine, run_page: PageRunner, url: str
) -> None:
    store(
        make_report(0),
        make_report(0, benchmark=OTHER_SET),
        make_report(1, BAD),
        make_report(1, BAD, benchmark=OTHER_SET),
    )
    given, covered = keys_of_sets(command)
    command("incidents", "ack", given, "--why", "both", "--who", "alice", "--scope", "sample")
    # The one it was given for is mended.
    store(make_report(2, benchmark=OTHER_SET), make_report(2, BAD))
    (filtered,) = command("incidents", "list", "--benchmark", "seed")
    assert (filtered["key"], filtered["state"]) == (covered, "acknowledged")
    broken = command("regressions", "--benchmark", "seed")["broken"]
    assert [one["state"] for one in broken] == ["acknowledged"]
    assert app_incident(covered).state == "acknowledged"
    assert [one.state for one in fresh_card("seed").incidents] == ["acknowledged"]


def test_the_dashboard_reopens_what_another_incident_s_note_covers(
    store: Store, command: CommandLine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(
        make_report(0),
        make_report(0, benchmark=OTHER_SET),
        make_report(1, BAD),
        make_report(1, BAD, benchmark=OTHER_SET),
    )
    given, covered = keys_of_sets(command)
    command("incidents", "ack", given, "--why", "both", "--who", "alice", "--scope", "sample")
    monkeypatch.setenv("VIRNUCPRO_MONITOR_WRITABLE_APP", "true")
    assert app_incident(covered).state == "acknowledged"
    data.reopen(app_incident(covered), "bob")
    (note,) = load_acknowledgements(open_engine(url, read_only=True), withdrawn=True)
    assert (note.incident, note.withdrawn_by) == (given, "bob")
    assert app_incident(covered).state == "open"
    assert {one["state"] for one in command("incidents", "list")} == {"open"}


# What stands behind a skipped run


def test_sequences_stay_reachable_when_their_source_is_skipped_later(
    store: Store, command: CommandLine, run_page: PageRunner, url: str
) -> None:
    first, second = make_report(0, GOOD), make_report(1, GOOD)
    ids = store(first, second, skipped(2, first), skipped(0, second))
    run = load_run(open_engine(url, read_only=True), ids[2])
    assert command("runs", "show", str(ids[2]))["measured_run"] == ids[0]
    assert data.load_measured(run).id == ids[0]
    names = [sequence.id for sequence in BENCHMARK.sequences]
    worst = command("runs", "show", str(ids[2]))["worst_sequences"]
    assert {one["sequence_id"] for one in worst} == set(names)
    app = run_page("run", url, run=str(ids[2]))
    assert set(app.dataframe[0].value["sequence"]) == set(names)
    (compared,) = command("compare", make_commit(1).hash, make_commit(2).hash)["comparisons"]
    assert compared["num_compared"] == len(names)
    base = load_run(open_engine(url, read_only=True), ids[1])
    assert data.load_comparison(base, run).num_common == len(names)


# Comparing


def protocol(version: str, strict: float) -> Protocol:
    content = {"thresholds": CONTENT["thresholds"] | {"strict": strict}}
    return Protocol(version=version, digest=content_digest(content), content=content)


def test_thresholds_are_those_that_judged_the_measured_head(
    store: Store, command: CommandLine, url: str
) -> None:
    loose, present = protocol("loose", 0.9), protocol("present", 0.9999999)
    measured = make_report(1, GOOD, protocol=loose)
    ids = store(make_report(0, GOOD), measured, skipped(2, measured, protocol=present))
    base, head = (load_run(open_engine(url, read_only=True), ids[place]) for place in (0, 2))
    (compared,) = command("compare", base.commit.hash, head.commit.hash)["comparisons"]
    assert compared["thresholds"]["strict"] == 0.9
    assert compared["head"]["common_strict"] == len(GOOD)
    comparison = data.load_comparison(base, head)
    assert comparison.thresholds.strict == loose.content["thresholds"]["strict"]
    assert comparison.head.num_strict == len(GOOD)


def test_runs_of_two_commits_are_paired_alike(store: Store, command: CommandLine, url: str) -> None:
    half = replace(CONFIGURATION, dtype="float16")
    ids = store(
        make_report(0),
        make_report(0, configuration=half),
        make_report(1, BAD, configuration=half),
        make_report(1),
        make_report(1, benchmark=OTHER_SET),
    )
    found = command("compare", make_commit(0).hash, make_commit(1).hash)
    expected = {(ids[0], ids[3]), (ids[1], ids[2])}
    assert {(one["base"]["id"], one["head"]["id"]) for one in found["comparisons"]} == expected
    assert found["runs_only_in_head"] == [ids[4]]
    base, head = (data.find_commits(make_commit(place).hash, "sample")[0] for place in (0, 1))
    pairing = data.pair_runs(base, head)
    assert {(one.id, other.id) for one, other in pairing.pairs} == expected
    assert [run.id for run in pairing.only_head] == [ids[4]]


def test_commits_without_a_common_set_are_refused_in_the_same_words(
    store: Store, refused: Callable[..., str], run_page: PageRunner, url: str
) -> None:
    store(make_report(0), make_report(1, benchmark=OTHER_SET))
    base, head = make_commit(0).hash, make_commit(1).hash
    told = "were run on other benchmark sets (seed and proteome)"
    assert told in refused("compare", base, head)
    assert told in shown_html(run_page("compare", url, base=base, head=head))


# Series and what lies next to a run


def test_a_run_without_a_known_backend_is_a_neighbour_like_any_other(
    store: Store, run_page: PageRunner, url: str
) -> None:
    ids = store(make_report(0), unable(1), make_report(2))
    runs = [load_run(open_engine(url, read_only=True), one) for one in ids]
    assert [run.id for run in data.load_series_runs(fresh_card(), None)] == ids
    assert [run and run.id for run in data.load_neighbours(runs[2])] == [ids[1], None]
    assert [run and run.id for run in data.load_neighbours(runs[1])] == [ids[0], ids[2]]
    assert [run and run.id for run in data.load_neighbours(runs[0])] == [None, ids[1]]
    between = data.load_outcomes(runs[2], [run.commit.hash for run in runs])
    assert {run.id for run in between.values()} == set(ids)
    last_good = data.load_last_good(runs[1])
    assert last_good is not None
    assert last_good.id == ids[0]
    page = shown_html(run_page("run", url, run=str(ids[2])))
    assert f'run={ids[1]}"' in page.split("← previous commit")[0].rsplit("<a", 1)[1]


def test_a_loose_run_is_no_neighbour_where_its_commit_was_measured(store: Store, url: str) -> None:
    ids = store(make_report(0), unable(1), make_report(1), make_report(2))
    last = load_run(open_engine(url, read_only=True), ids[3])
    before, _ = data.load_neighbours(last)
    assert before is not None
    assert before.id == ids[2]


def test_an_inherited_pass_is_the_last_good_one_everywhere(
    store: Store, command: CommandLine, url: str
) -> None:
    first = make_report(0)
    ids = store(first, skipped(1, first), make_report(2, BAD))
    (incident,) = command("incidents", "list")
    assert incident["last_good"]["run"] == ids[1]
    good = data.load_last_good(load_run(open_engine(url, read_only=True), ids[2]))
    assert good is not None
    assert good.id == ids[1]


# A target, and the third door


def test_a_target_means_the_same_at_every_door(
    store: Store, command: CommandLine, refused: Callable[..., str], url: str
) -> None:
    other = replace(TARGET, name="other", location="https://example.org/other.git")
    ids = store(make_report(0), make_report(1, target=other))
    (by_name,) = command("runs", "list", "--target", "other")
    (by_location,) = command("runs", "list", "--target", other.location)
    assert by_name["id"] == by_location["id"] == ids[1]
    assert data.load_target("other") == other
    with open_monitor(url) as monitor:
        assert monitor.targets() == [other, TARGET]
        for name in ("other", other.location):
            assert [run.id for run in monitor.runs(target=name)] == [ids[1]]
        with pytest.raises(NotFoundError) as told:
            monitor.runs(target="nosuch")
    assert refused("runs", "list", "--target", "nosuch").endswith(str(told.value))
    assert data.load_target("nosuch") is None


def test_python_and_the_command_line_give_one_answer(
    store: Store, command: CommandLine, url: str
) -> None:
    first = make_report(0)
    ids = store(first, skipped(1, first), make_report(2, BAD), unable(3), make_report(4))
    base, head = make_commit(1).hash, make_commit(2).hash
    listed, shown = command("runs", "list"), command("runs", "show", base)
    broken = command("regressions", "--since", base)
    compared, incidents = command("compare", base, head), command("incidents", "list")
    (status,) = command("status")
    with open_monitor(url) as monitor:
        assert [run.id for run in monitor.runs()] == [one["id"] for one in listed] == ids
        run = monitor.find_run(base)
        assert (run.id, shown["measured_run"]) == (ids[1], ids[0])
        assert {one.sequence_id for one in monitor.sequences(run)} == {
            one["sequence_id"] for one in shown["worst_sequences"]
        }
        (mine,) = monitor.compare(base, head).comparisons
        (theirs,) = compared["comparisons"]
        assert (mine.verdict, mine.base.run.id, mine.head.run.id, mine.thresholds.strict) == (
            theirs["verdict"], theirs["base"]["id"], theirs["head"]["id"],
            theirs["thresholds"]["strict"],
        )  # fmt: skip
        assert [(one.key, one.state) for one in monitor.incidents()] == [
            (one["key"], one["state"]) for one in incidents
        ]
        found = monitor.regressions(since=base)
        for kind in ("broken", "recovered", "fixed"):
            keys = [one.key for one in getattr(found, kind)]
            assert keys == [one["key"] for one in broken[kind]]
        (told,) = monitor.status()
        assert told.commits_measured == status["commits_measured"]


# What broke


def test_a_day_that_ends_a_range_belongs_to_it_at_both_doors(
    store: Store, command: CommandLine, run_page: PageRunner, url: str
) -> None:
    store(make_report(0), make_report(1, BAD))
    day = f"{make_commit(1).committed_at:%Y-%m-%d}"
    broken = command("regressions", "--until", day)["broken"]
    assert [one["first_bad"]["position"] for one in broken] == [1]
    page = shown_html(run_page("regressions", url, span="own", until=day))
    assert f"incident={broken[0]['key']}" in page
    bound = data.find_bound(day, None, UTC, is_end=True)
    assert isinstance(bound, datetime)
    assert bound.date().isoformat() == day
    assert (
        command("regressions", "--until", f"{make_commit(0).committed_at:%Y-%m-%d}")["broken"] == []
    )


def test_series_have_one_key(store: Store, url: str) -> None:
    (run_id,) = store(make_report(0))
    assert fresh_card().key == series_key(load_run(open_engine(url, read_only=True), run_id))


def test_a_comparison_without_names_is_the_newest_against_the_last_good(
    store: Store, command: CommandLine, run_page: PageRunner, url: str
) -> None:
    first = make_report(0)
    ids = store(first, skipped(1, first), make_report(2, BAD), make_report(3, BAD))
    found = command("compare")
    assert (found["base"], found["head"]) == (make_commit(1).hash, make_commit(3).hash)
    assert [one["head"]["id"] for one in found["comparisons"]] == [ids[3]]
    assert command("compare", make_commit(0).hash)["head"] == make_commit(3).hash
    page = shown_html(run_page("compare", url))
    assert "It broke" in page
    assert make_commit(1).short in page
    store(make_report(4))
    data.suggest_pairs.forget()  # type: ignore[attr-defined]
    found = command("compare")
    assert (found["base"], found["head"]) == (make_commit(1).hash, make_commit(4).hash)
    assert "Still passing" in shown_html(run_page("compare", url))


def test_an_error_shows_what_was_raised_first(
    store: Store, run_page: PageRunner, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        'Traceback (most recent call last):\n  File "/x/virnucpro_monitor/runner/worker.py", '
        'line 1, in go\n    load()\n  File "/target/pack.py", line 2, in <module>\n'
        "    import rest\nModuleNotFoundError: No module named 'rest'\n"
    )
    failure = Failure(kind="import", message="No module named 'rest'", traceback=text)
    (run_id,) = store(replace(unable(0), failure=failure))
    app = run_page("run", url, run=str(run_id))
    assert app.code[0].value == "ModuleNotFoundError: No module named 'rest'"
    shown = app.code[1].value
    assert "1 frame of the monitor" in shown
    assert "/target/pack.py" in shown
    assert "worker.py" not in shown
    assert run_command(["runs", "show", str(run_id)]) == 0
    printed = capsys.readouterr().out
    assert "1 frame of the monitor" in printed
    assert "worker.py" not in printed


def test_health_speaks_of_the_runner_not_of_a_run_by_hand(
    store: Store, run_page: PageRunner, url: str
) -> None:
    store(make_report(0))
    page = shown_html(run_page("health", url))
    assert "No runner has ever reported: nothing is scheduled" in page
    engine = open_engine(url)
    Writer(engine).heartbeat("gpu-1", "sample", "running", "At it.", num_queued=3)
    data.load_health.forget()  # type: ignore[attr-defined]
    assert "It is measuring; 3 commits still to cover." in shown_html(run_page("health", url))
    Writer(engine).heartbeat("gpu-1", "sample", "finished", "Done.", num_queued=1, exit_code=3)
    engine.dispose()
    data.load_health.forget()  # type: ignore[attr-defined]
    page = shown_html(run_page("health", url))
    assert "The runner reports" in page
    assert "1 commit left in the queue" in page
    assert "something could not be run (code 3)" in page
