"""The questions of `virnucpro_monitor.monitor`, asked of the configured database.

Nothing is decided here: each function hands a question on, and most keep its answer for a while.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, tzinfo

from app.data.database import FRESH_S, engine, kept
from virnucpro_monitor.analysis.comparison import Comparison, Thresholds
from virnucpro_monitor.analysis.incidents import Incident
from virnucpro_monitor.analysis.regressions import Bound
from virnucpro_monitor.analysis.series import SeriesKey
from virnucpro_monitor.monitor import (
    branches,
    comparing,
    histories,
    hosts,
    naming,
    questions,
    reading,
)
from virnucpro_monitor.monitor.comparing import Pairing
from virnucpro_monitor.monitor.histories import SeriesCard
from virnucpro_monitor.monitor.naming import FoundCommit
from virnucpro_monitor.records import (
    BenchmarkSet,
    Bisection,
    Commit,
    Coverage,
    Failure,
    Finding,
    Health,
    Heartbeat,
    Json,
    Level,
    Outcome,
    Run,
    SequencePoint,
    SequenceResult,
    Target,
    WorkHost,
)
from virnucpro_monitor.report import addresses
from virnucpro_monitor.report.text import one_line

COMPARISON_S = 600  # two stored runs never change
RECENT_RUNS = 200
MAX_CHOICES = 500


@kept()
def load_targets() -> list[Target]:
    return reading.load_targets(engine())


def load_target(name: str) -> Target | None:
    return next((target for target in load_targets() if target.name == name), None)


@kept()
def load_commits(target: str) -> list[Commit]:
    """The commits on a target's branch, oldest first."""
    return reading.commits_on_branch(engine(), target)


@kept()
def load_commit_choices(target: str) -> dict[str, str]:
    """What can be compared, with a label that a reader finds by typing a part of it.

    Full hashes of the newest commits of a target, or of all where it is empty, and branch names.
    """
    choices: dict[str, str] = {}
    for known in load_targets():
        if target not in ("", known.name):
            continue
        for name, label in load_branches(known.name).items():
            if name not in ("", branches.EVERY_BRANCH):
                choices[name] = f"branch {one_line(label, 80)}"
        for commit in reversed(load_commits(known.name)[-MAX_CHOICES:]):
            words = f"{commit.short} {one_line(commit.subject, 70)} · {one_line(commit.author, 40)}"
            choices.setdefault(commit.hash, words)
    return choices


def load_commits_between(base: Run, head: Run, limit: int) -> list[Commit]:
    """Commits after the older of two up to and with the newer, oldest first, at most `limit`."""
    return comparing.commits_between(load_commits(head.target), base, head, limit)


def commit_address(target: str, commit: str) -> str | None:
    """The web page of a commit, where the target's repository is on a known kind of host."""
    known = load_target(target)
    return addresses.commit_address(known.location, commit) if known else None


def diff_address(target: str, base: str, head: str) -> str | None:
    """The web page of the difference, where the target's repository is on a known kind of host."""
    known = load_target(target)
    return addresses.diff_address(known.location, base, head) if known else None


def find_commits(text: str, target: str | None) -> tuple[FoundCommit, ...]:
    """The commits that a hash, the beginning of one, a branch or a tag can mean."""
    return naming.find_commits(engine(), text, target)


def find_commit(text: str, target: str) -> Commit:
    """The one commit that a name means, or the error that says why there is none."""
    return naming.find_commit(engine(), text, naming.choose_target(engine(), target))


def find_bound(text: str, target: str | None, zone: tzinfo, *, is_end: bool) -> Bound | None:
    """A commit or a moment; raises the `MonitorError` that says why `text` is neither."""
    now = datetime.now(UTC)
    return naming.find_bound(engine(), text or None, target, now, is_end=is_end, zone=zone)[0]


@kept()
def load_branches(target: str) -> dict[str, str]:
    """What the reader can choose, with its label: "" is the followed branch, the first one."""
    return branches.load_branches(engine(), target)


@kept()
def load_series() -> tuple[SeriesCard, ...]:
    """All series: the bad ones first, then the most recently measured."""
    return histories.list_series(engine())


