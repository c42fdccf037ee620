from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.histories import (
    START,
    acknowledgement,
    commit,
    configuration,
    environment,
    gate,
    gate_history,
    history,
    run,
)
from virnucpro_monitor.analysis.causes import failing_gates
from virnucpro_monitor.analysis.incidents import (
    Cause,
    Incident,
    IncidentState,
    derive_incidents,
    incident_key,
)
from virnucpro_monitor.analysis.stretches import find_stretches
from virnucpro_monitor.records import Acknowledgement, Culprit, Finding, Outcome, Run

NOW = START + timedelta(days=200)
FORCED = START + timedelta(days=30)


def derive(runs: Sequence[Run], *acknowledgements: Acknowledgement) -> list[Incident]:
    return derive_incidents(runs, acknowledgements, now=NOW)


def spans(incidents: Sequence[Incident]) -> list[tuple[str, int, int, int | None, int | None]]:
    """(cause, first bad, last bad, last good, fixed by) of each, as places."""

    def place(of: Run | None) -> int | None:
        return None if of is None else of.commit.position

    return [
        (
            i.cause.value,
            i.first_bad.commit.position or 0,
            i.last_bad.commit.position or 0,
            place(i.last_good),
            place(i.fixed_by),
        )
        for i in incidents
    ]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("", []),
        ("PPPP", []),
        ("PFFP", [("failed", 1, 2, 0, 3)]),
        ("PFF", [("failed", 1, 2, 0, None)]),
        ("FFP", [("failed", 0, 1, None, 2)]),
        ("PFPFP", [("failed", 1, 1, 0, 2), ("failed", 3, 3, 2, 4)]),
        ("PEEP", [("error", 1, 2, 0, 3)]),
        ("PEF", [("error", 1, 1, 0, 2), ("failed", 2, 2, 0, None)]),
        # An error hides the verdict: the broken promise goes on behind it.
        ("PFEFP", [("failed", 1, 3, 0, 4), ("error", 2, 2, 1, 3)]),
        ("PFEP", [("failed", 1, 1, 0, 3), ("error", 2, 2, 1, 3)]),
        # Not run says nothing: it neither begins nor ends anything.
        ("PNFNFNP", [("failed", 2, 4, 0, 6)]),
        ("PENEP", [("error", 1, 3, 0, 4)]),
        ("NNN", []),
        # Skipped counts as what it inherits.
        ("PFfP", [("failed", 1, 2, 0, 3)]),
        ("PpF", [("failed", 2, 2, 1, None)]),
        ("FpF", [("failed", 0, 0, None, 1), ("failed", 2, 2, 1, None)]),
    ],
)
def test_stretches_of_bad_runs(
    letters: str, expected: list[tuple[str, int, int, int | None, int | None]]
) -> None:
    assert spans(derive(history(letters))) == expected


def test_gates_that_break_together_are_one_incident_until_all_are_mended() -> None:
    (incident,) = derive(gate_history([[], ["seed", "gain"], ["gain"], ["seed"], []]))
    assert incident.gates == ("seed", "gain")
    assert incident.num_bad_runs == 3
    assert spans([incident]) == [("failed", 1, 3, 0, 4)]


def test_a_gate_that_names_a_fault_and_breaks_later_is_another_incident() -> None:
    incidents = derive(gate_history([[], ["seed"], ["seed", "leak"], ["leak"], []]))
    assert [(i.gates, *span[1:]) for i, span in zip(incidents, spans(incidents), strict=True)] == [
        (("seed",), 1, 2, 0, 3),
        (("leak",), 2, 3, 0, 4),
    ]
    assert incidents[0].fixed_by is not None
    assert incidents[0].fixed_by.outcome is Outcome.FAILED


def test_a_gate_that_only_says_how_far_it_is_off_is_no_cause_of_its_own() -> None:
    rows = [[], ["seed"], ["seed", "gain"], ["gain"], ["seed"], []]
    assert spans(derive(gate_history(rows))) == [("failed", 1, 4, 0, 5)]


