"""Do jobs on a Dask cluster as `client.WorkerPool` does them on this host."""

import dataclasses
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from virnucpro_monitor.errors import ClusterError, ConfigurationError
from virnucpro_monitor.records.messages import (
    Advanced,
    DescribeJob,
    Ended,
    Failed,
    Job,
    MeasureJob,
    MessageError,
    PrepareJob,
    Ready,
    Refused,
    Said,
    decode_ended,
    decode_said,
)
from virnucpro_monitor.runner.blame import CARD_GONE
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.client import Accept
from virnucpro_monitor.runner.cluster import POLL_S, Cluster
from virnucpro_monitor.runner.endings import in_words, last_line

LOST_S = 30.0  # without a word of the scheduler, or any worker, before the start is given up
LOOK_S = 5.0  # between looks at which of its workers are left, and which have joined
OTHERS_S = 10.0  # for all workers to be free, before a start begins with those that are
BRIEFLY_S = 0.02
_SPOILT = {CARD_GONE: "its card has gone", "weights": "its weights have changed"}
END_S = 5.0  # for looking at those that join, once the start is over


class ClusterPool:
    """Does jobs on a cluster as `WorkerPool` does them on this host.

    Once the yardstick is set up, Dask workers that join the cluster are looked at as the first ones
    were, and measure from then on: a batch system starts its jobs when it has room.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._closed = threading.Event()
        self._first: Ready | None = None
        self._names: dict[
            str, str
        ] = {}  # of what has begun to prepare a Dask worker, and not ended
        self._welcoming = threading.Event()
        self._doorman: threading.Thread | None = None

    def close(self) -> None:
        """End all jobs."""
        self._closed.set()
        if self._doorman is not None:
            self._doorman.join(timeout=END_S)

    def run(
        self, job: Job, accept: Accept | None = None, *, at: str = ""
    ) -> Generator[Said | Ended]:
        """As `WorkerPool.run`; a `PrepareJob` is done by every Dask worker.

        Args:
            at: the Dask worker that is to do it, as long as it is there; empty for any.

        Raises:
            ClusterError: the scheduler has gone, or no Dask worker is left.
            ConfigurationError: another interpreter than our own lies in no folder that all share.
        """
        if isinstance(job, DescribeJob) and not self._cluster.shares_folder:
            raise ConfigurationError(
                "A target's private environment must lie where every worker of the cluster sees "
                "it: put the cache folder (cache_dir) on a disk that all hosts share."
            )
        if isinstance(job, PrepareJob):
            yield from self._prepare(job)
            return
        name = ""
        while True:
            place = self._await_place(at)
            if place is None:
                yield Ended(cause="cancelled", code=0, log="")
                return
            future = self._cluster.submit(job, place, name=name)
            name = name or future.key
            try:
                ended = yield from self._follow(future, self._watching(place, accept))
            finally:
                self._cluster.forget(future)
            if ended is not None:
                yield ended
                return

    def _watching(self, place: str, accept: Accept | None) -> Accept:
        """The same check of what is said, which leaves a Dask worker out that can measure no more.

        It would fail each commit at once, and so be given all that wait.
        """

        def check(said: Said) -> None:
            if accept is not None:
                accept(said)
            why = _SPOILT.get(said.failure.kind) if isinstance(said, Failed) and said.ours else None
            if why is not None and place in self._cluster.places:
                self._cluster.leave_out(place, why)

        return check

    def hold(self, job: MeasureJob, at: str) -> None:
        """As `WorkerPool.hold`, at a Dask worker."""
        self._cluster.hold(job, at)

    def drop(self, checkout: str) -> None:
        """As `WorkerPool.drop`."""
        if not self._closed.is_set():  # else all of it ends with the leases
            self._cluster.drop(checkout)

    def num_held(self, at: str) -> int:
        """How many jobs are held at a Dask worker."""
        return self._cluster.num_held(at)

    def _await_place(self, at: str) -> str | None:
        """Wait for a Dask worker that a job may begin at; None once this pool is closed."""
        vigil = _Vigil(self._cluster, self._welcoming)
        while not self._closed.is_set():
            place = self._cluster.open_place(at)
            if place is not None:
                return place
            vigil.look()
            self._closed.wait(POLL_S)
        return None

    def _prepare(self, job: PrepareJob) -> Generator[Said | Ended]:
        """Prepare each Dask worker that can be had; those unlike most of them are left out."""
        last: list[Said | Ended] = []
        while not last and not self._closed.is_set():
            last = yield from self._prepare_each(job, self._await_places())
        if self._first is None:
            yield from last or [Ended(cause="cancelled", code=0, log="")]
            return
        # Which host it will be is open, and alike ones give the same.
        somewhere = replace(self._first.environment, host=self._cluster.name)
        yield replace(self._first, environment=somewhere)
        yield Ended(cause="exit", code=0, log="")
        if self._doorman is None:
            self._doorman = threading.Thread(target=self._welcome, args=(job,), daemon=True)
            self._doorman.start()

    def share_ahead(self, checkpoint: str) -> dict[Card, int]:
        """Room for commits at those Dask workers that can be had, before they are prepared.

        Args:
            checkpoint: the weights' file, as it was the last time.
        """
        shares: dict[Card, int] = {}
        if self._cluster.shares_folder:
            for address in self._await_places():
                shares |= self._cluster.share_ahead(address, checkpoint)
        return shares

    def _await_places(self) -> list[str]:
        """Wait until the Dask workers are ours: for all of them a while, then for any."""
        cluster, vigil = self._cluster, _Vigil(self._cluster, self._welcoming)
        start, said = time.monotonic(), False
        while not self._closed.is_set():
            ready = cluster.newcomers()
            late = time.monotonic() - start > OTHERS_S
            if ready and (late or len(ready) == cluster.num_awaited):
                return ready
            vigil.look()
            if late and not said:
                said = True
                cluster.say("Waiting for a worker of the cluster: all are in use by others.")
            self._closed.wait(LOOK_S if late else BRIEFLY_S)
        return []

    def _prepare_each(
        self, job: PrepareJob, addresses: Iterable[str]
    ) -> Generator[Said | Ended, None, list[Said | Ended]]:
        """Prepare these Dask workers; yields their progress, returns what the last one said.

        One that let it not begin is a newcomer once more, when it is ours again.
        """
        cluster = self._cluster
        futures = {
            address: cluster.submit(job, address, name=self._names.get(address, ""))
            for address in addresses
        }
        prepared: dict[str, Ready] = {}
        last: list[Said | Ended] = []
        for address, future in futures.items():
            events: list[Said | Ended] = []
            ended = None
            try:
                following = self._follow(future, None)
                while True:
                    try:
                        event = next(following)
                    except StopIteration as stop:
                        ended = stop.value
                        break
                    if isinstance(event, Advanced):
                        yield event
                    else:
                        events.append(event)
            finally:
                cluster.forget(future)
            if ended is None and not cluster.has_left(address):
                self._names.setdefault(address, future.key)  # so that its beginnings are counted
                continue
            self._names.pop(address, None)
            events.append(ended or Ended(cause="lost", code=0, log="it has left the cluster"))
            ready = next((event for event in events if isinstance(event, Ready)), None)
            last = events
            if ready is None:
                cluster.leave_out(address, _why(events))
            else:
                prepared[address] = ready
        if self._first is None and prepared:
            # Of as many of each, always the same ones: their addresses are others in each start.
            self._first = max(
                prepared.values(), key=lambda one: (_num_like(one, prepared), str(_facts(one)))
            )
        for address, ready in prepared.items():
            assert self._first is not None
            if why := _unlike(self._first, ready):
                cluster.leave_out(address, why)
            else:
                cluster.use(address, ready)
        return last

    def _welcome(self, job: PrepareJob) -> None:
        """Let those join that come later, until the start ends."""
        while not self._closed.is_set():
            try:
                self._cluster.tell_hosts()
                joining = self._cluster.newcomers()
                if joining:
                    self._welcoming.set()
                    for _ in self._prepare_each(job, joining):
                        pass
            except Exception:  # the scheduler has gone, which whoever waits for a job says
                pass
            finally:
                self._welcoming.clear()
            self._closed.wait(LOOK_S)

    def _follow(
        self, future: Any, accept: Accept | None
    ) -> Generator[Said | Ended, None, Ended | None]:
        """Yield a job's events but the last, and return that; None where it is to be begun anew."""
        vigil = _Vigil(self._cluster, self._welcoming)
        lines: list[bytes] | None = None
        while lines is None:
            if self._closed.is_set():
                return Ended(cause="cancelled", code=0, log="")
            if not future.done() and (progress := self._cluster.next_progress(future.key)):
                yield progress
            elif future.status == "cancelled":
                raise _gone()
            elif future.status == "lost" and not self._cluster.is_cut_off():
                return None  # it was done, and its worker has gone before the result had come
            elif future.done():
                try:
                    lines = future.result(timeout=LOOK_S)
                except Exception as error:  # of Dask's own: its worker was lost, or could not begin
                    # One whose worker goes before its result has come is done no longer.
                    if not isinstance(error, TimeoutError) or future.status == "error":
                        return Ended(cause="lost", code=0, log=_as_log(error))
            if lines is None and vigil.look() and self._cluster.is_stranded(future):
                return None
        if not lines:
            self._cluster.was_refused(future)
            return None
        return (yield from _checked(lines, accept))


