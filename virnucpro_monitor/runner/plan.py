"""What is to be run, in which order, and what need not be run again."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Configuration,
    Outcome,
    Protocol,
    Run,
    Target,
    content_digest,
)
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.gpu import Gpu, find_gpu

ORDERS = ("oldest", "newest", "bisect")
MEASURED = (Outcome.PASSED, Outcome.FAILED)
MAX_ON_GPU = 4
GPU_RESERVE_BYTES = 2 * 1024**3  # CUDA itself, and the activations of a pack
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How the model is to be run. `weights` is "official", "synthetic" or a path."""

    model: str
    weights: str
    device: str = "cpu"
    dtype: str = "float32"
    backend: str = "auto"
    token_budget: int = 4096

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigurationError(
                f"{self.dtype!r} is not a dtype: use one of {', '.join(DTYPES)}."
            )

    def asks_for(self, used: Configuration) -> bool:
        """Whether a run under `used` is of this series, whatever its weights and backend."""
        return (
            used.model == self.model
            and used.dtype == self.dtype
            and used.device == self.device.partition(":")[0]
            and used.token_budget == self.token_budget
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One start of the runner.

    Attributes:
        repository: None for the built-in target, which is measured as it is installed.
        commits: to be covered, oldest first.
        order: in which the measuring goes: "oldest", "newest" or "bisect".
        force: measure what has been measured before, too.
        retry_errors: measure commits that ended as `error` before.
        max_minutes: after this, commits become `not_run` and wait for the next start.
        gpu_wait_s: how long a busy GPU is waited for.
        reuse: reuse unpacked embeddings between commits where they are bit-identical.
        fork: fork from a warm process; None where the platform allows it.
        workers: commits measured at once; None: see `count_workers`.
        warm: let fair-esm build models from the mapped checkpoint.
    """

    target: Target
    repository: Repository | None
    commits: tuple[Commit, ...]
    benchmarks: tuple[BenchmarkSet, ...]
    request: Request
    protocol: Protocol
    cache_folder: Path
    timeout_s: float = 1800.0
    memory_limit_gib: float | None = None
    order: str = "oldest"
    force: bool = False
    retry_errors: bool = False
    max_minutes: float | None = None
    gpu_wait_s: float = 600.0
    probes: bool = True
    reuse: bool = True
    fork: bool | None = None
    warm: bool = True
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigurationError(
                f"{self.order!r} is not an order: use one of {', '.join(ORDERS)}."
            )


def ordered(commits: Sequence[Commit], order: str) -> list[Commit]:
    """Put commits (oldest first) into measuring order.

    "bisect" takes both ends, then ever finer middles, so that a change is bracketed early.
    """
    if order == "oldest":
        return list(commits)
    if order == "newest":
        return list(reversed(commits))
    if len(commits) < 3:
        return list(reversed(commits))
    chosen = [len(commits) - 1, 0]
    gaps = [(0, len(commits) - 1)]
    while gaps:
        low, high = gaps.pop(0)
        middle = (low + high) // 2
        if middle in (low, high):
            continue
        chosen.append(middle)
        gaps += [(low, middle), (middle, high)]
    return [commits[index] for index in chosen]


def count_workers(
    plan: RunPlan,
    num_commits: int,
    needed_bytes: int = 0,
    look: Callable[[str], Gpu | None] = find_gpu,
) -> int:
    """How many commits to measure at once: on the CPU one for each core.

    A GPU stands idle for most of a commit's time, while a process starts, loads its model and
    launches short kernels, so it takes several, as far as they have memory to spare.

    Args:
        needed_bytes: of GPU memory for one commit.
    """
    count = plan.workers
    if count is None:
        count = os.cpu_count() or 1
        if plan.request.device.startswith("cuda"):
            gpu = look(plan.request.device)
            room = gpu.free_bytes // max(1, 4 * needed_bytes) if gpu else 1
            count = min(MAX_ON_GPU, count // 2, room)
    return max(1, min(count, num_commits))


def needed_gpu_bytes(checkpoint: Path) -> int:
    """A cautious guess at the GPU memory that one run takes: its weights, and some more."""
    return checkpoint.stat().st_size + GPU_RESERVE_BYTES


def code_digest(repository: Repository, target: Target, commit: str) -> str:
    """Digest of what decides a commit's result: its relevant files and how they are loaded."""
    loading = [target.adapter, target.package, target.requirements]
    if not target.paths:
        return content_digest([loading, repository.tree(commit)])
    wanted = (*target.paths, *((target.requirements,) if target.requirements else ()))
    files = {
        path: name
        for path, name in repository.files(commit).items()
        if any(covers(pattern, path) for pattern in wanted)
    }
    return content_digest([loading, files])


def covers(pattern: str, path: str) -> bool:
    """Whether a target's path covers a file: the file, a folder above it, or a glob."""
    pattern = pattern.rstrip("/")
    return path == pattern or path.startswith(f"{pattern}/") or fnmatch(path, pattern)


class Ledger:
    """What is known of a target's runs under one request and protocol."""

    def __init__(
        self, known: Iterable[Run], request: Request, weights_digest: str, protocol: Protocol
    ) -> None:
        self._request = request
        self._weights_digest = weights_digest
        self._protocol_digest = protocol.digest
        self._runs = [run for run in known if self._comparable(run)]
        self.backend = request.backend
        self.backend_known = False
        for run in self._runs:
            self._note_backend(run)

    def _note_backend(self, run: Run) -> None:
        if run.outcome in MEASURED:
            self.backend, self.backend_known = run.configuration.backend, True

    def _comparable(self, run: Run) -> bool:
        return (
            run.protocol_digest == self._protocol_digest
            and run.configuration.weights_digest == self._weights_digest
            and self._request.asks_for(run.configuration)
        )

    def add(self, run: Run) -> None:
        self._runs.append(run)
        self._note_backend(run)

    def configuration(self, weights_name: str, backend: str | None = None) -> Configuration:
        """The configuration of a new run; without `backend`, the one last seen."""
        request = self._request
        return Configuration(
            model=request.model,
            weights=weights_name,
            weights_digest=self._weights_digest,
            dtype=request.dtype,
            device=request.device.partition(":")[0],
            backend=backend or self.backend,
            token_budget=request.token_budget,
        )

    def settled(
        self, commit: str, benchmark_digest: str, environment_digest: str, *, retry_errors: bool
    ) -> Run | None:
        """The run that makes measuring this commit needless, None if there is none."""
        open_outcomes = {Outcome.NOT_RUN} | ({Outcome.ERROR} if retry_errors else set())
        return next(
            (
                run
                for run in reversed(self._runs)
                if run.commit.hash == commit
                and run.benchmark_digest == benchmark_digest
                and _same_environment(run, environment_digest)
                and run.outcome not in open_outcomes
            ),
            None,
        )

    def twin(self, digest: str, benchmark_digest: str, environment_digest: str) -> Run | None:
        """A measured run of the same code on the same benchmark in the same environment."""
        return next(
            (
                run
                for run in reversed(self._runs)
                if run.outcome in MEASURED
                and run.code_digest == digest
                and run.benchmark_digest == benchmark_digest
                and _same_environment(run, environment_digest)
            ),
            None,
        )

    def bridge(self, benchmark_digest: str, environment_digest: str) -> Run | None:
        """The last measured run, if it was measured in another environment than the present."""
        measured = [
            run
            for run in self._runs
            if run.outcome in MEASURED and run.benchmark_digest == benchmark_digest
        ]
        if not measured or any(_same_environment(run, environment_digest) for run in measured):
            return None
        return max(measured, key=lambda run: run.started_at)


def _same_environment(run: Run, digest: str) -> bool:
    # A run that never came to measuring may lack its environment.
    return run.environment is None or run.environment.digest == digest
