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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask.config
import distributed

from virnucpro_monitor.disks import sha256_of
from virnucpro_monitor.records import Failure
from virnucpro_monitor.records.messages import (
    Advanced,
    Ended,
    Failed,
    Job,
    Judged,
    MeasureJob,
    NearingEnd,
    Ready,
    Said,
    decode_job,
    encode,
)
from virnucpro_monitor.runner.adapter_names import SHIPPED, parse_adapter
from virnucpro_monitor.runner.blame import CARD_GONE, Blame
from virnucpro_monitor.runner.builtin import source_digest
from virnucpro_monitor.runner.capacity import (
    gpu_room,
    has_room_beside,
    needed_gpu_bytes,
)
from virnucpro_monitor.runner.cards import cpu_utilisation
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_files import unpack_checkout
from virnucpro_monitor.runner.cluster_tenure import is_wanted, leave_thread, tenure_of
from virnucpro_monitor.runner.endings import explain
from virnucpro_monitor.runner.gpu import Glances, find_gpu
from virnucpro_monitor.runner.plan import MEASURED_AT_ONCE
from virnucpro_monitor.scratch import scratch_folder, sweep
from virnucpro_monitor.settings import Settings

MAX_STARTS = 2  # of one job; Dask itself would start one that takes its worker down four times
LOOK_S = 0.5
USE = "virnucpro-monitor"  # the name of what a Dask worker tells its scheduler of its use
CONFIRM_S = 5.0
_SENT_PREFIX = "virnucpro-monitor-sent-"

_told: set[str] = set()  # the cards that NVML has told of here
_pools: dict[tuple[bool | None, str], WorkerPool] = {}
_lock = threading.Lock()
_glance = Glances()
"""At a card for one who is to stand by. NVML waits while other processes start CUDA, and Dask's own
worker with it; who has just begun has taken no memory yet, so that another look tells no more."""


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

    def with_weights(self, told: Ready | MeasureJob) -> "Paths":
        """The same, with where the weights are."""
        return replace(
            self,
            checkpoint=told.checkpoint,
            regression=told.regression,
            torch_home=told.torch_home,
        )


def look_around(token: str, fork: bool | None) -> Place:
    """Describe this Dask worker, and have its fork server import what it needs meanwhile.

    Args:
        token: a file of the caller's cache folder.
    """
    _pool(fork).start()
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


def room_for(device: str, checkpoint: str) -> int:
    """How many commits this place has memory for at once."""
    if not device.startswith("cuda"):
        return MEASURED_AT_ONCE
    gpu = find_gpu(device)
    if gpu is not None:
        _told.add(device)
    return gpu_room(gpu, needed_gpu_bytes(Path(checkpoint)))


def hold_job(line: bytes, paths: Paths, place: str, fork: bool | None, ships: bool) -> bool:
    """Have a job's processes stand by here, and say whether they do; see `WorkerPool.hold`.

    Args:
        place: the tenure that they stand by in.
        ships: whether the commit's files will come with its task.
    """
    job = _here(decode_job(line), paths)
    tenure = tenure_of(place)
    if not isinstance(job, MeasureJob) or tenure is None:
        return False
    device, checkpoint = paths.device, Path(job.checkpoint)
    if device.startswith("cuda") and not has_room_beside(_glance(device), checkpoint):
        return False
    pool = _pool(fork, job)
    with ExitStack() as stack:
        folder = job.checkout
        if ships:
            folder = stack.enter_context(_temporary())
        pool.hold(replace(job, checkout=folder))
        stack.callback(pool.drop, folder)
        tenure.seats[job.checkout] = folder, stack.pop_all()
    if tenure.over.is_set():  # meanwhile: it may have looked for what stands by already
        tenure.take_seat(job.checkout)[1].close()
    return pool.num_held(device) > 0


def drop_job(checkout: str, place: str) -> None:
    """End what stands by in a tenure for a commit in the start's folder `checkout`."""
    tenure = tenure_of(place)
    if tenure is not None:
        tenure.take_seat(checkout)[1].close()


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
    paths: Paths,
    checkout: bytes | None,
    topic: str,
    fork: bool | None,
    name: str,
    place: str,
) -> list[bytes]:
    """Do one job here; its events but progress come back, each as its line, `Ended` last.

    Nothing comes back, and nothing is done, where this place is not the start's, or no longer.

    Args:
        line: the job.
        checkout: the commit's files as a tar; None where the job's folder is seen here.
        topic: where progress is told, and that the job has begun.
        name: under which its beginnings are counted.
        place: the tenure that it is to begin in.
    """
    worker = distributed.get_worker()
    key = str(worker.get_current_task())
    tenure = tenure_of(place)
    if tenure is None:
        return []
    tenure.running.add(key)
    try:
        if tenure.over.is_set():  # meanwhile: it may have looked for what runs already
            return []
        if _times_begun(worker, topic, name) > MAX_STARTS:
            detail = f"Its worker was lost {MAX_STARTS} times."
            return [encode(Ended(cause="lost", code=0, log="", detail=detail))]
        worker.metrics[USE] = lambda _: look_at_use(paths.device)  # goes with the worker's beats
        job = _here(decode_job(line), paths)
        with ExitStack() as stack:
            if isinstance(job, MeasureJob):
                seat, standing_by = tenure.take_seat(job.checkout)
                stack.push(standing_by)
                if checkout is not None:
                    folder = seat or stack.enter_context(_temporary())
                    unpack_checkout(checkout, Path(folder))
                    job = replace(job, checkout=folder)
            return list(_events(job, _pool(fork, job), worker, topic, key))
    finally:
        tenure.running.discard(key)


