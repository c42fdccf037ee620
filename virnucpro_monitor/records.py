"""The frozen records that every room speaks.

They hold plain Python values, so that they cross process borders as JSON and outlive a database
session. A value that is not known is `None`, never NaN.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

Json = Any
"""A value that `json.dumps` accepts: a mapping, list, string, number, boolean or None."""

_Record = TypeVar("_Record")


class Outcome(StrEnum):
    """What became of a run. The five are never conflated."""

    PASSED = "passed"
    FAILED = "failed"  # the promise is broken
    ERROR = "error"  # the target could not be run
    SKIPPED = "skipped"  # nothing relevant changed: inherited from an earlier commit
    NOT_RUN = "not_run"  # with a reason


class Culprit(StrEnum):
    """The side that departs from the FP32 oracle."""

    NONE = "none"
    PACKED = "packed"
    UNPACKED = "unpacked"
    BOTH = "both"


class SequenceStatus(StrEnum):
    """Whether a sequence came back from the packed path, once and finite."""

    OK = "ok"
    NOT_FINITE = "not_finite"
    LOST = "lost"
    DOUBLED = "doubled"


def content_digest(content: Json) -> str:
    """SHA-256 (hex) of `content` as canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProteinSequence:
    id: str
    residues: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSet:
    """A named, versioned set of sequences, frozen by the SHA-256 of its content."""

    name: str
    version: int
    digest: str
    description: str = ""
    sequences: tuple[ProteinSequence, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A monitored repository and how to load its model.

    Attributes:
        location: path or URL of the git repository.
        adapter: `seed-interface`, `builtin`, an entry point's name or `module:callable`.
        package: import root of the monitored package, None to find it.
        paths: git pathspecs whose content decides whether a commit must be measured; empty
            means everything.
        branch: what `run --new` follows; None is the repository's HEAD.
        requirements: requirement file inside the repository for a private environment, or None.
    """

    name: str
    location: str
    adapter: str = "seed-interface"
    package: str | None = None
    paths: tuple[str, ...] = ()
    branch: str | None = None
    requirements: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """A commit of a target.

    Attributes:
        position: 0-based place in the first-parent history, oldest first; None where unknown.
        on_branch: False once a force-push or rebase has taken it out of the history.
    """

    hash: str
    parents: tuple[str, ...] = ()
    subject: str = ""
    author: str = ""
    authored_at: datetime | None = None
    committed_at: datetime | None = None
    position: int | None = None
    on_branch: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where a run ran: what can change a result without any commit."""

    host: str
    platform: str
    python: str
    torch: str
    cuda: str | None = None
    gpu: str | None = None
    driver: str | None = None
    flash_attn: str | None = None
    fair_esm: str | None = None

    @property
    def digest(self) -> str:
        return content_digest(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """How a run was set up. `backend` is the attention backend that really ran."""

    model: str
    weights: str  # "synthetic", "official" or the checkpoint's file name
    weights_digest: str
    dtype: str  # "float32", "float16", "bfloat16"
    device: str  # "cpu" or "cuda"
    backend: str  # "flash-attn", "torch-varlen", "sdpa" or what the target reports
    token_budget: int

    @property
    def digest(self) -> str:
        return content_digest(dataclasses.asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Thresholds, metric definitions, pooling and probes, frozen under one version and digest."""

    version: str
    digest: str
    content: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate's own verdict: `value` against `limit` in `unit`.

    Attributes:
        passed: None where the gate could not be judged; `detail` then says why.
        culprit: the side this gate points at, None where it does not tell.
        detail: one sentence for a person.
    """

    name: str
    passed: bool | None
    value: float | None
    limit: float | None
    unit: str
    culprit: Culprit | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceResult:
    """One sequence's measures in one run, at full double precision.

    Attributes:
        index: place in the benchmark set.
        length: residues compared, after truncation.
        similarity: pooled cosine of packed against unpacked; None where not finite or lost.
        packed_similarity, unpacked_similarity: pooled cosine of each side against the oracle.
        relative_l2: ||packed - unpacked|| / ||unpacked||, pooled.
        packed_relative_l2, unpacked_relative_l2: the same against the oracle.
        gain: ||packed|| / ||unpacked||, pooled.
        worst_residue_similarity, p01_residue_similarity: minimum and 1st percentile of the
            residues' cosines, packed against unpacked.
        worst_residue: 0-based residue with the worst cosine.
        max_abs_difference: over all residues and channels, packed against unpacked.
        pack, slot, offset: which pack, which place in it, and its first token's index in it.
    """

    index: int
    sequence_id: str
    length: int
    truncated: bool = False
    status: SequenceStatus = SequenceStatus.OK
    similarity: float | None = None
    packed_similarity: float | None = None
    unpacked_similarity: float | None = None
    relative_l2: float | None = None
    packed_relative_l2: float | None = None
    unpacked_relative_l2: float | None = None
    gain: float | None = None
    worst_residue_similarity: float | None = None
    p01_residue_similarity: float | None = None
    worst_residue: int | None = None
    max_abs_difference: float | None = None
    pack: int | None = None
    slot: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run is an `error`: the exception, its traceback and what the target printed."""

    kind: str  # "import", "interface", "crash", "timeout", "out_of_memory", "checkout", ...
    message: str
    traceback: str = ""
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A run's per-sequence results, rolled up. Counts are over all `num_sequences`.

    Attributes:
        num_strict: sequences whose similarity is above the strict threshold.
        num_failed: below lenient, not finite, lost or doubled.
        p01_similarity, median_similarity: linear-interpolated percentiles of the similarities.
        worst_sequence: id of the sequence with the worst similarity.
        seed_passed: the seed's rule alone.
    """

    num_sequences: int
    num_tokens: int
    num_strict: int
    num_failed: int
    strict_pass_rate: float
    min_similarity: float | None
    p01_similarity: float | None
    median_similarity: float | None
    max_similarity: float | None
    worst_sequence: str | None = None
    seed_passed: bool = False
    max_packed_relative_l2: float | None = None
    max_unpacked_relative_l2: float | None = None
    unpacked_s: float | None = None
    packed_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the yardstick says of one model on one benchmark set.

    Attributes:
        reason: one sentence: what failed, which side, by how much.
        documents: further evidence by name ("probes", "trace", "noise", "packs"), JSON values.
    """

    outcome: Outcome  # PASSED or FAILED
    culprit: Culprit
    reason: str
    figures: Figures
    gates: tuple[GateResult, ...]
    sequences: tuple[SequenceResult, ...]
    documents: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One target commit on one benchmark set under one configuration, without the heavy parts.

    Attributes:
        id: None until stored.
        reason: one sentence; for `error` the exception, for `not_run` why.
        inherited_from: full hash of the commit whose result a `skipped` run inherits.
        code_digest: of the relevant paths' content; equal digests inherit.
        bridge: measured again only because the environment changed.
    """

    id: int | None = None
    target: str
    commit: Commit
    benchmark: str
    benchmark_version: int
    benchmark_digest: str
    configuration: Configuration
    environment: Environment | None
    protocol_version: str
    protocol_digest: str
    outcome: Outcome
    culprit: Culprit | None = None
    reason: str = ""
    figures: Figures | None = None
    gates: tuple[GateResult, ...] = ()
    inherited_from: str | None = None
    inherited_outcome: Outcome | None = None
    code_digest: str | None = None
    bridge: bool = False
    started_at: datetime
    duration_s: float

    @property
    def effective_outcome(self) -> Outcome:
        """The outcome that counts: an inherited one for `skipped`."""
        return self.inherited_outcome or self.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run with everything that is stored with it. This is what the runner yields."""

    run: Run
    target: Target
    benchmark: BenchmarkSet
    protocol: Protocol
    sequences: tuple[SequenceResult, ...] = ()
    failure: Failure | None = None
    documents: Mapping[str, Json] = field(default_factory=dict)


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
    def num_runs(self) -> int:
        return sum(self.outcome_counts.values())


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """When a runner last spoke, and what it said.

    Attributes:
        target: empty where the runner serves no single target.
        state: "running", "waiting", "idle" or "finished".
        num_queued: commits still to be run, None where unknown.
        exit_code, finished_at: of the last invocation that ended.
    """

    host: str
    target: str
    state: str
    message: str
    at: datetime
    num_queued: int | None = None
    exit_code: int | None = None
    finished_at: datetime | None = None


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
class Health:
    """Whether the monitor itself is alive.

    Attributes:
        failures: stored runs by kind of failure.
        usage: oldest day first.
        row_counts: by table.
    """

    heartbeats: tuple[Heartbeat, ...]
    leases: tuple[Lease, ...]
    failures: Mapping[str, int]
    usage: tuple[DayUsage, ...]
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
        first_bad: full hash of the commit found, None where there is none (yet).
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


def to_json(record: Any) -> Json:
    """Turn a record (or a tuple or mapping of records) into JSON values, datetimes as ISO 8601."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(value) for value in record]
    if isinstance(record, datetime):
        return record.isoformat()
    if isinstance(record, StrEnum):
        return record.value
    return record


def from_json(kind: type[_Record], value: Json) -> _Record:
    """Rebuild a record of `kind` from what `to_json` made.

    Raises:
        TypeError: a field is missing or unknown.
    """
    return typing.cast(_Record, _revive(kind, value))


def _revive(kind: Any, value: Json) -> Any:
    if value is None or kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _revive(next(part for part in arguments if part is not type(None)), value)
    if origin is tuple:
        return tuple(_revive(arguments[0], item) for item in value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {name: _revive(hints.get(name, Any), item) for name, item in value.items()}
        return typing.cast(Any, kind)(**known)
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    return value
