"""What keeps a Dask worker for a start, as it is there: its tenures, by which its jobs begin.

A tenure is one time that a lease holds the worker, and has an id of its own. It says that it is
there again and again, so that no single word of it must arrive, and what a start has heard may be
old: a job names the tenure that it is to begin in, and one that is over, or was another process',
lets none begin.
"""

import threading
import time
import uuid
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import distributed

RESOURCE = "GPU"
LEASED, WANTED = "leased", "wanted"  # what a tenure tells its start
REPEAT_S = 2.0  # between two words of one tenure
TENURE_S = 60.0  # before it gives way to somebody else's task: it costs a cold start
YIELD_S = 0.2
END_S = 5.0  # for what runs in a tenure to end with it


@dataclass(slots=True)
class Tenure:
    """One time that this Dask worker is a start's.

    Attributes:
        lease: key of the task that holds the worker.
        seats: what stands by, by the start's own folder for it: the folder here, and its end.
        running: keys of the jobs that run.
    """

    lease: str
    over: threading.Event = field(default_factory=threading.Event)
    seats: dict[str, tuple[str, ExitStack]] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)

    def take_seat(self, checkout: str) -> tuple[str, ExitStack]:
        """What stands by for the start's folder `checkout`, which is now the caller's."""
        return self.seats.pop(checkout, ("", ExitStack()))

    def end(self) -> None:
        """End what stands by, and wait a while for what runs."""
        self.over.set()
        for checkout in list(self.seats):
            self.take_seat(checkout)[1].close()
        end = time.monotonic() + END_S
        while self.running and time.monotonic() < end:
            time.sleep(YIELD_S)


_tenures: dict[str, Tenure] = {}


def tenure_of(name: str) -> Tenure | None:
    """The tenure with this id, while it lasts here."""
    tenure = _tenures.get(name)
    return None if tenure is None or tenure.over.is_set() else tenure


def hold_place(topic: str) -> None:
    """Keep this Dask worker for one start, by the resource of this task, until `leave_place`.

    What runs here for that start needs no resource of its own, so that others' tasks that ask for
    one never run beside it. Once they have waited long enough the start is told, to give way.

    Args:
        topic: where it says so: (key of this task, id of the tenure, `LEASED` or `WANTED`).
    """
    worker = distributed.get_worker()
    key = str(worker.get_current_task())
    leave_thread()
    name = uuid.uuid4().hex
    tenure = _tenures[name] = Tenure(key)
    begun, said, said_at = time.monotonic(), "", 0.0
    try:
        while not tenure.over.is_set() and is_wanted(worker, key):
            now = time.monotonic()
            word = said or LEASED
            if now - begun > TENURE_S and _others_wait(worker):
                word = WANTED  # and for good
            if word != said or now - said_at > REPEAT_S:
                worker.log_event(topic, (key, name, word))
                said, said_at = word, now
            tenure.over.wait(YIELD_S)
    finally:
        del _tenures[name]
        tenure.end()


def leave_place(leases: Collection[str]) -> None:
    """End this place's tenure of these leases."""
    for tenure in list(_tenures.values()):
        if tenure.lease in leases:
            tenure.over.set()


def leave_thread() -> None:
    """Let the Dask worker begin another task beside this one."""
    distributed.secede()  # type: ignore[no-untyped-call]


def is_wanted(worker: Any, key: str) -> bool:
    """Whether whoever asked for a task still does."""
    task = worker.state.tasks.get(key)
    return task is not None and task.state in ("executing", "long-running")


def _others_wait(worker: Any) -> bool:
    """Whether a task lies here that waits for the resource which a lease holds."""
    with suppress(RuntimeError):  # changed meanwhile, by the worker's own thread
        waiting = list(worker.state.constrained)
        return any(RESOURCE in (task.resource_restrictions or ()) for task in waiting)
    return False
