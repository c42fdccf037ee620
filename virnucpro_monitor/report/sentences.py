"""What a verdict, comparison or incident comes to, each in one sentence. Plain text.

The command line, the reports and the dashboard use the same words. Foreign text in them is made
visible and cut, but not escaped for any format.
"""

import shlex
from collections.abc import Sequence

from virnucpro_monitor.analysis.accuracy import AccuracyMove
from virnucpro_monitor.analysis.accuracy import Movement as Moved
from virnucpro_monitor.analysis.change_points import ChangeKind
from virnucpro_monitor.analysis.comparison import Comparison, Mark
from virnucpro_monitor.analysis.incidents import Cause, Incident, IncidentState
from virnucpro_monitor.analysis.movements import Movement
from virnucpro_monitor.analysis.regressions import Regressions
from virnucpro_monitor.analysis.series import UNKNOWN_BACKENDS, commit_date, worst_error
from virnucpro_monitor.records import Culprit, Outcome, Run, Target, short_hash
from virnucpro_monitor.report.text import count, format_error, format_share, one_line

OUTCOME_WORDS = {
    Outcome.PASSED: "Passed",
    Outcome.FAILED: "Failed",
    Outcome.ERROR: "Could not be run",
    Outcome.SKIPPED: "Skipped",
    Outcome.NOT_RUN: "Not run",
}


def verdict_sentence(run: Run) -> str:
    """The outcome and its reason."""
    words = OUTCOME_WORDS[run.outcome]
    if run.inherited_from is not None and run.inherited_outcome is not None:
        words += f", inherits {run.inherited_outcome} from {short_hash(run.inherited_from)}"
    return f"{words}: {one_line(run.reason, 600) or figures_sentence(run)}"


def figures_sentence(run: Run) -> str:
    figures = run.figures
    if figures is None:
        return "nothing was measured."
    share = format_share(figures.num_strict, figures.num_sequences)
    worst = f", worst error {format_error(worst_error(run))}"
    if figures.worst_sequence is not None:
        worst += f" ({one_line(figures.worst_sequence, 60)})"
    return f"{share} sequences agree{worst}."


def comparison_sentence(comparison: Comparison) -> str:
    """What changed from base to head, and on how much of the benchmark set that rests."""
    base, head = comparison.base, comparison.head
    names = f"{base.run.commit.short} to {head.run.commit.short}"
    verdict = {
        "broke": f"The promise broke from {names}",
        "fixed": f"The promise was restored from {names}",
        "still passing": f"It passes on both sides, {names}",
        "still failing": f"It fails on both sides, {names}",
        "unknown": f"From {names} the verdicts are {base.outcome} and {head.outcome}",
    }[comparison.verdict]
    if comparison.is_same_measurement:
        return f"{verdict}; both stand on one measurement, so nothing can differ."
    counts = comparison.counts()
    changes = ", ".join(
        f"{counts[mark]:,} {words}"
        for mark, words in (
            (Mark.NEWLY_FAILING, "newly bad"),
            (Mark.NEWLY_FIXED, "mended"),
            (Mark.WORSE, "worse"),
            (Mark.BETTER, "better"),
            (Mark.CLOSER_BUT_FURTHER, "closer to each other but further from FP32"),
        )
        if counts[mark] or mark is not Mark.CLOSER_BUT_FURTHER
    )
    compared = f"{comparison.num_common:,} of {count(comparison.num_all, 'sequence')} compared"
    caution = "" if comparison.comparable else " Not comparable: see the reasons."
    return f"{verdict}: {changes}; {compared}.{accuracy_sentence(comparison)}{caution}"


def accuracy_sentence(comparison: Comparison) -> str:
    """Which side moved against FP32, by its worst sequence; empty where neither did."""
    moved = [
        f"{one.side} is {one.movement.value} (worst relative L2 {format_error(one.base)} → "
        f"{format_error(one.head)})"
        for one in comparison.accuracy
        if one.movement in (Moved.FURTHER, Moved.CLOSER)
    ]
    return f" Accuracy: {_listed(moved)}." if moved else ""


def cause_words(incident: Incident) -> str:
    """ "packed side, rescale missing", "packed side, gates seed and gain" or "could not be run"."""
    if incident.cause is Cause.NOT_RUNNABLE:
        return "could not be run"
    side = {
        Culprit.PACKED: "packed side",
        Culprit.UNPACKED: "unpacked side",
        Culprit.BOTH: "both sides",
    }.get(incident.culprit or Culprit.NONE, "side not known")
    if incident.names:
        return f"{side}, {_listed(incident.names)}"
    if not incident.gates:
        return side
    return f"{side}, {'gate' if len(incident.gates) == 1 else 'gates'} {_listed(incident.gates)}"


def before_words(incident: Incident) -> str:
    """What the run before an incident is called: "last good" only where it passed.

    It may be one that another cause had broken already, and is then the last one without this.
    """
    good = incident.last_good
    passed = good is None or good.effective_outcome is Outcome.PASSED
    return "last good" if passed else "last without it"


def after_words(incident: Incident) -> str:
    """What to add where the run that ended an incident failed, for another cause; else nothing."""
    end = incident.fixed_by
    failed = end is not None and end.effective_outcome is Outcome.FAILED
    return ", which fails for another cause" if failed else ""


