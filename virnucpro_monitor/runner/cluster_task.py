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
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask.config
import distributed

from virnucpro_monitor.disks import sha256_of
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
from virnucpro_monitor.runner.builtin import source_digest
from virnucpro_monitor.runner.capacity import (
    gpu_room,
    has_room_beside,
    needed_gpu_bytes,
)
from virnucpro_monitor.runner.cards import cpu_utilisation
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_files import unpack_checkout
from virnucpro_monitor.runner.gpu import find_gpu
from virnucpro_monitor.runner.plan import MEASURED_AT_ONCE
from virnucpro_monitor.scratch import scratch_folder, sweep
from virnucpro_monitor.settings import Settings

MAX_STARTS = 2  # of one job; Dask itself would start one that takes its worker down four times
LOOK_S = 0.5
USE = "virnucpro-monitor"  # the name of what a Dask worker tells its scheduler of its use
CONFIRM_S = 5.0
RESOURCE = "GPU"
LEASED, WANTED = "leased", "wanted"  # what a lease tells the start that asked for it
TENURE_S = 60.0  # of a lease, before it gives way to somebody else's task: it costs a cold start
YIELD_S = 0.2
_SENT_PREFIX = "virnucpro-monitor-sent-"

_pools: dict[tuple[bool | None, str], WorkerPool] = {}
_lock = threading.Lock()
_num_running: Counter[str] = Counter()  # jobs, by their start's topic
# Of each start that has this place, likewise: by its own folder the one here, and its end.
_seats: dict[str, dict[str, tuple[str, ExitStack]]] = {}
_over: dict[str, threading.Event] = {}  # likewise: set once it needs this place no longer


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
    return gpu_room(find_gpu(device), needed_gpu_bytes(Path(checkpoint)))


def hold_place(topic: str) -> None:
    """Keep this Dask worker for one start, by the resource of this task, until `leave_place`.

    What runs here for that start needs no resource of its own, so that others' tasks that ask for
    one never run beside it. Once they have waited long enough the start is told, to give way.
    """
    worker = distributed.get_worker()
    key = str(worker.get_current_task())
    _leave_thread()
    _seats[topic], over = {}, threading.Event()
    _over[topic] = over
    worker.log_event(topic, (key, LEASED))
    begun, told = time.monotonic(), False
    try:
        while not over.wait(YIELD_S) and _is_wanted(worker, key):
            if not told and time.monotonic() - begun > TENURE_S and _others_wait(worker):
                worker.log_event(topic, (key, WANTED))
                told = True
    finally:
        del _over[topic]
        for _, stack in _seats.pop(topic).values():
            stack.close()
        end = time.monotonic() + CONFIRM_S
        while _num_running[topic] and time.monotonic() < end:
            time.sleep(YIELD_S)


def leave_place(topic: str) -> None:
    """End this place's lease of a start."""
    if (over := _over.get(topic)) is not None:
        over.set()


def _leave_thread() -> None:
    """Let the Dask worker begin another task beside this one."""
    distributed.secede()  # type: ignore[no-untyped-call]


def _is_wanted(worker: Any, key: str) -> bool:
    """Whether whoever asked for a task still does."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state in ("executing", "long-running")


def _others_wait(worker: Any) -> bool:
    """Whether a task lies here that waits for the resource which a lease holds."""
    with suppress(RuntimeError):  # changed meanwhile, by the worker's own thread
        waiting = list(worker.state.constrained)
        return any(RESOURCE in (task.resource_restrictions or ()) for task in waiting)
    return False


def hold_job(line: bytes, paths: Paths, topic: str, fork: bool | None, ships: bool) -> bool:
    """Have a job's processes stand by here, and say whether they do; see `WorkerPool.hold`.

    Args:
        ships: whether the commit's files will come with its task.
    """
    job = _here(decode_job(line), paths)
    if not isinstance(job, MeasureJob) or topic not in _seats:
        return False
    device, checkpoint = paths.device, Path(job.checkpoint)
    if device.startswith("cuda") and not has_room_beside(find_gpu(device), checkpoint):
        return False
    pool = _pool(fork, job)
    with ExitStack() as stack:
        folder = job.checkout
        if ships:
            folder = stack.enter_context(_temporary())
        pool.hold(replace(job, checkout=folder))
        stack.callback(pool.drop, folder)
        _seats[topic][job.checkout] = folder, stack.pop_all()
    return pool.num_held(device) > 0


def drop_job(checkout: str, topic: str) -> None:
    """End what stands by for a commit in the start's folder `checkout`."""
    _, stack = _seats.get(topic, {}).pop(checkout, ("", ExitStack()))
    stack.close()


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
) -> list[bytes]:
    """Do one job here; its events but progress come back, each as its line, `Ended` last.

    Args:
        line: the job.
        checkout: the commit's files as a tar; None where the job's folder is seen here.
        topic: where progress is told, and that the job has begun.
        name: under which its beginnings are counted.
    """
    worker = distributed.get_worker()
    key = str(worker.get_current_task())
    if _times_begun(worker, topic, name) > MAX_STARTS:
        detail = f"Its worker was lost {MAX_STARTS} times."
        return [encode(Ended(cause="lost", code=0, log="", detail=detail))]
    worker.metrics[USE] = lambda _: look_at_use(paths.device)  # goes with the worker's own beats
    job = _here(decode_job(line), paths)
    _num_running[topic] += 1
    try:
        with ExitStack() as stack:
            if isinstance(job, MeasureJob):
                seat, standing_by = _seats.get(topic, {}).pop(job.checkout, ("", ExitStack()))
                stack.push(standing_by)
                if checkout is not None:
                    folder = seat or stack.enter_context(_temporary())
                    unpack_checkout(checkout, Path(folder))
                    job = replace(job, checkout=folder)
            return list(_events(job, _pool(fork, job), worker, topic, key))
    finally:
        _num_running[topic] -= 1


def _events(job: Job, pool: WorkerPool, worker: Any, topic: str, key: str) -> Iterator[bytes]:
    over, cancel = threading.Event(), threading.Event()

    def watch() -> None:  # whoever asked may turn away, or be killed
        while not over.wait(LOOK_S):
            if not _is_wanted(worker, key):
                cancel.set()
                return

    threading.Thread(target=watch, daemon=True).start()
    seceded = False
    try:
        with closing(pool.run(job, cancel=cancel)) as events:
            for event in events:
                nearing_end = _nearing_end(job, event)
                if nearing_end is not None:
                    if not seceded:
                        seceded = True
                        _leave_thread()  # the next commit may begin now
                    worker.log_event(topic, (key, encode(nearing_end)))
                if isinstance(event, Advanced):
                    worker.log_event(topic, (key, encode(event)))
                elif not isinstance(event, NearingEnd):
                    yield encode(event)
    finally:
        over.set()


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
