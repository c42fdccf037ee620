"""Do jobs on a Dask cluster as `client.WorkerPool` does them on this host."""

import dataclasses
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from virnucpro_monitor.errors import ClusterError, ConfigurationError
from virnucpro_monitor.records.messages import (
    Advanced,
    DescribeJob,
    Ended,
    Job,
    MessageError,
    PrepareJob,
    Ready,
    Refused,
    Said,
    decode_ended,
    decode_said,
)
from virnucpro_monitor.runner.client import Accept
from virnucpro_monitor.runner.cluster import POLL_S, Cluster
from virnucpro_monitor.runner.endings import last_line

LOST_S = 30.0  # without a scheduler, before the start is given up
LOOK_S = 5.0  # between looks at whether any of its workers is left


class ClusterPool:
    """Does jobs on a cluster as `WorkerPool` does them on this host."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._closed = threading.Event()

    def close(self) -> None:
        """End all jobs."""
        self._closed.set()

    def run(self, job: Job, accept: Accept | None = None) -> Generator[Said | Ended]:
        """As `WorkerPool.run`; a `PrepareJob` is done by every Dask worker.

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
        future = self._cluster.submit(job)
        try:
            yield from self._follow(future, accept)
        finally:
            self._cluster.forget(future)

    def _prepare(self, job: PrepareJob) -> Generator[Said | Ended]:
        """Prepare each Dask worker; those unlike the first are left out."""
        cluster = self._cluster
        futures = {address: cluster.submit(job, address) for address in cluster.places}
        first: Ready | None = None
        last: list[Said | Ended] = []
        for address, future in futures.items():
            events: list[Said | Ended] = []
            try:
                for event in self._follow(future, None):
                    if isinstance(event, Advanced):
                        yield event
                    else:
                        events.append(event)
            finally:
                cluster.forget(future)
            ready = next((event for event in events if isinstance(event, Ready)), None)
            last = events
            if ready is None:
                cluster.leave_out(address, _why(events))
            elif first is not None and (why := _unlike(first, ready)):
                cluster.leave_out(address, why)
            else:
                cluster.use(address, ready)
                if first is None:
                    first = ready
        if first is None:
            yield from last
        else:
            # Which host it will be is open, and alike ones give the same.
            somewhere = replace(first.environment, host=cluster.name)
            yield replace(first, environment=somewhere)
            yield Ended(cause="exit", code=0, log="")

    def _follow(self, future: Any, accept: Accept | None) -> Generator[Said | Ended]:
        without_s, last_look, looks_in_vain = 0.0, time.monotonic(), 0
        while not future.done():
            if self._closed.is_set():
                yield Ended(cause="cancelled", code=0, log="")
                return
            progress = self._cluster.next_progress(future.key)
            if progress is not None:
                yield progress
                continue
            away = self._cluster.client.status != "running"
            without_s = without_s + POLL_S if away else 0.0
            if without_s > LOST_S:
                break
            if not away and time.monotonic() - last_look > LOOK_S:
                last_look = time.monotonic()
                looks_in_vain = 0 if self._cluster.is_any_left() else looks_in_vain + 1
                if looks_in_vain > 1:
                    raise ClusterError(
                        f"No worker of the {self._cluster.name} is left that was there when this "
                        f"start began: what was measured is stored, and the same command goes on "
                        f"from there with the workers of then."
                    )
        if future.status in ("cancelled", "lost", "pending"):
            raise ClusterError(
                "The Dask scheduler has gone: what was measured is stored, and the same command "
                "goes on from there."
            )
        try:
            lines: list[bytes] = future.result()
        except Exception as error:  # of Dask's own: its worker was lost, or could not begin
            yield Ended(cause="lost", code=0, log=f"{type(error).__name__}: {error}")
            return
        yield from _checked(lines, accept)


def _checked(lines: Sequence[bytes], accept: Accept | None) -> Generator[Said | Ended]:
    ended = decode_ended(lines[-1])
    try:
        for line in lines[:-1]:
            said = decode_said(line)
            if accept is not None:
                accept(said)
            yield said
    except MessageError as error:
        ended = replace(ended, cause="garbage", detail=str(error))
    yield ended


def _why(events: Sequence[Said | Ended]) -> str:
    for event in events:
        if isinstance(event, Refused):
            return event.message.rstrip(".")
    ended = next((event for event in events if isinstance(event, Ended)), None)
    return (last_line(ended.log) if ended else "") or "it did not get ready"


def _unlike(first: Ready, other: Ready) -> str:
    """What is different there that changes results; nothing for two that are alike."""
    if first.weights_digest != other.weights_digest:
        return "its weights are not those of the others"
    here, there = first.environment, other.environment
    facts = {
        field.name: (getattr(here, field.name), getattr(there, field.name))
        for field in dataclasses.fields(here)
        if field.name not in ("host", "packages", "parts")
    }
    parts, other_parts = here.parts or {}, there.parts or {}
    facts |= {name: (parts.get(name), other_parts.get(name)) for name in {*parts, *other_parts}}
    for name, (one, another) in facts.items():
        if one != another:
            return f"its {name} is {another}, not {one} as elsewhere"
    return ""