@kept()
def load_series_runs(card: SeriesCard, limit: int | None) -> tuple[Run, ...]:
    """The newest so many runs of a series, oldest commit first."""
    return tuple(histories.series_runs(engine(), card.key, card.configurations, limit))


@kept()
def load_branch_runs(card: SeriesCard, branch: str, limit: int | None) -> tuple[Run, ...]:
    """The newest so many runs of a series on a branch, oldest first."""
    return branches.branch_runs(engine(), card, branch, limit)


@kept()
def load_runs_between(card: SeriesCard, start: Bound | None, end: Bound | None) -> tuple[Run, ...]:
    """The runs of a series on the followed branch from `start` to `end`, both included."""
    return branches.runs_between(engine(), card, start, end)


@kept()
def load_findings(target: str) -> dict[int, Finding]:
    """What trace and probes recognised in a target's failed runs, by run id."""
    return reading.load_findings(engine(), target=target)


def load_finding(run: Run) -> Finding | None:
    """The same of one run; of a skipped one what was recognised where it was measured."""
    if run.effective_outcome is not Outcome.FAILED:
        return None  # asked of each row of a table
    return reading.finding_of(run, load_measured(run), load_findings(run.target))


@kept()
def load_target_flips(target: str) -> dict[int, int]:
    """How often the verdicts on a target's code changed in one set-up, by run id."""
    return questions.load_target_flips(engine(), target)


def count_flips(run: Run) -> int:
    """How often the verdict on a run's code changed from one attempt to the next."""
    return questions.count_flips(run, load_target_flips(run.target))


@kept(COMPARISON_S)
def load_attempts(run: Run) -> tuple[Outcome, ...]:
    """The verdicts of all measurements of a run's code in its set-up, oldest first."""
    return questions.load_attempts(engine(), load_measured(run))


@kept()
def load_recent_runs() -> tuple[Run, ...]:
    """The newest runs of each series, the most recently started first."""
    return histories.recent_runs(engine())


@kept()
def load_run(run_id: int) -> Run:
    """Raises `NotFoundError` where there is no such run."""
    return reading.load_run(engine(), run_id)


@kept()
def load_measured(run: Run) -> Run:
    """The run whose sequences stand for `run`: for a skipped one the run it inherits from."""
    return questions.measured_run(engine(), run)


def load_sequences(
    run: Run,
    *,
    only_failing: bool = False,
    search: str = "",
    order: str = "benchmark",
    limit: int | None = None,
) -> list[SequenceResult]:
    """The results stored with a run; `order` is "benchmark", "worst" or "length"."""
    return reading.load_sequences(
        engine(), run, only_failing=only_failing, search=search, order=order, limit=limit
    )


def load_pack(run: Run, pack: int) -> list[SequenceResult]:
    """What was packed together as one pack, in the order of the pack."""
    return reading.load_pack(engine(), run, pack)


@kept(max_entries=32)
def load_sequence_history(
    card: SeriesCard, sequence_id: str, limit: int | None
) -> list[SequencePoint]:
    """One sequence in the newest so many runs of a series that measured it, oldest first.

    Raises:
        NotFoundError: the benchmark set has no such sequence.
    """
    return reading.load_sequence_history(engine(), card.key, sequence_id, limit)


@kept(COMPARISON_S, unchanging=True)
def load_failing_ids(run: Run, limit: int) -> tuple[str, ...]:
    """The ids of the sequences that do not agree, the worst first, at most `limit`."""
    measured = load_measured(run)
    thresholds = load_protocol_thresholds(measured.protocol_digest)
    results = load_sequences(measured, order="worst", limit=limit)
    return tuple(
        result.sequence_id for result in results if thresholds.level(result) is not Level.STRICT
    )


@kept(COMPARISON_S, unchanging=True)
def load_group(run: Run) -> str:
    """What the failing sequences share, in words; empty where the trace found nothing."""
    trace = load_document(load_measured(run), "trace")
    group = trace.get("group") if isinstance(trace, Mapping) else None
    return str(group.get("text", "")) if isinstance(group, Mapping) else ""