def incident_sentence(incident: Incident) -> str:
    """Since when, until when, what can be to blame and how bad."""
    first = incident.first_bad
    parts = [f"{cause_words(incident)}, since {_commit_words(first)}"]
    if incident.last_good is None:
        parts.append("no good commit before it is known")
    else:
        parts.append(f"{before_words(incident)} {incident.last_good.commit.short}")
    if incident.num_suspects is not None and incident.num_suspects > 1:
        parts.append(f"one of {incident.num_suspects:,} commits is to blame")
    if incident.lacks_values:
        parts.append("some sequences came back without a value")
    elif incident.worst_error is not None:
        parts.append(f"worst error {format_error(incident.worst_error)}")
    if incident.fixed_by is not None:
        parts.append(f"fixed by {_commit_words(incident.fixed_by)}{after_words(incident)}")
    elif incident.acknowledgement is not None and incident.state is IncidentState.ACKNOWLEDGED:
        parts.append(f"acknowledged by {one_line(incident.acknowledgement.who, 60)}")
    elif incident.state is IncidentState.NOT_SEEN:
        later = count(incident.commits_since_seen, "later commit")
        parts.append(
            f"not seen since {_commit_words(incident.last_bad)}: {later} measured, none like this"
        )
    elif incident.state is IncidentState.REWRITTEN:
        parts.append("its commits have left the branch")
    else:
        parts.append(f"open, {count(incident.num_bad_runs, 'bad run')} so far")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def accuracy_move_sentence(move: AccuracyMove) -> str:
    """ "packed is further from FP32 at d4b6197a3c (2026-03-02): 1.6e-3 → 2.1e-3"."""
    return (
        f"{move.side} is {move.movement.value} at {_commit_words(move.after)}: worst relative L2 "
        f"{format_error(move.base)} → {format_error(move.head)}."
    )


def movement_sentence(one: Movement) -> str:
    """ "Tokens per second fell from 2,810 to 1,190 at 57673e671a (2026-03-02): worse"."""
    grew = one.after > one.before
    way = {
        ChangeKind.STEP: "grew" if grew else "fell",
        ChangeKind.DRIFT: "has slowly grown" if grew else "has slowly fallen",
        ChangeKind.BURST: f"{'grew' if grew else 'fell'} for {count(one.num_after, 'run')}",
    }[one.kind]
    levels = [
        f"{value:,.4g}" if one.figure.is_speed else format_error(value)
        for value in (one.before, one.after)
    ]
    name = f"{one.figure.value[:1].upper()}{one.figure.value[1:]}"
    judged = "worse" if one.is_worse else "better"
    return f"{name} {way} from {levels[0]} to {levels[1]} at {_commit_words(one.run)}: {judged}."


def incidents_by_fate(found: Regressions) -> list[tuple[str, tuple[Incident, ...]]]:
    """What became of the incidents ("begun and not fixed", …), each with those of which it is true.

    One whose commits have left the branch is over, but nothing fixed it.
    """

    rewritten = any(one.state is IncidentState.REWRITTEN for one in found.recovered)
    fates = [
        ("begun and not fixed", found.broken),
        (f"begun and {'over' if rewritten else 'fixed'}", found.recovered),
        ("from before and fixed", found.fixed),
    ]
    return [(words, incidents) for words, incidents in fates if incidents]


def regressions_sentence(found: Regressions) -> str:
    """What broke, said together with how much could be judged at all."""
    judged = f"{found.num_judged:,} of {found.num_series:,} series could be judged"
    parts = [
        f"{count(len(incidents), 'incident')} {words}"
        for words, incidents in incidents_by_fate(found)
    ]
    told = _listed(parts) if parts else "No regression"
    vanished = f"; {len(found.vanished):,} vanished" if found.vanished else ""
    moved = ""
    worse = [one.movement.is_worse for one in found.moved]
    worse += [one.movement is Moved.FURTHER for one in found.accuracy]
    if worse:
        moved = (
            f"; {count(len(worse), 'figure')} moved below the gates, {sum(worse):,} for the worse"
        )
    return f"{told}; {judged}{vanished}{moved}."


def reproduce_command(run: Run, target: Target | None) -> str:
    """One shell command that measures the same commit in the same way, and stores it again."""
    used = run.configuration
    arguments = ["virnucpro-monitor", "run"]
    if target is None or target.adapter != "builtin":
        arguments += ["--target", run.target, "--commit", run.commit.hash]
    arguments += ["--benchmark", run.benchmark_label]
    arguments += ["--model", used.model, "--weights", used.weights]
    arguments += ["--device", "cuda:0" if used.device == "cuda" else used.device]
    arguments += ["--dtype", used.dtype, "--token-budget", str(used.token_budget)]
    if target is not None and target.adapter == "builtin" and used.backend not in UNKNOWN_BACKENDS:
        # Another target chooses its own backend; what it reports need not be a name of ours.
        arguments += ["--backend", used.backend]
    return shlex.join([*(one_line(argument, 500) for argument in arguments), "--force"])


def _commit_words(run: Run) -> str:
    return f"{run.commit.short} ({commit_date(run):%Y-%m-%d})"


def _listed(items: Sequence[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"