def test_a_gate_without_a_value_neither_begins_nor_ends_anything() -> None:
    unjudged = run(2, "F", gates=(gate("seed", None), gate("leak", False)))
    runs = [run(0), run(1, "F", failing=["seed"]), unjudged, run(3, "F", failing=["seed"])]
    incidents = derive(runs)
    assert [(i.gates, i.num_bad_runs) for i in incidents] == [(("seed",), 2), (("leak",), 1)]


def test_a_fix_that_did_not_judge_the_gate_says_so() -> None:
    runs = [run(0), run(1, "F", failing=["oracle"]), run(2, "P")]
    (incident,) = derive(runs)
    assert incident.state is IncidentState.FIXED
    assert incident.caveats == ("The run that ended it did not judge oracle.",)


def test_a_failed_run_that_names_no_gate_is_an_incident_of_the_whole_verdict() -> None:
    (incident,) = derive([run(0), run(1, "F", gates=()), run(2)])
    assert incident.gates == ()
    assert incident.fixed_by == run(2)


def test_figures_of_an_incident() -> None:
    runs = [
        run(0),
        run(3, "F", similarity=0.75),
        run(4, "F", similarity=0.6),
        run(6, "F", similarity=0.9),
        run(10),
    ]
    (incident,) = derive(runs)
    assert incident.worst_error == 0.4
    assert incident.worst == runs[2]
    assert incident.num_suspects == 3  # commits 1, 2 and 3 were never judged apart
    assert incident.duration == timedelta(days=7)
    assert incident.culprit is Culprit.PACKED
    (open_one,) = derive(runs[:-1])
    assert open_one.duration == timedelta(days=3)
    (first,) = derive(runs[1:])
    assert first.num_suspects is None
    assert first.caveats == ("The series begins with it, so no good commit is known.",)


def test_lost_sequences_are_worse_than_any_error() -> None:
    lost = run(2, "F", gates=(gate("coverage", False), gate("seed", False)), similarity=0.99)
    (incident,) = derive([run(0), run(1, "F", similarity=0.5), lost])[:1]
    assert incident.lacks_values
    assert incident.worst == lost
    assert incident.worst_error == 0.5


def test_what_else_changed_where_it_began_is_said() -> None:
    changed = {"environment": environment(torch="2.14.0"), "protocol_digest": "aa" * 32}
    (incident,) = derive([run(0), run(1, "F", **changed)])
    assert incident.caveats == (
        "The protocol changed where it began (protocol: 1 (efefefefefef) → 1 (aaaaaaaaaaaa)): "
        "the commit may be innocent.",
        "The environment changed where it began (torch: 2.13.0 → 2.14.0): the commit may be "
        "innocent.",
    )


def test_one_commit_that_breaks_several_series_groups_them() -> None:
    other = {"configuration": configuration(dtype="float16")}
    runs = [*history("PFF"), *history("PFP", **other), *history("PFP", target="elsewhere")]
    incidents = derive(runs)
    by_series = {(i.series.target, i.first_bad.configuration.dtype): i for i in incidents}
    one, two = by_series["project", "float32"], by_series["project", "float16"]
    assert one.grouped_with == (two.key,)
    assert two.grouped_with == (one.key,)
    assert by_series["elsewhere", "float32"].grouped_with == ()


def test_keys_differ_by_series_cause_and_first_bad_commit() -> None:
    runs = [*history("PFPFEP"), *history("PFPFEP", benchmark="proteome")]
    keys = [incident.key for incident in derive(runs)]
    assert len(set(keys)) == len(keys) == 6
    assert all(len(key) == 12 for key in keys)


def test_a_key_outlives_later_runs_and_the_fix() -> None:
    keys = {derive(history("PFFEfP")[:number])[0].key for number in range(2, 7)}
    assert len(keys) == 1


