"""What is to be run, and in which order."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import BenchmarkSet, Commit, Protocol, Request, Target
from virnucpro_monitor.runner.sources import Source

ENGINES = ("local", "dask")
ORDERS = ("oldest", "newest", "bisect")
MEASURED_AT_ONCE = 4  # commits on a CPU with many cores; on fewer, one for each core


def usual_num_threads() -> int:
    """CPU threads of one measurement: a quarter of the cores, whatever else is measured."""
    return max(1, (os.cpu_count() or 1) // MEASURED_AT_ONCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One start of the runner.

    Attributes:
        repository: None for the built-in target, which is measured as it is installed.
        folder: without a repository, where an adapter's modules are looked for too; it is read
            only.
        commits: to be covered, oldest first.
        order: in which the measuring goes: "oldest", "newest" or "bisect".
        force: measure what has been measured before, too.
        retry_errors: measure commits that ended as `error` before.
        max_minutes: after this, commits become `not_run` and wait for the next start.
        gpu_wait_s: how long a busy GPU is waited for.
        confirm: measure a verdict that is in doubt once more (see `Ledger.doubt`).
        keep_embeddings: keep both sides' pooled embeddings with each run.
        reuse: reuse unpacked embeddings between commits where they are bit-identical.
        fork: fork from a warm process; None where the platform allows it.
        workers: commits measured at once; None: see `count_workers`.
        engine: "local", or "dask" for the cluster behind `scheduler`.
        scheduler: address of a Dask scheduler; empty for none.
        warm: let fair-esm build models from the mapped checkpoint.
        standby: have the next commit's processes start while one is measured.
        num_threads: CPU threads of each measurement, however many run at once: thread counts change
            the last bits of a result.
        network: whether commits may reach the network while they are measured.
        confine: whether commits are kept from other files, processes and the network at all.
        hidden: files and folders that commits may not read, beside those of the cache.
    """

    target: Target
    repository: Source | None
    commits: tuple[Commit, ...]
    benchmarks: tuple[BenchmarkSet, ...]
    request: Request
    protocol: Protocol
    cache_folder: Path
    folder: Path | None = None
    timeout_s: float = 1800.0
    memory_limit_gib: float | None = None
    order: str = "oldest"
    force: bool = False
    retry_errors: bool = False
    max_minutes: float | None = None
    gpu_wait_s: float = 600.0
    probes: bool = True
    confirm: bool = True
    keep_embeddings: bool = False
    reuse: bool = True
    fork: bool | None = None
    warm: bool = True
    standby: bool = True
    workers: int | None = None
    engine: str = "local"
    scheduler: str = ""
    num_threads: int = field(default_factory=usual_num_threads)
    network: bool = False
    confine: bool = True
    hidden: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigurationError(
                f"{self.order!r} is not an order: use one of {', '.join(ORDERS)}."
            )
        if self.engine not in ENGINES:
            raise ConfigurationError(
                f"{self.engine!r} is not an engine: use one of {', '.join(ENGINES)}."
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
