from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from tests.analysis.histories import START, commit, configuration, history, run
from virnucpro_monitor.analysis.incidents import derive_incidents
from virnucpro_monitor.analysis.regressions import Bound, Regressions, find_regressions
from virnucpro_monitor.records import Run

NOW = START + timedelta(days=200)


def find(
    runs: Sequence[Run], since: Bound | None = None, until: Bound | None = None
) -> Regressions:
    incidents = derive_incidents(runs, now=NOW)
    return find_regressions(runs, incidents, since=since, until=until)


def places(incidents: Sequence[object]) -> list[int | None]:
    return [incident.first_bad.commit.position for incident in incidents]  # type: ignore[attr-defined]


def test_incidents_are_told_apart_by_when_they_began_and_ended() -> None:
    #      0123456789
    runs = history("PFPFPPFPFF")
    found = find(runs, since=commit(1), until=commit(8))
    assert places(found.broken) == [8]
    assert places(found.recovered) == [3, 6]
    assert places(found.fixed) == [1]


def test_the_range_excludes_its_beginning_and_includes_its_end() -> None:
    runs = history("PFP")
    assert places(find(runs, since=commit(0), until=commit(1)).broken) == [1]
    assert places(find(runs, since=commit(1), until=commit(2)).broken) == []
    assert places(find(runs, since=commit(0), until=commit(2)).recovered) == [1]


def test_the_whole_history_needs_no_bounds() -> None:
    found = find(history("FPFF"))
    assert (places(found.broken), places(found.recovered)) == ([2], [0])
    assert found.appeared == ()
    assert (found.num_judged, found.num_series) == (1, 1)


def test_dates_bound_a_range_too() -> None:
    runs = history("PFPPF")
    found = find(runs, since=START + timedelta(days=1), until=START + timedelta(days=4))
    assert places(found.broken) == [4]
    assert places(found.fixed) == [1]


def test_a_commit_whose_place_is_unknown_is_placed_by_its_date() -> None:
    unplaced = run(2, "F", commit=replace(commit(2), position=None))
    found = find([run(0), unplaced, run(4, "F")], since=commit(0), until=commit(3))
    assert [i.first_bad.commit.hash for i in found.broken] == [unplaced.commit.hash]


def test_a_commit_off_the_branch_breaks_nothing_on_it() -> None:
    off_branch = run(2, "F", commit=replace(commit(2), position=None, on_branch=False))
    found = find([run(0), off_branch, run(4)], since=commit(0), until=commit(4))
    assert found.broken == found.appeared == found.recovered == ()


def test_series_that_vanished_or_gave_no_verdict_are_named() -> None:
    runs = [
        *history("PPPP"),
        *history("PF", benchmark="gone"),
        *history("PPEN", benchmark="broken"),
        *history("  PP", benchmark="new"),
    ]
    found = find(runs, since=commit(1))
    assert [key.benchmark for key in found.judged] == ["seed", "new"]
    assert [key.benchmark for key in found.appeared] == ["new"]
    (vanished,) = found.vanished
    assert vanished.key.benchmark == "gone"
    assert vanished.note == "Its last run is of 0000000000 (2026-01-02): failed."
    (unjudged,) = found.unjudged
    assert unjudged.note == (
        "None of its 2 runs gave a verdict; the last: not_run, A reason for not_run."
    )
    assert (found.num_judged, found.num_series) == (2, 4)


def test_a_series_that_begins_after_the_range_is_not_counted() -> None:
    runs = [*history("PP"), *history("    PP", configuration=configuration(dtype="float16"))]
    found = find(runs, until=commit(1))
    assert found.num_series == 1


def test_nothing_is_found_in_nothing() -> None:
    found = find([])
    assert (found.broken, found.judged, found.num_series) == ((), (), 0)