@kept()
def load_incidents_of(card: SeriesCard) -> tuple[Incident, ...]:
    """The incidents in a series' newest runs, fixed ones too, oldest first."""
    return questions.judge_incidents(engine(), load_series_runs(card, RECENT_RUNS))


@kept(COMPARISON_S, unchanging=True)
def load_story(target: str, commit: str) -> reading.CommitStory | None:
    """A commit's message and files; None where its repository is not on this machine."""
    return reading.load_story(engine(), target, commit)


def load_failure(run: Run) -> Failure | None:
    return reading.load_failure(engine(), run.row_id)


def load_residue_errors(run: Run) -> dict[str, Mapping[str, list[float | None]]]:
    """The errors 1 - cos of residues: by sequence, and by what is set against what.

    They are recorded of the worst sequences of a failed run.
    """
    document = load_document(run, "residues")
    traced = document.get("sequences") if isinstance(document, Mapping) else None
    return {one["sequence_id"]: one.get("errors") or {} for one in traced or ()}


def load_document(run: Run, name: str) -> Json:
    return reading.load_document(engine(), run.row_id, name)


@kept()
def load_noise(run: Run) -> float | None:
    """The error 1 - cos that repeating an unchanged run can give; None where none is known."""
    return questions.load_noise(engine(), run)


@kept()
def load_neighbours(run: Run) -> tuple[Run | None, Run | None]:
    """The runs of the previous and the next measured commit of the same series."""
    return histories.load_neighbours(engine(), run)


@kept()
def load_last_good(run: Run) -> Run | None:
    """The last good run of the same series before `run`, if `run` itself is bad."""
    return histories.load_last_good(engine(), run)


@kept(max_entries=32)
def load_outcomes(like: Run, hashes: Sequence[str]) -> dict[str, Run]:
    """The runs of some commits in the series of `like`, by hash."""
    return histories.load_outcomes(engine(), like, hashes)


def load_commit_runs(target: str, commit_hash: str) -> dict[SeriesKey, Run]:
    """The current runs of one commit."""
    return reading.runs_of_commit(engine(), target, commit_hash)


def pair_runs(base: FoundCommit, head: FoundCommit) -> Pairing:
    """Which runs of two commits of one target belong together; raises where none do."""
    return comparing.pair_runs(
        engine(), head.target, base.commit, head.commit, base_target=base.target
    )


@kept()
def suggest_pairs() -> tuple[tuple[Run, Run], ...]:
    """What is worth comparing, one pair for each series, the bad series first."""
    return comparing.suggest_pairs(engine())


@kept(COMPARISON_S, unchanging=True)
def load_comparison(base: Run, head: Run) -> Comparison:
    """Two runs side by side; a skipped one stands on what it inherits."""
    return comparing.compare_pair(engine(), base, head)


@kept()
def load_protocol_thresholds(digest: str) -> Thresholds:
    return reading.load_protocol_thresholds(engine(), digest)


def load_thresholds(runs: Iterable[Run]) -> dict[str, Thresholds]:
    """The thresholds of each protocol that `runs` were judged under, by its digest."""
    digests = {run.protocol_digest for run in runs}
    return {digest: load_protocol_thresholds(digest) for digest in digests}


def load_heartbeats() -> list[Heartbeat]:
    return reading.load_heartbeats(engine())


@kept()
def load_health() -> Health:
    return reading.load_health(engine())


@kept(FRESH_S)
def load_hosts() -> tuple[WorkHost, ...]:
    """The hosts that measure, their cards as they are now, and what waits for them."""
    return hosts.load_hosts(engine())


@kept()
def load_coverage(target: str) -> Coverage:
    return reading.load_coverage(engine(), target)


@kept()
def load_benchmarks() -> list[BenchmarkSet]:
    return reading.load_benchmarks(engine())


@kept()
def load_sequence_ids(benchmark_label: str) -> frozenset[str]:
    """The ids of a benchmark set, to know one where it stands in a sentence."""
    found = (one.sequences for one in load_benchmarks() if one.label == benchmark_label)
    return frozenset(sequence.id for sequences in found for sequence in sequences)


@kept()
def load_bisections() -> tuple[Bisection, ...]:
    """Past and running searches of all targets, the latest started last."""
    return questions.load_bisections(engine())
