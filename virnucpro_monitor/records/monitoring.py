"""What is known of the monitoring itself: series, coverage, heartbeats, searches and the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from virnucpro_monitor.records.names import benchmark_label
from virnucpro_monitor.records.outcome import Culprit, Outcome
from virnucpro_monitor.records.runs import (
    Commit,
    Configuration,
    Figures,
    GateResult,
    Run,
    SequenceResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The runs of one target on one benchmark set under one configuration.

    Attributes:
        latest: the current run of the newest commit in history order.
        outcome_counts: current runs by outcome, `skipped` counted as such.
        commits_behind: commits on the branch after `latest`'s; 0 where its place is unknown.
    """

    target: str
    benchmark: str
    benchmark_version: int
    configuration: Configuration
    latest: Run
    outcome_counts: Mapping[Outcome, int]
    commits_behind: int

    @property
    def benchmark_label(self) -> str:
        return benchmark_label(self.benchmark, self.benchmark_version)

    @property
    def num_runs(self) -> int:
        return sum(self.outcome_counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMark:
    """One run of a series, as little of it as a mark on a small chart needs.

    Attributes:
        configuration: digest.
        position: the commit's place in history, None where it is not known.
        min_similarity: None where nothing was measured, or what was is not finite.
    """

    target: str
    benchmark: str
    benchmark_version: int
    configuration: str
    commit: str
    position: int | None
    outcome: Outcome
    inherited_outcome: Outcome | None
    min_similarity: float | None

    @property
    def effective_outcome(self) -> Outcome:
        """The outcome that counts: an inherited one for `skipped`."""
        return self.inherited_outcome or self.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of a target's history is accounted for.

    Attributes:
        num_seen: commits known, those that have left the branch included.
        num_measured: commits on the branch with a current run that passed, failed or was skipped.
        num_unmeasured: commits on the branch whose current runs are all errors or not run.
        num_missing: commits on the branch without any run.
        missing: the newest of those, newest first.
    """

    target: str
    num_seen: int
    num_on_branch: int
    num_measured: int
    num_unmeasured: int
    num_missing: int
    missing: tuple[Commit, ...] = ()


CLUSTER_NAME = "Dask cluster"  # the host of runs that one of its workers measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterHost:
    """One host of a Dask cluster, as it was when a runner spoke.

    Attributes:
        card: the GPU's name; empty for the CPU.
        num_workers: Dask workers, each with one card where cards are measured on.
        utilisation: percent, as in `HostCards`.
    """

    host: str
    card: str
    num_workers: int
    utilisation: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """When a runner last spoke, and what it said.

    Attributes:
        target: empty where the runner serves no single target.
        state: "running", "waiting", "idle" or "finished".
        num_queued: commits still to be run, None where unknown.
        exit_code, finished_at: of the last invocation that ended.
        cluster: hosts of the Dask cluster that it measures on; None where it measures on its own.
    """

    host: str
    target: str
    state: str
    message: str
    at: datetime
    num_queued: int | None = None
    exit_code: int | None = None
    finished_at: datetime | None = None
    cluster: tuple[ClusterHost, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    name: str
    owner: str
    acquired_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DayUsage:
    """Run time of one day (UTC, "2026-11-24") on one kind of device."""

    day: str
    device: str
    num_runs: int
    run_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineUse:
    """What one host and card did in the days that `Health.usage` covers.

    Attributes:
        card: the GPU's name; empty for the CPU.
        num_commits: different ones.
        run_s: of all its runs, those that failed or could not be run included.
        busy_s: the time in which it measured, where several runs at once count once, so that
            `busy_s / num_commits` is how fast commits are covered there.
    """

    host: str
    card: str
    num_runs: int
    num_commits: int
    run_s: float
    busy_s: float
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCards:
    """The cards of one kind of a host, and what a commit cost on them.

    Attributes:
        card: the GPU's name; empty for the CPU.
        num_cards: how many are there now; None where nobody there tells (another host than the one
            that asks, unless it is one of a cluster that measures).
        utilisation: percent now, their mean (of the CPU: its load of the last minute over its
            cores); None where it cannot be asked.
        num_commits: different ones, in the last 90 days.
        seconds_per_commit: the time in which they were measured, several at once counted once,
            over their number; None where there were none.
        last_at: when the last run there began.
    """

    card: str
    num_cards: int | None = None
    utilisation: int | None = None
    num_commits: int = 0
    seconds_per_commit: float | None = None
    last_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkHost:
    """A host (or cluster) that measures, and what waits for it.

    Attributes:
        is_here: it is the one that asks.
        num_queued: commits that its runners have still to cover; None where none has reported.
        cards: the one with most run time first.
    """

    host: str
    is_here: bool
    num_queued: int | None
    cards: tuple[HostCards, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the monitor itself is alive.

    Attributes:
        failures: stored runs by kind of failure.
        usage: oldest day first.
        machines: the one with most run time first.
        row_counts: by table.
    """

    heartbeats: tuple[Heartbeat, ...]
    leases: tuple[Lease, ...]
    failures: Mapping[str, int]
    usage: tuple[DayUsage, ...]
    machines: tuple[MachineUse, ...]
    last_run_at: datetime | None
    database_bytes: int
    schema_revision: str
    row_counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """Somebody has seen an incident.

    Attributes:
        incident: the incident's key.
        scope: what it covers, in the writer's words or a target's name.
        reopen_if_worse_than: an error e = 1 - cos above which it no longer holds.
    """

    id: int | None = None
    incident: str
    who: str
    why: str
    scope: str = ""
    created_at: datetime
    expires_at: datetime | None = None
    reopen_if_worse_than: float | None = None
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A stored run's measures, judged again under another protocol."""

    run_id: int
    protocol_version: str
    protocol_digest: str
    outcome: Outcome
    culprit: Culprit
    reason: str
    figures: Figures
    gates: tuple[GateResult, ...]
    judged_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePoint:
    """One sequence in one run of a history."""

    run: Run
    result: SequenceResult


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectStep:
    """One commit tried by a bisection.

    Attributes:
        verdict: "good", "bad" or "skip".
        reused: a stored run answered; nothing was measured.
    """

    step: int
    commit: str
    verdict: str
    run_id: int | None = None
    reused: bool = False
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """A search for the commit between `good` and `bad` (full hashes) that changed the verdict.

    Attributes:
        gate: the gate that decided, None for the whole verdict.
        first_bad: full hash of the commit found, None where there is none (yet); where `bad` is
            the older commit it is the first good one, as `brought` says.
        conclusion: one sentence.
    """

    id: int | None = None
    target: str
    good: str
    bad: str
    benchmark: str
    gate: str | None = None
    started_at: datetime
    finished_at: datetime | None = None
    first_bad: str | None = None
    conclusion: str = ""
    steps: tuple[BisectStep, ...] = ()

    @property
    def brought(self) -> str | None:
        """The verdict that the commit found brought, "bad" or "good"; None where there is none."""
        return next((one.verdict for one in self.steps if one.commit == self.first_bad), None)

    @property
    def state(self) -> str:
        """ "found", "not found", or "not finished": it runs still, or was broken off."""
        if self.finished_at is None:
            return "not finished"
        return "found" if self.first_bad else "not found"