def test_an_acknowledged_incident() -> None:
    (incident,) = derive(history("PF"))
    (seen,) = derive(history("PF"), acknowledgement(incident.key))
    assert seen.state is IncidentState.ACKNOWLEDGED
    assert seen.acknowledgement == acknowledgement(incident.key)
    (fixed,) = derive(history("PFP"), acknowledgement(incident.key))
    assert fixed.state is IncidentState.FIXED
    assert fixed.acknowledgement is not None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires_at": NOW - timedelta(days=1)}, "The acknowledgement expired on 2026-07-19."),
        (
            {"withdrawn_at": NOW - timedelta(days=1), "withdrawn_by": "Grace"},
            "It was reopened by Grace.",
        ),
        (
            {"created_at": START, "reopen_if_worse_than": 5e-3},
            "At 0000000000 the worst error is 1.0e-02, above the 5.0e-03 that was accepted.",
        ),
    ],
)
def test_an_acknowledgement_that_no_longer_holds(changes: dict[str, object], reason: str) -> None:
    (incident,) = derive(history("PF"))
    (seen,) = derive(history("PF"), acknowledgement(incident.key, **changes))
    assert seen.state is IncidentState.OPEN
    assert seen.reopened_because == reason
    assert seen.acknowledgement is not None


def test_an_acknowledgement_holds_for_what_was_known_and_for_less_bad_runs() -> None:
    (incident,) = derive(history("PF"))
    known = acknowledgement(
        incident.key, created_at=START + timedelta(days=1, hours=2), reopen_if_worse_than=5e-3
    )
    assert derive(history("PF"), known)[0].state is IncidentState.ACKNOWLEDGED
    milder = [*history("PF"), run(2, "F", similarity=0.998)]
    assert derive(milder, known)[0].state is IncidentState.ACKNOWLEDGED
    assert derive(history("PFF"), known)[0].state is IncidentState.OPEN
    lost = run(2, "F", gates=(gate("seed", False), gate("finite", False)), similarity=0.998)
    (reopened, _) = derive([*history("PF"), lost], known)
    assert reopened.reopened_because.endswith("sequences have no similarity at all.")


def test_the_newest_acknowledgement_that_holds_counts() -> None:
    (incident,) = derive(history("PF"))
    old = acknowledgement(incident.key, expires_at=NOW - timedelta(days=1))
    new = acknowledgement(incident.key, id=2, created_at=NOW - timedelta(hours=1))
    assert derive(history("PF"), new, old)[0].acknowledgement == new


def test_an_acknowledgement_of_the_targets_scope_covers_the_group() -> None:
    runs = [*history("PFN"), *history("PFN", benchmark="proteome"), *history("PPF", benchmark="b")]
    one, other, later = derive(runs)
    alone = derive(runs, acknowledgement(one.key))
    assert [i.state.value for i in alone] == ["acknowledged", "open", "open"]
    wide = derive(runs, acknowledgement(one.key, scope="project"))
    assert [i.state.value for i in wide] == ["acknowledged", "acknowledged", "open"]
    assert {i.key for i in wide} == {one.key, other.key, later.key}


def test_an_acknowledgement_survives_the_measuring_of_earlier_commits() -> None:
    seen_first = [run(0), run(3, "F"), run(4, "F")]
    (incident,) = derive(seen_first)
    backfilled = [run(0), run(1), run(2, "F"), run(3, "F"), run(4, "F")]
    (moved,) = derive(backfilled, acknowledgement(incident.key))
    assert moved.key != incident.key
    assert moved.state is IncidentState.ACKNOWLEDGED


def test_an_acknowledgement_of_one_incident_is_not_taken_for_another() -> None:
    runs = gate_history([[], ["seed"], ["seed", "leak"]])
    seed, leak = derive(runs)
    states = {i.key: i.state.value for i in derive(runs, acknowledgement(leak.key))}
    assert states == {seed.key: "open", leak.key: "acknowledged"}


# Properties over random histories.

