"""Leases: what keeps a Dask worker, and the card behind it, for one start at a time.

A lease is a task that holds the worker's resource (`GPU=1`) and takes no thread. What the start
measures there asks for no resource of its own: several commits share the card, and more stand by on
it, while no task that asks for a card runs beside them, whoever sent it.
"""

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from virnucpro_monitor.runner.cluster_calls import call_at

END_S = 2.0  # for what stands by at a worker to end
POLL_S = 0.01


@dataclass(slots=True)
class _Lease:
    key: str
    future: Any = None  # not yet, while it is asked for
    tenure: str = ""  # by which it holds the worker; none while that is not heard of
    said: str = ""  # by that tenure
    past: set[str] = field(default_factory=set)  # tenures that are over, whatever is still heard


class Leases:
    """The leases of one start.

    Args:
        client: of Dask.
        tenures: the module of what they do in Dask workers.
        topic: where they speak to this start.
        resources: that a lease holds.
        on_tenure: receives the address of a worker that has become ours, be it once more.
    """

    def __init__(
        self,
        client: Any,
        tenures: Any,
        topic: str,
        resources: Mapping[str, float] | None,
        on_tenure: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._tenures = tenures
        self._topic = topic
        self._resources = resources
        self._on_tenure = on_tenure
        self._leases: dict[str, _Lease] = {}
        client.subscribe_topic(topic, lambda event: self._take(*event[1]))

    def ask(self, address: str) -> None:
        """Ask for a Dask worker, behind whoever has asked before; for each once."""
        if address not in self._leases:
            # Known before it is asked for: a worker that is free says at once that it is ours.
            lease = _Lease(f"virnucpro-monitor-place-{uuid.uuid4().hex}")
            self._leases[address] = lease
            try:
                lease.future = self._client.submit(
                    self._tenures.hold_place,
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

    def _take(self, key: str, tenure: str, said: str) -> None:
        """Take a word of a tenure: it may have been heard before, come late, or be the first."""
        for address, lease in list(self._leases.items()):
            if lease.key == key and tenure not in lease.past:
                is_new = tenure != lease.tenure
                if is_new:
                    lease.past.add(lease.tenure)
                    lease.tenure = tenure
                if is_new or said == self._tenures.WANTED:  # which is for good
                    lease.said = said
                if is_new:
                    self._on_tenure(address)

    def tenure_at(self, address: str) -> str:
        """The tenure in which work may begin at a Dask worker; empty if it may not.

        It may where the worker is ours, and nobody else waits for it.
        """
        lease = self._leases.get(address)
        return lease.tenure if lease is not None and lease.said == self._tenures.LEASED else ""

    def is_open(self, address: str) -> bool:
        """Whether work may begin at a Dask worker."""
        return bool(self.tenure_at(address))

    def is_over(self, tenure: str) -> None:
        """Learn that a tenure has ended: its worker let nothing begin in it."""
        for lease in list(self._leases.values()):
            if lease.tenure == tenure:
                lease.past.add(tenure)
                lease.tenure = lease.said = ""

    def tend(self, present: Collection[str], is_busy: Callable[[str], bool]) -> None:
        """Forget workers that have left; let those go that others wait for, and ask anew."""
        for address, lease in list(self._leases.items()):
            if address not in present:
                del self._leases[address]
                _cancel(lease)
            elif _is_done(lease) or (lease.said == self._tenures.WANTED and not is_busy(address)):
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
        call_at(self._client, addresses, self._tenures.leave_place, [one.key for one in leases])
        end = time.monotonic() + END_S
        while any(one.tenure and not _is_done(one) for one in leases):
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