def _events(job: Job, pool: WorkerPool, worker: Any, topic: str, key: str) -> Iterator[bytes]:
    over, cancel = threading.Event(), threading.Event()

    def watch() -> None:  # whoever asked may turn away, or be killed
        while not over.wait(LOOK_S):
            if not is_wanted(worker, key):
                cancel.set()
                return

    threading.Thread(target=watch, daemon=True).start()
    seceded = False
    try:
        with closing(pool.run(job, cancel=cancel)) as events:
            for event in _blamed(job, events):
                nearing_end = _nearing_end(job, event)
                if nearing_end is not None:
                    if not seceded:
                        seceded = True
                        leave_thread()  # the next commit may begin now
                    worker.log_event(topic, (key, encode(nearing_end)))
                if isinstance(event, Advanced):
                    worker.log_event(topic, (key, encode(event)))
                elif not isinstance(event, NearingEnd):
                    yield encode(event)
    finally:
        over.set()


def _blamed(job: Job, events: Iterable[Said | Ended]) -> Iterator[Said | Ended]:
    """A job's events, in which a failure has the name of this host's card, and is its own or not.

    Only here can the card be looked at; an end that was its doing becomes a failure that says so.
    """
    if not isinstance(job, MeasureJob) or not job.request.device.startswith("cuda"):
        yield from events
        return
    device = job.request.device
    told = device in _told
    blame = Blame(device, Path(job.checkpoint), told=told, host=socket.gethostname())
    index, began, start = job.first, datetime.now(UTC), time.monotonic()
    for event in events:
        if isinstance(event, Failed):
            event = blame.of(event)
        elif isinstance(event, Ended) and index < len(job.benchmarks):
            cause = blame.of_end(explain(event, job.timeout_s, job.memory_limit_gib))
            if cause.kind == CARD_GONE:
                yield Failed(
                    benchmark=index,
                    failure=Failure(kind=cause.kind, message=cause.message),
                    ours=True,
                    started_at=began,
                    duration_s=time.monotonic() - start,
                )
        if isinstance(event, Judged | Failed):
            index = event.benchmark + 1 if isinstance(event, Judged) else len(job.benchmarks)
            began, start = datetime.now(UTC), time.monotonic()
        yield event


def _nearing_end(job: Job, event: Said | Ended) -> NearingEnd | None:
    """What to tell at once where little is left of a commit on a card; see `dispatch.measure`."""
    if not isinstance(job, MeasureJob) or not job.request.device.startswith("cuda"):
        return None
    if isinstance(event, NearingEnd | Judged | Failed):
        last = event.benchmark == len(job.benchmarks) - 1
        return NearingEnd(benchmark=event.benchmark) if last else None
    return None


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
def _temporary() -> Iterator[str]:
    """A folder for a commit's files; what Dask workers that were killed have left goes first."""
    parent = Path(tempfile.gettempdir())
    sweep(parent, _SENT_PREFIX)
    with scratch_folder(parent, _SENT_PREFIX) as folder:
        folder.mkdir(mode=0o700)
        yield str(folder)


@atexit.register
def end_pools() -> None:
    """End this process's fork servers."""
    with _lock:
        while _pools:
            _pools.popitem()[1].close()


def _pool(fork: bool | None, job: Job | None = None) -> WorkerPool:
    """This process's fork server, started once; releases have one of their own.

    What it imports for releases (`load_for`) would be told of another target's runs, too.
    """
    key = fork, ""
    if isinstance(job, MeasureJob) and job.python is not None:
        shipped = SHIPPED.get(parse_adapter(job.adapter).name)
        key = fork, job.adapter if shipped is not None and shipped.loads else ""
    with _lock:
        if key not in _pools:
            _pools[key] = WorkerPool(fork=fork, without=_set_by_dask())
        return _pools[key]


def _set_by_dask() -> list[str]:
    """The variables that Dask's nanny set for this process, as for all of its workers.

    What measures has the surroundings that it has on one host: one OpenMP thread would be another
    count than ours, and a heap that gives back all above 64 KiB takes each larger buffer anew.
    """
    try:
        nanny = distributed.get_worker().nanny
    except ValueError:  # asked outside of a worker
        nanny = None
    given = dask.config.get("distributed.nanny.pre-spawn-environ", {}) if nanny else {}
    return [name for name, value in given.items() if os.environ.get(name) == str(value)]
