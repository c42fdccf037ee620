"""What is measured, how, and what came of it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from virnucpro_monitor.records.names import benchmark_label, short_hash
from virnucpro_monitor.records.outcome import Culprit, Outcome, SequenceStatus

Json = Any
"""A value that `json.dumps` accepts: a mapping, list, string, number, boolean or None."""


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

    @property
    def label(self) -> str:
        return benchmark_label(self.name, self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is monitored, a repository or a package, and how to load its model.

    Attributes:
        location: path or URL of the git repository, or `pypi:NAME`.
        adapter: a name of `adapter list`, `module:callable` or `file.py:callable`.
        package: import root of the monitored package, None to find it.
        paths: git pathspecs whose content decides whether a commit must be measured; empty
            means everything.
        branch: what `run --new` follows; None is the repository's HEAD. Of a package it is the
            range of releases, as in ">=4.53"; None is all of them.
        requirements: requirement file inside the repository for a private environment, or None. Of
            a package it is what is installed with each release, one requirement a line.
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
        on_branch: whether the followed branch's first-parent history holds it now. False for
            commits of other branches, for those a merge brought in beside the first parent, and
            for those that a force-push or rebase has taken out.
        former_position, left_at: where it stood on the branch, and when it was seen to have left
            it; None for a commit that is on the branch or never was.
    """

    hash: str
    parents: tuple[str, ...] = ()
    subject: str = ""
    author: str = ""
    authored_at: datetime | None = None
    committed_at: datetime | None = None
    position: int | None = None
    on_branch: bool = True
    former_position: int | None = None
    left_at: datetime | None = None

    @property
    def short(self) -> str:
        return short_hash(self.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where a run ran: what can change a result without any commit.

    Attributes:
        packages: version by name of each distribution whose modules the worker imported.
        parts: further facts by name: threads, BLAS, CPU capability, CUDA's parts, and settings from
            outside that choose other kernels.
    """

    host: str
    platform: str
    python: str
    torch: str
    cuda: str | None = None
    gpu: str | None = None
    driver: str | None = None
    flash_attn: str | None = None
    fair_esm: str | None = None
    packages: Mapping[str, str] | None = None
    parts: Mapping[str, str] | None = None

    @property
    def digest(self) -> str:
        content = dataclasses.asdict(self)
        for name in ("packages", "parts"):
            # What was recorded before there were such fields keeps its digest.
            if content[name] is None:
                del content[name]
        return content_digest(content)

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What is known, in words for a person: (name, value)."""
        found = []
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if isinstance(value, Mapping):
                value = ", ".join(f"{name} {value[name]}" for name in sorted(value))
            if value:
                found.append((one.name.replace("_", "-"), str(value)))
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """How a run was set up. `backend` is the attention backend that really ran."""

    model: str
    weights: str  # "synthetic", "official" or the checkpoint's file name
    weights_digest: str
    dtype: str  # "float32", "float16", "bfloat16"
    device: str  # "cpu" or "cuda"
    backend: str  # "triton", "flash-attn", "torch-varlen", "sdpa" or what the target reports
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
        informs: on whose word the gate informs for this target, and does not fail its runs:
            "policy of NAME since DATE: WHY". Empty where it does fail them.
    """

    name: str
    passed: bool | None
    value: float | None
    limit: float | None
    unit: str
    culprit: Culprit | None = None
    detail: str = ""
    informs: str = ""

    @property
    def fails(self) -> bool:
        """Whether it makes its run fail."""
        return self.passed is False and not self.informs


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceResult:
    """One sequence's measures in one run, at full double precision.

    Attributes:
        index: place in the benchmark set.
        length: residues compared, after truncation.
        similarity: pooled cosine of packed against unpacked; None where not finite, lost or
            doubled.
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
        packed_outcome, unpacked_outcome: what became of each side alone.
        reason: one sentence: what failed, which side, by how much.
        documents: further evidence by name ("probes", "trace", "residues", "noise", "packs",
            "memory"), JSON values. The runner adds "output" and "branches" to what it stores.
    """

    outcome: Outcome  # PASSED or FAILED
    culprit: Culprit
    reason: str
    figures: Figures
    gates: tuple[GateResult, ...]
    sequences: tuple[SequenceResult, ...]
    documents: Mapping[str, Json] = field(default_factory=dict)
    packed_outcome: Outcome | None = None
    unpacked_outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One target commit on one benchmark set under one configuration, without the heavy parts.

    Attributes:
        id: None until stored.
        reason: one sentence; for `error` the exception, for `not_run` why.
        packed_outcome, unpacked_outcome: what became of each side alone; None where not judged.
        inherited_from: full hash of the commit whose result a `skipped` run inherits.
        inherited_run_id: the stored run that measured that result. The writer finds it where it
            is not given.
        code_digest: of the relevant paths' content; equal digests inherit.
        bridge: measured again only because the environment changed.
        digest: SHA-256 of all that is stored of the run; None until stored.
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
    inherited_run_id: int | None = None
    packed_outcome: Outcome | None = None
    unpacked_outcome: Outcome | None = None
    code_digest: str | None = None
    bridge: bool = False
    digest: str | None = field(default=None, compare=False)
    started_at: datetime
    duration_s: float

    @property
    def row_id(self) -> int:
        """Its id in the database; 0, which no row has, until it is stored."""
        return self.id or 0

    @property
    def benchmark_label(self) -> str:
        """What `--benchmark` takes: "seed@1"."""
        return benchmark_label(self.benchmark, self.benchmark_version)

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
