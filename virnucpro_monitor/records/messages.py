"""What runner and worker say to each other: jobs one way, events the other, a JSON line each.

The events of a measuring worker come from a process that runs foreign code, so nothing about them
is taken on trust: a line is bounded in length, every field has its type, numbers are finite, and
whatever else arrives is a `MessageError`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.records.conversion import RecordError, from_json, to_json
from virnucpro_monitor.records.request import Request
from virnucpro_monitor.records.runs import (
    BenchmarkSet,
    Environment,
    Failure,
    Protocol,
    Verdict,
)

MAX_MESSAGE_BYTES = 64 * 1024**2  # a verdict on 10,000 sequences takes about a tenth
MAX_TEXT_CHARACTERS = 100_000  # a traceback, the longest text that an event holds
MAX_NAME_CHARACTERS = 100
MAX_DURATION_S = 366 * 24 * 3600.0


WORKERS = b"w "
"""Before each line of the worker's, as the process that watches it hands it on."""
OWN = b"e "
"""Before that process's own line, the last: what the worker writes cannot be taken for it."""


class MessageError(MonitorError):
    """A line on the channel is not a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareJob:
    """Set the yardstick up: weights, oracles of the benchmark sets, surroundings.

    Attributes:
        memory_limit_gib: None for no limit.
        num_threads: CPU threads of each measurement that follows.
        oracle: what the runs are held against, as `runner.oracle_names` has it.
        network, confine, hidden: as of the `MeasureJob`s that follow.
    """

    request: Request
    cache_folder: str
    benchmarks: tuple[BenchmarkSet, ...]
    timeout_s: float
    memory_limit_gib: float | None = None
    num_threads: int
    oracle: str = "fair-esm"
    network: bool = False
    confine: bool = True
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeJob:
    """Describe another interpreter than our own, whose packages a commit has chosen.

    Attributes:
        python: that interpreter.
        hidden, confine: as of a `MeasureJob`.
    """

    request: Request
    cache_folder: str
    timeout_s: float
    memory_limit_gib: float | None = None
    num_threads: int
    python: str
    hidden: tuple[str, ...] = ()
    confine: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureJob:
    """Measure one checked-out commit on benchmark sets.

    Attributes:
        first: index of the benchmark set to begin with.
        adapter_paths: folders in which the adapter's module lies, and what it may import.
        warm: build fair-esm's models from the mapped checkpoint.
        keep_embeddings: send both sides' pooled embeddings with the verdict.
        reuse: folder of unpacked embeddings to reuse, None for none.
        num_threads: CPU threads of the measurement.
        timeout_s: from the start, and again from each verdict.
        kernels: folder of compiled kernels that commits of one target share; None for one of each
            measurement's own.
        network: whether the target may reach the network.
        confine: whether the target is kept from other files, processes and the network at all.
        hidden: files and folders that the target may not read, beside those of the cache.
        python: the target's interpreter; None for our own, which is the judge's in any case.
    """

    request: Request
    cache_folder: str
    benchmarks: tuple[BenchmarkSet, ...]
    timeout_s: float
    memory_limit_gib: float | None = None
    first: int
    checkout: str
    adapter: str
    adapter_paths: tuple[str, ...]
    package: str | None
    protocol: Protocol
    weights_digest: str
    checkpoint: str
    regression: str
    torch_home: str
    warm: bool
    reuse: str | None
    probes: bool
    keep_embeddings: bool = False
    num_threads: int
    kernels: str | None = None
    network: bool = False
    confine: bool = True
    hidden: tuple[str, ...] = ()
    python: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """So many sequences of a benchmark set (by its index in the job) are done."""

    benchmark: int
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NearingEnd:
    """A benchmark set (by its index in the job) needs its place no longer than a next model loads.

    It may be said again.
    """

    benchmark: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The answer to a `PrepareJob`.

    Attributes:
        environment: without its packages, which depend on what a commit imports.
        installed: version by name of each distribution that the interpreter has.
    """

    weights_digest: str
    checkpoint: str
    regression: str
    torch_home: str
    environment: Environment
    installed: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The answer to a `DescribeJob`; see `Ready` for the attributes."""

    environment: Environment
    installed: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A `PrepareJob` that cannot be done: the name of an error of `errors`, and its sentence."""

    error: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdict on one benchmark set (by its index in the job).

    Attributes:
        packages: names of the distributions that the worker had imported modules of.
    """

    benchmark: int
    backend: str
    verdict: Verdict
    packages: tuple[str, ...] = ()
    started_at: datetime
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What went wrong on one benchmark set; the worker ends after it.

    Attributes:
        ours: the monitor or the machine failed, not the target.
        packages: as in `Judged`.
    """

    benchmark: int
    failure: Failure
    ours: bool = False
    packages: tuple[str, ...] = ()
    started_at: datetime
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The last event of every job, said by the process that watches the worker.

    Attributes:
        cause: "exit", "signal", "timeout", "memory", "cancelled", "garbage" (a line too long) or
            "lost" (the watching process itself has gone).
        code: exit status or signal number.
        log: what the worker printed, cut in the middle where long.
        detail: one sentence more on the cause, or nothing.
    """

    cause: str
    code: int
    log: str
    detail: str = ""


Job = PrepareJob | DescribeJob | MeasureJob
Said = Advanced | NearingEnd | Ready | Described | Refused | Judged | Failed
"""What a worker may say by itself."""

_JOBS: dict[str, type[Job]] = {
    "prepare": PrepareJob,
    "describe": DescribeJob,
    "measure": MeasureJob,
}
_SAID: dict[str, type[Said]] = {
    "advanced": Advanced,
    "nearing_end": NearingEnd,
    "ready": Ready,
    "described": Described,
    "refused": Refused,
    "judged": Judged,
    "failed": Failed,
}
_NAMES = {kind: name for name, kind in {**_JOBS, **_SAID, "ended": Ended}.items()}


def encode(message: Job | Said | Ended) -> bytes:
    """One line, without its end.

    Raises:
        ValueError: a number is not finite.
    """
    fields = to_json(message)
    return json.dumps({"kind": _NAMES[type(message)], **fields}, allow_nan=False).encode()


def decode_job(line: bytes) -> Job:
    """Raises: MessageError."""
    job: Job = _decode(line, _JOBS)
    return job


def decode_said(line: bytes) -> Said:
    """What a worker said.

    Raises:
        MessageError: it is no message; one sentence on what is wrong with it.
    """
    said: Said = _decode(line, _SAID)
    _check(said)
    return said


def decode_ended(line: bytes) -> Ended:
    """Raises: MessageError."""
    ended: Ended = _decode(line, {"ended": Ended})
    return ended


def is_verdict(line: bytes) -> bool:
    """Whether a worker's line looks like a verdict, without reading it."""
    return line.startswith(b'{"kind": "judged"')


