"""Leases: what keeps a Dask worker, and the card behind it, for one start at a time.

A lease is a task that holds the worker's resource (`GPU=1`) and takes no thread. What the start
measures there asks for no resource of its own: several commits share the card, and more stand by on
it, while no task that asks for a card runs beside them, whoever sent it.
"""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from virnucpro_monitor.runner.cluster_calls import call_at

END_S = 2.0  # for what stands by at a worker to end
POLL_S = 0.01


@dataclass(slots=True)
class _Lease:
    key: str
    future: Any = None  # not yet, while it is asked for
    said: str = ""  # by the worker, last


class Leases:
    """The leases of one start.

    Args:
        client: of Dask.
        task: the module of what runs in Dask workers.
        topic: where they speak to this start.
        resources: that a lease holds.
    """

    def __init__(
        self, client: Any, task: Any, topic: str, resources: Mapping[str, float] | None
    ) -> None:
        self._client = client
        self._task = task
        self._topic = topic
        self._resources = resources
        self._leases: dict[str, _Lease] = {}

    def ask(self, address: str) -> None:
        """Ask for a Dask worker, behind whoever has asked before; for each once."""
        if address not in self._leases:
            # Known before it is asked for: a worker that is free says at once that it is ours.
            lease = _Lease(f"virnucpro-monitor-place-{uuid.uuid4().hex}")
            self._leases[address] = lease
            try:
                lease.future = self._client.submit(
                    self._task.hold_place,
                    self._topic,
                    key=lease.key,
                    pure=False,
                    retries=0,
                    workers=[address],
                    resources=self._resources,
                )
            except BaseException:
                self._leases.pop(address, None)
                raise

    def take(self, key: str, said: str) -> str | None:
        """Take what a lease says; the worker that has become ours by that, if one has."""
        for address, lease in list(self._leases.items()):
            if lease.key == key:
                lease.said = said
                return address if said == self._task.LEASED else None
        return None

    def is_open(self, address: str) -> bool:
        """Whether work may begin at a Dask worker: it is ours, and nobody else waits for it."""
        lease = self._leases.get(address)
        return lease is not None and lease.said == self._task.LEASED

    def tend(self, present: Collection[str], is_busy: Callable[[str], bool]) -> None:
        """Forget workers that have left; let those go that others wait for, and ask anew."""
        for address, lease in list(self._leases.items()):
            if address not in present:
                del self._leases[address]
                _cancel(lease)
            elif _is_done(lease) or (lease.said == self._task.WANTED and not is_busy(address)):
                self.end(address)
                self.ask(address)

    def end(self, address: str) -> None:
        """Let a Dask worker go, and what stands by there."""
        if address in self._leases:
            self._end([address])

    def close(self) -> None:
        """Let all go, and wait until they have."""
        self._end(list(self._leases))

    def _end(self, addresses: Sequence[str]) -> None:
        leases = [self._leases.pop(address) for address in addresses]
        call_at(self._client, addresses, self._task.leave_place, self._topic)
        end = time.monotonic() + END_S
        while any(one.said and not _is_done(one) for one in leases):
            if self._client.status != "running" or time.monotonic() > end:
                break
            time.sleep(POLL_S)
        for lease in leases:
            _cancel(lease)


def _is_done(lease: _Lease) -> bool:
    return lease.future is not None and bool(lease.future.done())


def _cancel(lease: _Lease) -> None:
    if lease.future is not None:
        with suppress(Exception):  # the scheduler has gone
            lease.future.cancel()