row = st.one_of(
    st.sampled_from("ENpf"),
    st.lists(st.sampled_from(["seed", "gain", "leak"]), unique=True, max_size=3),
)
rows = st.lists(row, max_size=25)


@given(rows)
def test_each_bad_run_belongs_to_an_incident_and_each_fault_to_exactly_one(
    given_rows: list[list[str] | str],
) -> None:
    runs = gate_history(given_rows)
    stretches = find_stretches(runs)
    for number, one in enumerate(runs):
        failing = failing_gates(one)
        holders = [s for s in stretches if one in s.bad_runs]
        if one.effective_outcome is Outcome.ERROR:
            assert [s.cause for s in holders] == [Cause.NOT_RUNNABLE]
        else:
            assert bool(holders) is bool(failing)
        if "leak" in failing:
            assert sum("leak" in s.held for s in holders) == 1, number


@given(rows)
def test_incidents_are_bounded_by_good_runs(given_rows: list[list[str] | str]) -> None:
    runs = gate_history(given_rows)
    places = {one.commit.hash: place for place, one in enumerate(runs)}
    for stretch in find_stretches(runs):
        gates = set(stretch.gates)

        def is_bad(one: Run, cause: Cause = stretch.cause, gates: set[str] = gates) -> bool:
            if cause is Cause.NOT_RUNNABLE:
                return one.effective_outcome is Outcome.ERROR
            return bool(gates & set(failing_gates(one)))

        first = places[stretch.bad_runs[0].commit.hash]
        end = places[stretch.fixed_by.commit.hash] if stretch.fixed_by else len(runs)
        inside = runs[first:end]
        assert all(one in stretch.bad_runs for one in inside if is_bad(one))
        assert all(one in inside and one.effective_outcome.is_bad for one in stretch.bad_runs)
        if stretch.last_good is None:
            assert stretch.cause is Cause.NOT_RUNNABLE or not any(
                one.effective_outcome is Outcome.PASSED for one in runs[:first]
            )
        else:
            good = places[stretch.last_good.commit.hash]
            assert not any(is_bad(one) for one in runs[good:first])


@given(rows, rows, st.randoms())
def test_mixing_two_series_changes_nothing(
    one_rows: list[list[str] | str], other_rows: list[list[str] | str], random: object
) -> None:
    one, other = gate_history(one_rows), gate_history(other_rows, benchmark="proteome")
    mixed: list[Run] = []
    left, right = list(one), list(other)
    while left or right:
        take = left if left and (not right or random.random() < 0.5) else right  # type: ignore[attr-defined]
        mixed.append(take.pop(0))

    def bare(incidents: Sequence[Incident]) -> set[Incident]:
        # How far the other series goes tells whether an open one is still measured.
        return {
            replace(i, grouped_with=(), commits_since_seen=0, state=IncidentState.OPEN)
            if i.fixed_by is None
            else replace(i, grouped_with=())
            for i in incidents
        }

    assert bare(derive(mixed)) == bare(derive(one)) | bare(derive(other))


@given(rows)
def test_a_longer_history_keeps_what_was_closed(given_rows: list[list[str] | str]) -> None:
    runs = gate_history(given_rows)
    for number in range(len(runs)):
        early = {i.key: i for i in derive(runs[:number])}
        late = {i.key: i for i in derive(runs)}
        assert early.keys() <= late.keys()
        for key, incident in early.items():
            if incident.state is IncidentState.FIXED:
                assert replace(late[key], grouped_with=()) == replace(incident, grouped_with=())


def test_a_failed_run_that_judged_only_some_of_the_gates_does_not_end_it() -> None:
    partial = run(2, "F", gates=(gate("seed"), gate("gain", None), gate("leak", False)))
    runs = [run(0), run(1, "F", failing=["seed", "gain"]), partial]
    assert [(i.gates, i.state.value) for i in derive(runs)] == [
        (("seed", "gain"), "open"),
        (("leak",), "open"),
    ]


