"""What runs inside a Dask worker: one job, in a process of its own, contained as on any host.

The Dask worker never imports a target: it keeps a fork server beside it, hands that the job and
sends back what it says. Only plain values cross: lines of `records.messages`, names and numbers.
"""

import atexit
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import distributed

from virnucpro_monitor.disks import sha256_of
from virnucpro_monitor.records.messages import Advanced, Ended, Job, MeasureJob, decode_job, encode
from virnucpro_monitor.runner.builtin import source_digest
from virnucpro_monitor.runner.cards import cpu_utilisation
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_files import unpack_checkout
from virnucpro_monitor.runner.gpu import find_gpu
from virnucpro_monitor.settings import Settings

MAX_STARTS = 2  # of one job; Dask itself would start one that takes its worker down four times
LOOK_S = 0.5
USE = "virnucpro-monitor"  # the name of what a Dask worker tells its scheduler of its use
CONFIRM_S = 5.0

_pools: dict[bool | None, WorkerPool] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One Dask worker as a place to measure at.

    Attributes:
        sources: digest of this package's source there.
        visible: its `CUDA_VISIBLE_DEVICES`; None where that is not set.
        shares: whether it sees the caller's cache folder.
    """

    address: str
    host: str
    sources: str
    visible: str | None
    shares: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where a Dask worker finds what does not depend on the commit.

    Attributes:
        cache_folder: None for the one that the job names, which is shared.
    """

    device: str
    cache_folder: str | None = None
    weights: str | None = None
    checkpoint: str = ""
    regression: str = ""
    torch_home: str = ""


def look_around(token: str) -> Place:
    """Describe this Dask worker.

    Args:
        token: a file of the caller's cache folder.
    """
    return Place(
        address=distributed.get_worker().address,
        host=socket.gethostname(),
        sources=source_digest(),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        shares=Path(token).exists(),
    )


def look_at_use(device: str) -> tuple[str, str, int | None]:
    """How busy this place is: as `records.ClusterHost`, (host, card, utilisation)."""
    gpu = find_gpu(device) if device.startswith("cuda") else None
    if gpu is None:
        return socket.gethostname(), "", cpu_utilisation()
    return socket.gethostname(), gpu.name, gpu.utilisation


def own_cache_folder() -> str:
    """Where this host keeps weights and oracles, if it does not see the caller's."""
    return str(Settings().cache_folder)


def keep_piece(digest: str, name: str, offset: int, data: bytes) -> str:
    """Write a piece of a file that the caller sends, and return the file's path here.

    A digest of all pieces is checked once the last, an empty one, has come.

    Raises:
        OSError: the disk is full, or the pieces are not those of `digest`.
    """
    folder = Path(own_cache_folder()) / "sent" / digest[:16]
    whole, partial = folder / name, folder / f".{name}.{os.getpid()}"
    if whole.exists():
        return str(whole)
    folder.mkdir(parents=True, exist_ok=True)
    if data:
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)
        return ""
    if not partial.exists():
        return ""
    found = sha256_of(partial)
    if found != digest:
        partial.unlink()
        raise OSError(f"{name} arrived damaged: its digest is {found[:12]}, not {digest[:12]}")
    partial.replace(whole)
    return str(whole)


def do_job(
    line: bytes,
    places: dict[str, Paths],
    checkout: bytes | None,
    topic: str,
    fork: bool | None,
    name: str,
) -> list[bytes]:
    """Do one job here; its events but progress come back, each as its line, `Ended` last.

    Args:
        line: the job.
        places: by a Dask worker's address.
        checkout: the commit's files as a tar; None where the job's folder is seen here.
        topic: where progress is told, and that the job has begun.
        name: under which its beginnings are counted.
    """
    worker = distributed.get_worker()
    key = str(worker.get_current_task())
    if _times_begun(worker, topic, name) > MAX_STARTS:
        detail = f"Its worker was lost {MAX_STARTS} times."
        return [encode(Ended(cause="lost", code=0, log="", detail=detail))]
    paths = places[worker.address]
    worker.metrics[USE] = lambda _: look_at_use(paths.device)  # goes with the worker's own beats
    job = _here(decode_job(line), paths)
    with _unpacked(checkout) as folder:
        if folder is not None and isinstance(job, MeasureJob):
            job = replace(job, checkout=folder)
        return list(_events(job, _pool(fork), worker, topic, key))


def _events(job: Job, pool: WorkerPool, worker: Any, topic: str, key: str) -> Iterator[bytes]:
    over, cancel = threading.Event(), threading.Event()

    def watch() -> None:  # whoever asked may turn away, or be killed
        while not over.wait(LOOK_S):
            task = worker.state.tasks.get(key)
            if task is None or task.state not in ("executing", "long-running"):
                cancel.set()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        with closing(pool.run(job, cancel=cancel)) as events:
            for event in events:
                if isinstance(event, Advanced):
                    told = (key, event.benchmark, event.done, event.total)
                    worker.log_event(topic, told)
                else:
                    yield encode(event)
    finally:
        over.set()


def _times_begun(worker: Any, topic: str, name: str) -> int:
    """Note that a job begins, and count how often it has; the scheduler remembers."""
    begun = f"{topic}-begun"
    client = distributed.get_client()
    before = _count(client, begun, name)
    worker.log_event(begun, name)
    end = time.monotonic() + CONFIRM_S
    while (times := _count(client, begun, name)) == before and time.monotonic() < end:
        time.sleep(0.01)  # a job that ends its worker at once must have been counted
    return times


def _count(client: Any, begun: str, name: str) -> int:
    return sum(one == name for _, one in client.get_events(begun) or ())


def _here(job: Job, paths: Paths) -> Job:
    """The job with this host's own places."""
    request = replace(job.request, device=paths.device)
    if paths.weights is not None:
        request = replace(request, weights=paths.weights)
    theirs = job.cache_folder
    job = replace(job, request=request, cache_folder=paths.cache_folder or theirs)
    if not isinstance(job, MeasureJob):
        return job
    reuse = job.reuse
    if reuse is not None:
        reuse = str(Path(job.cache_folder) / Path(reuse).relative_to(theirs))
    return replace(
        job,
        checkpoint=paths.checkpoint,
        regression=paths.regression,
        torch_home=paths.torch_home,
        reuse=reuse,
    )


@contextmanager
def _unpacked(content: bytes | None) -> Iterator[str | None]:
    if content is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="virnucpro-monitor-") as folder:
        unpack_checkout(content, Path(folder))
        yield folder


@atexit.register
def end_pools() -> None:
    """End this process's fork servers."""
    with _lock:
        while _pools:
            _pools.popitem()[1].close()


def _pool(fork: bool | None) -> WorkerPool:
    """This process's fork server, started once."""
    with _lock:
        if fork not in _pools:
            _pools[fork] = WorkerPool(fork=fork)
        return _pools[fork]
