"""Where the questions of the analysis have an edge: ranges, limits, ties, order."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.analysis.histories import (
    START,
    acknowledgement,
    commit,
    configuration,
    environment,
    figures,
    gate,
    history,
    placed,
    run,
)
from virnucpro_monitor.analysis.acknowledging import judge_acknowledgements, reason_not_standing
from virnucpro_monitor.analysis.change_points import ChangeKind, find_changes
from virnucpro_monitor.analysis.comparison import Mark, compare_gates
from virnucpro_monitor.analysis.differences import find_differences, reasons_not_comparable
from virnucpro_monitor.analysis.incidents import derive_incidents
from virnucpro_monitor.analysis.movements import Figure, Movement, follow_figure
from virnucpro_monitor.analysis.regressions import (
    Regressions,
    SeriesNote,
    find_regressions,
    is_after,
)
from virnucpro_monitor.analysis.series import series_key
from virnucpro_monitor.analysis.shared import shared_by_failing
from virnucpro_monitor.records import Run, SequenceResult, SequenceStatus, Thresholds

NOW = START + timedelta(days=200)
HOUR = timedelta(hours=1)
THRESHOLDS = Thresholds()


def find(runs: Sequence[Run], **bounds: object) -> Regressions:
    return find_regressions(runs, derive_incidents(runs, now=NOW), **bounds)  # type: ignore[arg-type]


# What broke in a range


def test_an_incident_outside_the_range_is_in_no_list() -> None:
    later = find(history("PPFP"), until=commit(1))
    assert (later.broken, later.recovered, later.fixed) == ((), (), ())
    earlier = find(history("PFPP"), since=commit(2))
    assert (earlier.broken, earlier.recovered, earlier.fixed) == ((), (), ())
    (going_on,) = find(history("PFPP"), until=commit(1)).broken  # mended after the range
    assert going_on.first_bad.commit.position == 1


def test_the_whole_answer_for_series_of_each_kind() -> None:
    late = history("      PP", benchmark="late")
    gone = history("PF", benchmark="gone")
    silent = history("PPPNN", benchmark="silent")
    new = history("   PP", benchmark="new")
    old = history("PPPPP", benchmark="old")
    found = find([*late, *gone, *silent, *new, *old], since=commit(2), until=commit(4))
    last = f"Its last run is of {commit(1).short} (2026-01-02)"
    assert found == Regressions(
        since=commit(2),
        until=commit(4),
        broken=(),
        recovered=(),
        fixed=(),
        judged=(series_key(new[0]), series_key(old[0])),
        vanished=(SeriesNote(key=series_key(gone[0]), latest=gone[-1], note=f"{last}: failed."),),
        unjudged=(
            SeriesNote(
                key=series_key(silent[0]),
                latest=silent[4],
                note="None of its 2 runs gave a verdict; the last: not_run, A reason for not_run.",
            ),
        ),
        appeared=(series_key(new[0]),),
        moved=(),
        accuracy=(),
    )  # fmt: skip


def stepped(change: float, *, at: int = 12, number: int = 24, **changes: object) -> list[Run]:
    """A worst error of 1e-6 that is `change` times as large from the commit `at` on."""
    return [
        run(place, figures=figures(1 - 1e-6 * (change if place >= at else 1.0)), **changes)
        for place in range(number)
    ]


def test_movements_are_those_of_the_range_the_worse_ones_first() -> None:
    better, worse = stepped(0.01, benchmark="better"), stepped(100.0, benchmark="worse")
    runs = [*better, *worse]

    def moved(**bounds: object) -> list[tuple[str, int | None]]:
        found = find(runs, **bounds).moved
        worst = [one for one in found if one.movement.figure is Figure.WORST]
        return [(one.key.benchmark, one.movement.run.commit.position) for one in worst]

    assert moved() == [("worse", 12), ("better", 12)]
    assert moved(since=commit(11), until=commit(12)) == [("worse", 12), ("better", 12)]
    assert moved(since=commit(12)) == []
    assert moved(until=commit(11)) == []


def test_a_side_that_leaves_fp32_is_told_within_the_range_for_each_series() -> None:
    def leaving(**changes: object) -> list[Run]:
        return [
            run(
                place,
                figures=figures(
                    max_packed_relative_l2=1e-3 if place < 3 else 1e-2,
                    max_unpacked_relative_l2=1e-3,
                ),
                **changes,
            )
            for place in range(6)
        ]

    runs = [*leaving(benchmark="one"), *leaving(benchmark="two")]

    def told(**bounds: object) -> list[tuple[str, int | None]]:
        return [
            (one.after.benchmark, one.after.commit.position)
            for one in find(runs, **bounds).accuracy
        ]

    assert told() == [("one", 3), ("two", 3)]
    assert told(since=commit(3)) == []
    assert told(until=commit(2)) == []


def test_a_bound_without_a_place_is_set_by_its_date() -> None:
    off = replace(commit(4), position=None, hash="f" * 40)
    assert is_after(run(5), off)
    assert not is_after(run(4), off)  # made at that very moment
    assert not is_after(run(3), off)
    authored = replace(off, committed_at=None)
    assert is_after(run(5), authored)
    assert not is_after(run(3), authored)
    committed = replace(off, authored_at=None)
    assert not is_after(run(3), committed)
    assert is_after(run(0), replace(authored, authored_at=None))  # nothing says when it was
    assert not is_after(run(4, commit=off), off)
    assert not is_after(run(4, commit=replace(off, position=4)), off)
    assert is_after(run(4), START + timedelta(days=4) - HOUR)
    assert not is_after(run(4), START + timedelta(days=4))


# Acknowledgements


def test_an_acknowledgement_holds_up_to_its_limits_and_not_beyond() -> None:
    known = acknowledgement("x", expires_at=NOW)
    assert reason_not_standing(known, [], NOW - HOUR) == ""
    assert reason_not_standing(known, [], NOW) == "The acknowledgement expired on 2026-07-20."
    accepted = acknowledgement("x", reopen_if_worse_than=0.25)
    later = accepted.created_at + HOUR

    def bad(error: float, started_at: object = later) -> Run:
        return run(3, "F", similarity=1.0 - error, started_at=started_at)

    assert reason_not_standing(accepted, [bad(0.25)], NOW) == ""
    assert reason_not_standing(accepted, [bad(0.5, accepted.created_at)], NOW) == ""
    assert reason_not_standing(accepted, [bad(0.5, accepted.created_at), bad(0.5)], NOW) == (
        f"At {commit(3).short} the worst error is 5.0e-01, above the 2.5e-01 that was accepted."
    )
    withdrawn = acknowledgement("x", withdrawn_at=NOW)
    assert reason_not_standing(withdrawn, [], NOW) == "It was reopened by somebody."


def test_the_newest_acknowledgement_speaks() -> None:
    old = acknowledgement("x", id=1)
    new = acknowledgement("x", id=2, created_at=old.created_at + HOUR)
    twin = replace(new, id=3)
    assert judge_acknowledgements([old, new], [], NOW).acknowledgement is new
    assert judge_acknowledgements([twin, new], [], NOW).acknowledgement is twin
    assert judge_acknowledgements([new, twin], [], NOW).acknowledgement is twin
    unsaved = replace(new, id=None)
    assert judge_acknowledgements([unsaved, new], [], NOW).acknowledgement is new
    gone = [replace(one, withdrawn_at=NOW, withdrawn_by=f"who {one.id}") for one in (old, new)]
    standing = judge_acknowledgements(gone, [], NOW)
    assert standing.acknowledgement is gone[1]
    assert standing.broken_because == "It was reopened by who 2."
    assert not standing.holds
    assert judge_acknowledgements([*gone, old], [], NOW).holds


def test_incidents_of_one_moment_come_by_their_place() -> None:
    def bad(place: int, **changes: object) -> list[Run]:
        """Two series that break at commits of one moment, the higher place listed first."""
        moment = START + timedelta(days=9)
        stamped = replace(commit(place), committed_at=moment, authored_at=moment)
        return [run(0, **changes), run(place, "F", commit=stamped, **changes)]

    for second, first in ((7, 3), (12, 9)):
        runs = [*bad(second, benchmark="a"), *bad(first, benchmark="b")]
        incidents = derive_incidents(runs, now=NOW)
        assert [one.first_bad.commit.position for one in incidents] == [first, second]


# Comparing


def test_gates_are_set_side_by_side_by_name() -> None:
    held, failed = gate("seed"), gate("seed", False, 0.5)
    only_base, only_head = gate("gain", value=0.25), gate("leak", value=0.125)
    changes = compare_gates([held, only_base], [only_head, failed])
    assert [(one.name, one.base, one.head, one.mark) for one in changes] == [
        ("leak", None, only_head, Mark.NOT_COMPARABLE),
        ("seed", held, failed, Mark.NEWLY_FAILING),
        ("gain", only_base, None, Mark.NOT_COMPARABLE),
    ]


def test_a_gate_that_neither_side_judged_is_no_change() -> None:
    unknown, held = gate("oracle", None), gate("oracle")
    pairs = [(unknown, unknown), (unknown, held), (held, unknown)]
    marks = [compare_gates([base], [head])[0].mark for base, head in pairs]
    assert marks == [Mark.EQUAL, Mark.NOT_COMPARABLE, Mark.NOT_COMPARABLE]


def test_what_differs_is_told_in_words() -> None:
    base = run(0, environment=environment(gpu=None, driver="575"))
    other = configuration(weights_digest="1234567890abcdef", dtype="float16")
    head = run(
        1, configuration=other, target="other", environment=environment(gpu="H200", driver=None)
    )
    found = {one.name: str(one) for one in find_differences(base, head)}
    assert found["target"] == "target: project → other"
    assert found["gpu"] == "gpu: none → H200"
    assert found["driver"] == "driver: 575 → none"
    assert found["weights"].endswith(f"→ {other.weights} (1234567890ab)")
    assert found["dtype"] == f"dtype: {configuration().dtype} → float16"
    assert {*list(found)[:3]} == {"target", "weights", "dtype"}  # what prevents a comparison


def test_a_package_that_stands_as_a_fact_is_told_once() -> None:
    def with_versions(place: int, torch: str, other: str) -> Run:
        packages = {"torch": torch, "flash-attn": other, "esm": other}
        used = environment(torch=torch, flash_attn=other, packages=packages)
        return run(place, environment=used)

    base, head = with_versions(0, "2.12", "1"), with_versions(1, "2.13", "2")
    names = [one.name for one in find_differences(base, head)]
    assert sorted(names) == ["esm", "flash_attn", "torch"]


def test_a_run_without_values_names_its_role_and_its_reason() -> None:
    told = reasons_not_comparable(run(0, "E", reason=""), run(1, "E", reason="It cannot be run."))
    assert told == (
        "The base run holds no measures (error).",
        "The head run holds no measures (error: It cannot be run.).",
    )


# Levels and their changes


def test_ten_values_are_a_history_and_nine_are_none() -> None:
    nine, ten = find_changes([-5.0] * 9), find_changes([-5.0] * 10)
    assert (nine.enough_history, nine.num_values, nine.points) == (False, 9, ())
    assert (ten.enough_history, ten.num_values, ten.points) == (True, 10, ())
    found = find_changes([-5.0] * 12 + [None] * 3 + [-3.0] * 12)
    assert (found.enough_history, found.num_values) == (True, 24)
    (point,) = found.points
    assert (point.kind, point.place, point.before, point.after) == (ChangeKind.STEP, 15, -5.0, -3.0)


def test_speed_moves_by_less_than_errors_do() -> None:
    def timed(seconds: float, place: int) -> Run:
        return run(place, figures=figures(1 - 1e-6 * seconds, packed_s=seconds, unpacked_s=1.0))

    runs = [timed(0.5 if place < 20 else 0.625, place) for place in range(40)]
    (slower,) = follow_figure(runs, Figure.THROUGHPUT).movements
    assert slower == Movement(
        figure=Figure.THROUGHPUT,
        kind=ChangeKind.STEP,
        run=runs[20],
        until=slower.until,
        before=pytest.approx(600.0),
        after=pytest.approx(480.0),
        num_after=20,
        is_worse=True,
    )
    assert slower.until in runs
    # A quarter more is no movement of an error, whose smallest one is half a decade or so.
    assert follow_figure(runs, Figure.WORST).movements == ()


def test_a_figure_is_followed_on_each_machine_alone_and_told_in_order() -> None:
    """The machine that comes first in the history moves last."""
    first, second = environment(host="first"), environment(host="second")

    def series(host: object, places: range, at: int) -> list[Run]:
        return [
            run(place, environment=host, figures=figures(packed_s=0.5 if place < at else 1.0))
            for place in places
        ]

    runs = sorted(
        [*series(first, range(0, 60, 2), 40), *series(second, range(1, 61, 2), 21)],
        key=lambda one: one.commit.position or 0,
    )
    found = follow_figure(runs, Figure.THROUGHPUT)
    assert found.figure is Figure.THROUGHPUT
    assert [one.run.commit.position for one in found.movements] == [21, 40]
    assert [band.start for band in found.bands] == [21, 40]


def test_an_error_is_followed_under_one_protocol_and_environment_alone() -> None:
    runs = [
        run(place, figures=figures(1 - (1e-6 if place < 15 else 1e-4)),
            environment=environment(torch="2.12" if place < 15 else "2.13"))
        for place in range(30)
    ]  # fmt: skip
    assert follow_figure(runs, Figure.WORST).movements == ()
    same = [replace(one, environment=environment()) for one in runs]
    assert len(follow_figure(same, Figure.WORST).movements) == 1
    unknown = [replace(one, environment=None) for one in runs]
    assert len(follow_figure(unknown, Figure.WORST).movements) == 1
    other_rule = [
        replace(one, environment=None, protocol_digest=str(place < 15))
        for place, one in enumerate(runs)
    ]
    assert follow_figure(other_rule, Figure.WORST).movements == ()


def test_every_difference_is_told_with_its_kind_what_prevents_comparison_first() -> None:
    packages = {"esm": "1", "numpy": "2"}
    parts = {"cublas": "12.1", "cudnn": "9"}
    base = run(0, environment=environment(packages=packages, parts=parts, driver="570"))
    head = run(
        1,
        target="other",
        benchmark="proteome",
        benchmark_version=2,
        configuration=configuration(token_budget=512, weights_digest="e" * 64),
        environment=environment(
            packages={"esm": "2", "numpy": "2", "new": "1"},
            parts={"cublas": "12.8", "other": "1"},
            driver="575",
        ),
    )
    found = find_differences(base, head)
    weights = configuration().weights
    assert [(one.kind, one.name, one.base, one.head) for one in found[:3]] == [
        ("target", "target", "project", "other"),
        ("benchmark", "benchmark", found[1].base, found[1].head),
        (
            "configuration",
            "weights",
            f"{weights} ({configuration().weights_digest[:12]})",
            f"{weights} ({'e' * 12})",
        ),
    ]
    assert [one.prevents_comparison for one in found] == [True] * 3 + [False] * (len(found) - 3)
    assert [(one.kind, one.name, one.base, one.head) for one in found[3:]] == [
        ("configuration", "token_budget", "4096", "512"),
        ("environment", "driver", "570", "575"),
        ("environment", "esm", "1", "2"),
        ("environment", "cublas", "12.1", "12.8"),
    ]


def test_an_unknown_environment_differs_in_nothing() -> None:
    known, unknown = run(0), run(1, environment=None)
    for base, head in ((known, unknown), (unknown, known), (unknown, unknown), (known, known)):
        assert find_differences(base, head) == ()


# What failing sequences share


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({(0, 0), (0, 1), (1, 0), (1, 1)}, ["all but the last of each pack"]),
        ({(0, 0), (0, 2), (1, 1), (1, 2)}, ["all but the longest of each pack"]),
        ({(0, 2), (1, 2)}, ["the last of each pack"]),
        ({(0, 0), (1, 0)}, ["the first of each pack"]),
    ],
)
def test_all_that_they_share_is_said_and_no_more(
    bad: set[tuple[int, int]], words: list[str]
) -> None:
    results = placed(((50, 65, 60), (200, 45, 70)), bad)
    assert shared_by_failing(results, THRESHOLDS) == words
    lost = SequenceResult(
        index=99, sequence_id="lost", length=100, status=SequenceStatus.LOST
    )  # in no pack, so that it lies at no place of one
    assert shared_by_failing([*results, lost], THRESHOLDS) == []


def test_one_that_is_alone_in_its_pack_is_its_last_and_its_first() -> None:
    alone = placed(((40,), (50, 70)), {(0, 0), (1, 1)})
    assert shared_by_failing(alone, THRESHOLDS) == [
        "the last of each pack", "the longest of each pack",
    ]  # fmt: skip
    without_slot = [replace(one, slot=None) for one in alone[:1]]
    assert shared_by_failing([*without_slot, *alone[1:]], THRESHOLDS) == [
        "the longest of each pack"
    ]


def test_what_was_truncated_is_told() -> None:
    results = placed(((60, 50, 70, 55),), {(0, 0), (0, 3)})
    cut = [replace(one, truncated=one.slot in (0, 3)) for one in results]
    assert shared_by_failing(cut, THRESHOLDS) == ["those that were truncated"]