def test_a_commit_off_the_followed_branch_opens_no_incident() -> None:
    runs = history("PP")
    feature = run(7, "F")
    feature = replace(feature, commit=replace(feature.commit, position=None, on_branch=False))
    assert derive_incidents([feature, *runs], now=NOW) == []
    assert len(derive_incidents([*runs, run(2, "F")], now=NOW)) == 1


# Causes.

RESCALE, MASK = "rescale missing", "mask not zeroed"


def found(**named: str | tuple[str, ...]) -> dict[int, Finding]:
    """Findings by run id, which is the place plus one: found(r1="softmax twice")."""
    return {
        int(run_name[1:]) + 1: Finding(
            signatures=(names,) if isinstance(names, str) else names, text=f"looks like {names}"
        )
        for run_name, names in named.items()
    }


def causes(runs: Sequence[Run], findings: dict[int, Finding]) -> list[tuple[str, int, int | None]]:
    """(what is named, first bad, fixed by) of each incident."""
    incidents = derive_incidents(runs, now=NOW, findings=findings)
    return [
        (
            ", ".join(i.names),
            i.first_bad.commit.position or 0,
            i.fixed_by and i.fixed_by.commit.position,
        )
        for i in incidents
    ]


def test_a_mended_cause_closes_although_another_stays() -> None:
    """As in VirNucPro, whose 3a8594a mends the rescale while <mask> stays to the end."""
    gates = ["seed", "oracle", "embedding", "mask"]
    runs = [
        run(0, "E"),
        *(run(n, "F", failing=gates, similarity=0.985) for n in (1, 2)),
        *(run(n, "F", failing=["embedding", "mask"], similarity=1 - 3e-6) for n in (3, 4)),
    ]
    hidden = found(r1=RESCALE, r2=RESCALE, r3=MASK, r4=MASK)
    assert causes(runs[1:], hidden) == [(RESCALE, 1, 3), (MASK, 3, None)]
    rescale, mask = derive_incidents(runs[1:], now=NOW, findings=hidden)
    assert mask.hidden_by == rescale.key
    assert mask.last_good == rescale.last_good is None
    assert "Another cause, since 0000000000, hid it: it may have begun before." in mask.caveats
    both = found(r1=(RESCALE, MASK), r2=(RESCALE, MASK), r3=MASK, r4=MASK)
    assert causes(runs[1:], both) == [(MASK, 1, None), (RESCALE, 1, 3)] or causes(
        runs[1:], both
    ) == [(RESCALE, 1, 3), (MASK, 1, None)]


def test_a_second_fault_under_gates_that_fail_already_is_seen_by_its_name() -> None:
    runs = [run(0), run(1, "F"), run(2, "F", similarity=0.985), run(3, "F"), run(4)]
    named = found(r1=MASK, r2=(MASK, "softmax twice"), r3=MASK)
    assert causes(runs, named) == [(MASK, 1, 4), ("softmax twice", 2, 3)]
    second = derive_incidents(runs, now=NOW, findings=named)[1]
    assert second.last_good == runs[1]  # failed too, but not in this way
    assert second.num_suspects == 1


def test_a_second_fault_under_gates_that_fail_already_is_seen_where_figures_move() -> None:
    runs = [
        run(0),
        run(1, "F", similarity=0.99),
        run(2, "F", similarity=0.99),
        run(3, "F", similarity=0.8),
        run(4, "F", similarity=0.8),
        run(5, "F", similarity=0.99),
        run(6),
    ]
    assert causes(runs, {}) == [("", 1, 6), ("", 3, 5)]
    grown = derive(runs)[1]
    assert grown.last_good == runs[2]


def test_a_partial_mend_is_seen_without_any_name() -> None:
    runs = [
        run(0),
        run(1, "F", failing=["seed", "gain"], similarity=0.9),
        run(2, "F", failing=["seed"], similarity=0.994),
        run(3),
    ]
    assert causes(runs, {}) == [("", 1, 2), ("", 2, 3)]
    # A gate that holds again while nothing moves mends nothing.
    still = [*runs[:2], run(2, "F", failing=["seed"], similarity=0.9), run(3)]
    assert causes(still, {}) == [("", 1, 3)]