@dataclass(frozen=True, slots=True)
class PlacePool:
    """The pool for jobs at one Dask worker, as long as that is there."""

    pool: ClusterPool
    worker: str

    def run(self, job: Job, accept: Accept | None = None) -> Generator[Said | Ended]:
        """As `ClusterPool.run`."""
        return self.pool.run(job, accept, at=self.worker)

    def hold(self, job: MeasureJob) -> None:
        """As `WorkerPool.hold`; where that worker's card has no room, nothing happens."""
        self.pool.hold(job, self.worker)

    def drop(self, checkout: str) -> None:
        """As `WorkerPool.drop`."""
        self.pool.drop(checkout)

    def num_held(self, _: str) -> int:
        """How many jobs are held there."""
        return self.pool.num_held(self.worker)


class _Vigil:
    """Watches over a wait: the scheduler may go, or all workers may and not come back.

    Args:
        welcoming: set while workers that have just come are looked at.
    """

    def __init__(self, cluster: Cluster, welcoming: threading.Event) -> None:
        self._cluster = cluster
        self._welcoming = welcoming
        self._looked = self._answered = self._seen = time.monotonic()

    def look(self) -> bool:
        """Whether it was time to look, and some worker is there.

        Raises:
            ClusterError: the line to the scheduler has broken, or it has been silent for too long,
                or all workers have been away.
        """
        if self._cluster.is_cut_off():
            raise _gone()
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return False
        self._looked = now
        left = self._cluster.is_any_left()
        if left is None:
            if now - self._answered > LOST_S:
                raise _gone()
            return False
        self._answered = now
        if left or self._welcoming.is_set():
            self._seen = now
        elif now - self._seen > LOST_S:
            raise ClusterError(
                f"No worker of the {self._cluster.name} is left (why, their own logs say): "
                "what was measured is stored, and the same command goes on from there with the "
                "workers of then."
            )
        return left