def _decode(line: bytes, kinds: dict[str, Any]) -> Any:
    content = parse_json(line)
    name = content.pop("kind", None) if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in kinds:
        raise MessageError("A line is no message: it names no kind that is known.")
    try:
        return from_json(kinds[name], content)
    except RecordError as error:
        raise MessageError(f"A message is not as agreed: {error}") from None


def parse_json(line: bytes) -> Any:
    """JSON whose numbers are finite and not too large.

    Raises:
        MessageError: it is not that.
    """
    if len(line) > MAX_MESSAGE_BYTES:
        raise MessageError(f"A line of {len(line)} bytes is longer than any message.")
    try:
        return json.loads(
            line, parse_float=_finite, parse_int=_bounded, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _BadNumber) else "it is not JSON"
        raise MessageError(f"A line is no message: {reason}.") from None


class _BadNumber(ValueError):
    pass


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _BadNumber("it holds a number that is not finite")
    return value


def _bounded(text: str) -> int:
    if len(text) > 20:
        raise _BadNumber("it holds a number that is too large")
    return int(text)


def _refuse_constant(name: str) -> float:
    raise _BadNumber(f"it holds {name}")


def _check(said: Said) -> None:
    """Ranges that the types don't tell."""
    if isinstance(said, Advanced):
        _expect(0 <= said.done <= said.total, "progress beyond its end")
    elif isinstance(said, (Judged, Failed)):
        _expect(said.started_at.tzinfo is not None, "a time without its zone")
        _expect(0 <= said.duration_s <= MAX_DURATION_S, "a duration that cannot be")
    if isinstance(said, (Advanced, NearingEnd, Judged, Failed)):
        _expect(said.benchmark >= 0, "a benchmark set that was not asked for")
    if isinstance(said, Judged):
        _expect(0 < len(said.backend) <= MAX_NAME_CHARACTERS, "a backend without a usable name")
    if isinstance(said, Failed):
        texts = (said.failure.kind, said.failure.message, said.failure.traceback, said.failure.log)
        _expect(max(map(len, texts)) <= MAX_TEXT_CHARACTERS, "a failure that is too long")
        _expect(0 < len(said.failure.kind) <= MAX_NAME_CHARACTERS, "a failure without its kind")


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise MessageError(f"A message holds {what}.")