def test_the_same_figures_are_the_same_fault_whatever_it_is_called() -> None:
    runs = history("PFFFFP")
    renamed = found(r2="softmax twice", r3="scale applied twice")
    assert causes(runs, renamed) == [("softmax twice, scale applied twice", 1, 5)]
    (incident,) = derive_incidents(runs, now=NOW, findings=renamed)
    (unnamed,) = derive_incidents(runs[:2], now=NOW, findings=renamed)
    assert incident.key == unnamed.key


LEAKS = ["seed", "leak", "position", "order"]


def test_a_leak_alone_is_no_other_fault_than_the_one_that_leaked() -> None:
    """As in transformers, packed by arguments: positions were mended, the leak has stayed."""
    runs = [
        run(0, "F", failing=LEAKS, similarity=0.510),
        run(1, "F", failing=LEAKS[:2], similarity=0.571),
        run(2, "F", failing=LEAKS, similarity=0.52),
        run(3),
    ]
    named = found(r0="one segment", r1="leak", r2="one segment")
    assert causes(runs, named) == [("one segment", 0, 3)]
    # What is found out later of a leak is its cause; a second leak's cause is another one.
    later = found(r0="leak", r1="one segment", r2=("one segment", "boundary late"))
    assert causes(runs, later) == [("leak, one segment", 0, 3), ("boundary late", 2, 3)]
    # Under another fault a leak is new, as is another cause; a hundredth of it is another leak.
    under = found(r0=MASK, r1="leak")
    seed_first = [run(0, "F", failing=["seed"], similarity=0.510), runs[1], runs[3]]
    assert causes(seed_first, under) == [(MASK, 0, 1), ("leak", 1, 3)]
    swapped = found(r0="one segment", r1="scale twice")
    assert causes([*runs[:2], runs[3]], swapped) == [("one segment", 0, 1), ("scale twice", 1, 3)]
    small = [runs[0], run(1, "F", failing=LEAKS[:2], similarity=0.995), runs[3]]
    assert causes(small, named) == [("one segment", 0, 1), ("leak", 1, 3)]


def test_a_side_that_goes_wrong_too_is_another_cause() -> None:
    runs = [
        run(0),
        run(1, "F", similarity=0.99),
        run(2, "F", similarity=0.985, culprit=Culprit.BOTH),
        run(3, "F", similarity=0.99),
        run(4),
    ]
    assert causes(runs, {}) == [("", 1, 4), ("", 2, 3)]


def test_a_skipped_run_has_the_causes_of_the_run_it_inherits_from() -> None:
    runs = [run(0), run(1, "F"), run(2, "f"), run(3, "f", inherited_from=f"{1:040x}"), run(4)]
    assert causes(runs, found(r1=MASK)) == [(MASK, 1, 4)]


def test_a_series_that_is_no_longer_measured_is_not_seen_since() -> None:
    once = [run(2, "F", benchmark="other"), run(3, "F", benchmark="other")]
    runs = [*history("PPPPPPPP"), *once]
    (incident,) = derive(runs)
    assert incident.state is IncidentState.NOT_SEEN
    assert incident.commits_since_seen == 4
    # Known from elsewhere how far the target is measured.
    (alone,) = derive_incidents(once, now=NOW, newest=[run(7), run(6, benchmark="third")])
    assert (alone.state, alone.commits_since_seen) == (IncidentState.NOT_SEEN, 2)
    (current,) = derive(once)
    assert current.state is IncidentState.OPEN
    # The runner may be on its way from one series to the next.
    soon = START + timedelta(days=4, hours=2)
    (lagging,) = derive_incidents([*once, run(4)], now=soon)
    assert lagging.state is IncidentState.OPEN