def _gone() -> ClusterError:
    return ClusterError(
        "The Dask scheduler has gone: what was measured is stored, and the same command "
        "goes on from there."
    )


def _checked(lines: Sequence[bytes], accept: Accept | None) -> Generator[Said | Ended, None, Ended]:
    ended = decode_ended(lines[-1])
    try:
        for line in lines[:-1]:
            said = decode_said(line)
            if accept is not None:
                accept(said)
            yield said
    except MessageError as error:
        ended = replace(ended, cause="garbage", detail=str(error))
    return ended


def _as_log(error: Exception) -> str:
    """An error of Dask's as a process would have left it: what it is stands in the last line."""
    return f"{error}\n{in_words(error)}"


def _why(events: Sequence[Said | Ended]) -> str:
    for event in events:
        if isinstance(event, Refused):
            return event.message.rstrip(".")
    ended = next((event for event in events if isinstance(event, Ended)), None)
    return (last_line(ended.log) if ended else "") or "it did not get ready"


def _num_like(one: Ready, prepared: Mapping[str, Ready]) -> int:
    return sum(not _unlike(one, other) for other in prepared.values())


def _facts(one: Ready) -> dict[str, Any]:
    """What changes results at a Dask worker, in one order everywhere."""
    there = one.environment
    named = {
        field.name: getattr(there, field.name)
        for field in dataclasses.fields(there)
        if field.name not in ("host", "packages", "parts")
    }
    return {"weights": one.weights_digest, **named, **dict(sorted((there.parts or {}).items()))}


def _unlike(first: Ready, other: Ready) -> str:
    """What is different there that changes results; nothing for two that are alike."""
    here, there = _facts(first), _facts(other)
    for name in {**here, **there}:
        one, another = here.get(name), there.get(name)
        if one != another and name == "weights":
            return f"its weights are {another!s:.12}, not {one!s:.12} as elsewhere"
        if one != another:
            return f"its {name} is {another}, not {one} as elsewhere"
    return ""
