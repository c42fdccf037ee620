"""What is told of a target, each thing once: whole happenings, from incidents made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.analysis.histories import START, acknowledgement, environment, history, run
from virnucpro_monitor.analysis.change_points import ChangeKind
from virnucpro_monitor.analysis.environment_moves import EnvironmentMove
from virnucpro_monitor.analysis.happenings import (
    Happening,
    find_happenings,
    lasting_silences,
)
from virnucpro_monitor.analysis.incidents import Incident, IncidentState, derive_incidents
from virnucpro_monitor.analysis.movements import Figure, Movement
from virnucpro_monitor.analysis.regressions import SeriesMovement
from virnucpro_monitor.analysis.series import series_key
from virnucpro_monitor.analysis.silence import Silence, SilenceReason
from virnucpro_monitor.records import Alert, AlertKind

RUNS = history("PPPF" + "P" * 96)
(MENDED,) = derive_incidents(RUNS, (), now=START)
NOW = START + timedelta(days=100)
WATCHED = Happening(kind=AlertKind.HEARD, target="project", keys=("watched",), told=False)


def incident(key: str, first_bad: int, **changes: Any) -> Incident:
    """An open incident that begins with the run of that place."""
    began = RUNS[first_bad]
    values = {"state": IncidentState.OPEN, "fixed_by": None, "first_bad": began, "last_bad": began}
    return replace(MENDED, key=key, **{**values, **changes})


def mended(key: str, first_bad: int, by: int, **changes: Any) -> Incident:
    return incident(key, first_bad, state=IncidentState.FIXED, fixed_by=RUNS[by], **changes)


def alert(kind: AlertKind, *keys: str, **changes: Any) -> Alert:
    values = {"kind": kind, "target": "project", "keys": keys, "summary": "", "created_at": START}
    return Alert(**{**values, **changes})


NOTED = alert(AlertKind.HEARD, "watched", told=False)


def happening(kind: AlertKind, *keys: str, **values: Any) -> Happening:
    return Happening(kind=kind, target="project", keys=keys, **values)


def told(
    known: Sequence[Alert], incidents: Sequence[Incident] = (), **others: Any
) -> tuple[Happening, ...]:
    return find_happenings(
        "project", known, runs=RUNS, incidents=incidents, now=NOW, **others
    )  # fmt: skip


def test_what_is_broken_is_told_by_commit_and_cause_and_a_first_look_notes_what_is_over() -> None:
    one, beside = incident("a", 90), incident("b", 90)
    later = incident("c", 91)
    old, new = mended("d", 5, by=6), mended("e", 95, by=97)
    acknowledged = incident("f", 80, state=IncidentState.ACKNOWLEDGED)
    every = [one, old, beside, later, new, acknowledged]
    broken = (
        happening(AlertKind.BROKEN, "a", "b", incidents=(one, beside)),
        happening(AlertKind.BROKEN, "c", incidents=(later,)),
    )
    noted = happening(AlertKind.MENDED, "d", "e", told=False)
    assert told([], every) == (WATCHED, noted, *broken)
    assert told([NOTED], every) == (
        happening(AlertKind.MENDED, "d", told=False),
        happening(AlertKind.MENDED, "e", incidents=(new,)),
        *broken,
    )


def test_a_mend_is_told_up_to_a_week_after_it_was_made() -> None:
    # The clock stands at day 100; place 93 was committed seven days before.
    assert told([NOTED], [mended("a", 90, by=93)])[0].told
    assert not told([NOTED], [mended("a", 90, by=92)])[0].told
    rewritten = incident("a", 90, state=IncidentState.REWRITTEN)
    assert told([NOTED], [rewritten]) == (happening(AlertKind.MENDED, "a", told=False),)


def test_what_was_told_is_told_again_only_when_it_is_over() -> None:
    known = [NOTED, alert(AlertKind.BROKEN, "a", "b")]
    one, two = incident("a", 90), incident("b", 90)
    assert told(known, [one, two]) == ()
    over, gone = mended("a", 90, by=92), incident("b", 90, state=IncidentState.REWRITTEN)
    ended = (
        happening(AlertKind.MENDED, "a", incidents=(over,)),
        happening(AlertKind.MENDED, "b", incidents=(gone,)),
    )
    assert told(known, [over, gone]) == ended
    together = mended("b", 90, by=92)
    assert told(known, [over, together]) == (
        happening(AlertKind.MENDED, "a", "b", incidents=(over, together)),
    )
    assert told([*known, alert(AlertKind.MENDED, "a", "b")], [over, gone]) == ()


def test_a_former_key_is_the_same_incident_unless_it_is_another_ones_key() -> None:
    known = [NOTED, alert(AlertKind.BROKEN, "old")]
    moved = incident("new", 90, former_keys=frozenset({"old", "never told"}))
    assert told(known, [moved]) == ()
    over = mended("new", 90, by=95, former_keys=frozenset({"old", "never told"}))
    assert told(known, [over]) == (
        happening(AlertKind.MENDED, "new", "old", incidents=(over,)),
    )  # fmt: skip
    assert told([*known, alert(AlertKind.MENDED, "new", "old")], [over]) == ()
    owner = incident("old", 88)
    assert told(known, [owner, moved]) == (
        happening(AlertKind.BROKEN, "new", incidents=(moved,)),
    )  # fmt: skip


def test_a_fault_that_was_told_for_another_series_is_noted() -> None:
    known = [NOTED, alert(AlertKind.BROKEN, "a")]
    first = incident("a", 90, names=("rescale missing",))
    same = incident("b", 90, names=("rescale missing", "more"))
    noted = (happening(AlertKind.BROKEN, "b", told=False),)
    assert told(known, [first, same]) == noted
    for other in (
        replace(same, names=("another",)),
        replace(same, first_bad=RUNS[91]),
        replace(same, names=()),
    ):
        assert told(known, [first, other]) == (
            happening(AlertKind.BROKEN, "b", incidents=(other,)),
        )  # fmt: skip
    unnamed = [incident("a", 90), incident("b", 90)]
    assert told(known, unnamed) == noted
    silent = [NOTED, alert(AlertKind.BROKEN, "a", told=False)]
    assert told(silent, [first, same]) == (
        happening(AlertKind.BROKEN, "b", incidents=(same,)),
    )  # fmt: skip


def test_an_acknowledged_incident_that_got_worse_is_told_once_more() -> None:
    known = [NOTED, alert(AlertKind.BROKEN, "a")]
    given = acknowledgement("a", id=7)
    worse = incident("a", 90, acknowledgement=given, reopened_because="It is ten times worse.")
    again = happening(
        AlertKind.BROKEN, "a:reopened:7", incidents=(worse,), reason="It is ten times worse."
    )
    assert told(known, [worse]) == (again,)
    assert told([*known, alert(AlertKind.BROKEN, "a:reopened:7")], [worse]) == ()
    assert told(known, [replace(worse, reopened_because="")]) == ()
    assert told(known, [replace(worse, acknowledgement=None)]) == ()
    withdrawn = replace(given, withdrawn_at=NOW)
    assert told(known, [replace(worse, acknowledgement=withdrawn)]) == ()


def test_what_is_no_incident_any_more_is_over() -> None:
    broken = alert(AlertKind.BROKEN, "a", "b", "c")
    known = [NOTED, broken, alert(AlertKind.MENDED, "c")]
    there = incident("b", 90)
    over = happening(AlertKind.MENDED, "a", past=broken)
    assert told(known, [there]) == (over,)
    assert told([*known, alert(AlertKind.MENDED, "a")], [there]) == ()
    former = incident("d", 90, former_keys=frozenset({"a"}))
    assert told(known, [there, former]) == ()
    noted = alert(AlertKind.BROKEN, "a", told=False)
    assert told([NOTED, noted], []) == (replace(over, told=False, past=noted),)
    again = alert(AlertKind.BROKEN, "a:reopened:7")
    assert told([NOTED, again], []) == (
        happening(AlertKind.MENDED, "a:reopened:7", told=False, past=again),
    )  # fmt: skip
    assert told([NOTED, again], [incident("a", 90, acknowledgement=None)])[0].kind == "broken"


def movement(place: int, figure: Figure = Figure.WORST, **changes: Any) -> SeriesMovement:
    values: dict[str, Any] = {
        "figure": figure,
        "kind": ChangeKind.STEP,
        "run": RUNS[place],
        "until": RUNS[place],
        "before": 1e-6,
        "after": 1e-5,
        "num_after": 3,
        "is_worse": True,
    }
    return SeriesMovement(
        key=changes.pop("key", series_key(RUNS[0])), movement=Movement(**{**values, **changes})
    )


def key(family: str, place: int) -> str:
    return f"{family}:{place:040x}"


def test_movements_of_a_family_are_told_together_and_each_commit_once() -> None:
    worst, median = movement(20), movement(22, Figure.MEDIAN)
    far = movement(31, Figure.P01)
    slow = movement(24, Figure.THROUGHPUT)
    drift = movement(25, kind=ChangeKind.DRIFT, num_after=1)
    every = [median, worst, far, slow, drift]
    moved = (
        happening(
            AlertKind.MOVED, key("accuracy", 22), key("accuracy", 20), key("accuracy", 31),
            movements=(median, worst),
        ),
        happening(AlertKind.MOVED, key("speed", 24), movements=(slow,)),
        happening(AlertKind.MOVED, key("accuracy drift", 25), movements=(drift,)),
    )  # fmt: skip
    assert told([NOTED], movements=every) == moved
    assert told([], movements=every) == (WATCHED, *(replace(one, told=False) for one in moved))
    # Ten commits after the first belong to it still; the eleventh does not.
    assert told([NOTED], movements=[worst, movement(30)])[0].movements == (worst, movement(30))


@pytest.mark.parametrize(
    "wrong",
    [
        {"is_worse": False},
        {"kind": ChangeKind.BURST, "num_after": 9},
        {"num_after": 2},
    ],
)
def test_what_got_better_or_may_go_back_by_itself_is_not_told(wrong: dict[str, Any]) -> None:
    assert told([NOTED], movements=[movement(20, **wrong)]) == ()


@pytest.mark.parametrize(
    ("family", "near", "kind", "place", "is_told"),
    [
        ("accuracy", 20, ChangeKind.STEP, 30, False),
        ("accuracy", 20, ChangeKind.STEP, 31, True),
        ("accuracy", 40, ChangeKind.STEP, 30, False),
        ("accuracy", 20, ChangeKind.DRIFT, 60, False),
        ("accuracy", 20, ChangeKind.DRIFT, 61, True),
        ("accuracy drift", 20, ChangeKind.STEP, 30, False),
        ("accuracy drift", 20, ChangeKind.DRIFT, 60, False),
        ("speed", 20, ChangeKind.STEP, 20, True),
    ],
)
def test_the_same_movement_better_placed_is_not_told_again(
    family: str, near: int, kind: ChangeKind, place: int, is_told: bool
) -> None:
    gone = key(family, 5000)  # of a commit that is in no run any more
    known = [NOTED, alert(AlertKind.MOVED, gone, key(family, near))]
    assert bool(told(known, movements=[movement(place, kind=kind)])) is is_told


def test_an_incident_of_the_same_series_explains_a_loss_of_accuracy_and_none_of_speed() -> None:
    open_one = incident("a", 20)
    known = [NOTED, alert(AlertKind.BROKEN, "a")]
    assert told(known, [open_one], movements=[movement(20), movement(60)]) == ()
    assert told(known, [open_one], movements=[movement(19)])
    assert told(known, [open_one], movements=[movement(60, Figure.DURATION)])
    elsewhere = replace(series_key(RUNS[0]), benchmark="other")
    assert told(known, [open_one], movements=[movement(60, key=elsewhere)])
    over = [*known, alert(AlertKind.MENDED, "a")]
    assert told(over, [mended("a", 20, by=40)], movements=[movement(40)]) == ()
    assert told(over, [mended("a", 20, by=40)], movements=[movement(41)])


def test_a_change_of_environment_is_told_once_for_all_that_it_moved() -> None:
    new = environment(torch="2.14.0")

    def move(figure: Figure, before: int = 4) -> EnvironmentMove:
        return EnvironmentMove(
            series=series_key(RUNS[0]), figure=figure, before=RUNS[before],
            after=run(before + 1, environment=new), differences=(), old=1e-6, new=1e-5,
        )  # fmt: skip

    both = (move(Figure.WORST), move(Figure.MEDIAN))
    name = f"environment:{environment().digest[:12]}:{new.digest[:12]}"
    moved = happening(AlertKind.ENVIRONMENT, name, environment=both)
    assert told([NOTED], environment=both) == (moved,)
    assert told([], environment=both) == (WATCHED, replace(moved, told=False))
    assert told([NOTED, alert(AlertKind.ENVIRONMENT, name)], environment=both) == ()


def test_a_silence_is_told_when_it_begins_and_when_it_is_over() -> None:
    unheard = Silence(reason=SilenceReason.UNHEARD, since=START)
    behind = Silence(reason=SilenceReason.BEHIND, since=START, commits_behind=60)
    names = [f"{reason}:{START.isoformat()}" for reason in ("unheard", "behind")]
    begun = (
        happening(AlertKind.SILENT, names[0], silence=unheard),
        happening(AlertKind.SILENT, names[1], silence=behind),
    )
    assert told([NOTED], silences=[unheard, behind]) == begun
    known = [NOTED, *(alert(AlertKind.SILENT, name) for name in names)]
    assert lasting_silences(known) == {
        SilenceReason.UNHEARD: known[1], SilenceReason.BEHIND: known[2]
    }  # fmt: skip
    later = replace(unheard, since=NOW)
    assert told(known, silences=[later]) == (
        happening(AlertKind.HEARD, names[1], past=known[2]),
    )  # fmt: skip
    over = [*known, alert(AlertKind.HEARD, names[0]), alert(AlertKind.HEARD, "watched")]
    assert lasting_silences(over) == {SilenceReason.BEHIND: known[2]}
    assert told(over, silences=[later, behind]) == (
        happening(AlertKind.SILENT, later.key, silence=later),
    )  # fmt: skip