def test_an_acknowledgement_of_old_holds_for_each_cause_that_it_covered() -> None:
    runs = [
        run(0),
        run(1, "F", failing=["seed", "mask"], similarity=0.9),
        run(2, "F", failing=["mask"], similarity=1 - 1e-6),
    ]
    named = found(r1=(RESCALE, MASK), r2=MASK)
    series = derive(runs)[0].series
    old = acknowledgement(incident_key(series, Cause.BROKEN, runs[1].commit.hash))
    states = {
        i.names: (i.state.value, i.acknowledgement)
        for i in derive_incidents(runs, [old], now=NOW, findings=named)
    }
    assert states == {(RESCALE,): ("fixed", old), (MASK,): ("acknowledged", old)}
    # One that names a cause holds for that one alone.
    keys = {i.names: i.key for i in derive_incidents(runs, now=NOW, findings=named)}
    new = acknowledgement(keys[(RESCALE,)])
    states = {
        i.names: (i.state.value, i.acknowledgement)
        for i in derive_incidents(runs, [new], now=NOW, findings=named)
    }
    assert states == {(RESCALE,): ("fixed", new), (MASK,): ("open", None)}


def test_an_acknowledgement_follows_a_commit_that_was_rebased() -> None:
    before = history("PF")
    (incident,) = derive(before)
    given = acknowledgement(incident.key)
    gone = replace(before[1], commit=replace(before[1].commit, position=None, on_branch=False))
    again = replace(before[1], id=9, commit=replace(before[1].commit, hash="ab" * 20))
    (moved,) = derive([before[0], gone, again], given)
    assert moved.key != incident.key
    assert (moved.state, moved.acknowledgement) == (IncidentState.ACKNOWLEDGED, given)
    other = replace(again, commit=replace(again.commit, subject="Something else"))
    (unknown,) = derive([before[0], gone, other], given)
    assert unknown.state is IncidentState.OPEN


def left(run: Run, place: int) -> Run:
    """The run as a force-push leaves it: its commit stood at `place` and is not there any more."""
    commit = replace(
        run.commit, position=None, on_branch=False, former_position=place, left_at=FORCED
    )
    return replace(run, commit=commit)


def test_an_incident_of_a_rewritten_branch_is_kept_with_its_acknowledgement() -> None:
    before = history("PPFF")
    (incident,) = derive(before)
    given = acknowledgement(incident.key)
    rewritten = replace(run(2), id=9, commit=replace(commit(2, "Do it right"), hash="cd" * 20))
    after = [left(before[2], 2), left(before[3], 3), *before[:2], rewritten]
    (kept,) = derive(after, given)
    assert (kept.key, kept.state) == (incident.key, IncidentState.REWRITTEN)
    assert kept.acknowledgement == given
    assert kept.last_good is not None
    assert (kept.last_good.commit.hash, kept.num_suspects) == (before[1].commit.hash, 1)
    assert (kept.num_bad_runs, kept.duration) == (2, timedelta(days=1))
    # Mended before it was rewritten; begun before the fork and lasting there; of a side branch.
    mended = [run(0), left(run(1, "F"), 1), left(run(2), 2)]
    assert [one.state for one in derive(mended)] == [IncidentState.FIXED]
    (lasting,) = derive([left(run(2, "F"), 2), run(0), run(1, "F")])
    assert (lasting.state, lasting.num_bad_runs) == (IncidentState.OPEN, 1)
    feature = run(2, "F")
    feature = replace(feature, commit=replace(feature.commit, position=None, on_branch=False))
    assert derive([feature, *history("PP")]) == []


def test_an_incident_goes_on_where_a_rebase_took_its_commit_along() -> None:
    old, new = run(1, "F"), run(2, "F")
    moved = replace(new, commit=replace(old.commit, hash="ab" * 20, position=2))
    (going_on,) = derive([left(old, 1), run(0), run(1), moved])
    assert (going_on.state, going_on.first_bad.commit.hash) == (IncidentState.OPEN, "ab" * 20)
    assert incident_key(going_on.series, Cause.BROKEN, old.commit.hash, "") in going_on.former_keys
