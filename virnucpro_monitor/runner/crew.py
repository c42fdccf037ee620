"""Threads that measure, each a commit at a time, and speak to one caller through one queue."""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType

from virnucpro_monitor.records import RunReport
from virnucpro_monitor.records.progress import OnProgress, Progress, Say
from virnucpro_monitor.runner.capacity import Capacity
from virnucpro_monitor.runner.decide import Work

Measure = Callable[[Work, OnProgress, Callable[[], None], Say], Iterator[RunReport]]


@dataclass(frozen=True, slots=True)
class Finished:
    """A commit's measuring has ended; `error` is what must end the whole start."""

    work: Work
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class LeavesPlace:
    """Little of a commit is left: the next one may begin beside it."""


Event = Progress | str | RunReport | LeavesPlace | Finished  # a string is a line for a person


def under_way(places: int) -> int:
    """How many commits may be under way in so many places.

    In each one loads or embeds, and one's last passes end as that one's begin. One more, of all,
    may only be explained, or have its processes end: a place would wait for it each second time.
    """
    return 2 * places + 1


class Crew:
    """Measures as many commits at once as there is room for.

    Args:
        capacity: asked each time that a commit is to begin.
        total: commits to cover, for their progress.
        measure: called in a thread; may take minutes. It calls its third argument when the commit
            nears its end, and no longer takes the place of another.
        end: makes the threads that still measure end soon.
    """

    def __init__(
        self, capacity: Capacity, total: int, measure: Measure, end: Callable[[], None]
    ) -> None:
        self._capacity = capacity
        self._total = total
        self._measure = measure
        self._end = end
        self._threads = ThreadPoolExecutor(under_way(capacity.most), thread_name_prefix="commit")
        self._events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        self.active: dict[int, Work] = {}  # by the commit's place in the plan
        self.nearing_end: dict[int, Work] = {}  # those of them that near their end
        self._crowded: set[int] = set()  # those that another was measured beside, on one card

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:  # also where the caller turns away
            self._end()
        self._threads.shutdown(cancel_futures=True)

    def has_room_for(self, work: Work) -> bool:
        if work.alone or any(one.alone for one in self.active.values()):
            return not self.active
        places = self._capacity.num_workers
        in_place = len(self.active) - len(self.nearing_end)
        return in_place < places and len(self.active) < under_way(places)

    def start(self, index: int, work: Work) -> None:
        """Begin one commit; its events come by `next_event`."""
        beside = [other for other, one in self.active.items() if one.card == work.card]
        self._crowded.update([index, *beside] if beside else [])
        self.active[index] = work
        self._threads.submit(self._work, index, work)

    def had_company(self, index: int) -> bool:
        """Whether another commit was on the card of this active one at any moment of it."""
        return index in self._crowded

    def next_event(self) -> tuple[int, Event]:
        """Wait for the next event: (the commit's place, event).

        Raises:
            MonitorError: what ended the measuring, if it was not the commit's own doing.
        """
        index, event = self._events.get()
        if isinstance(event, LeavesPlace):
            self.nearing_end[index] = self.active[index]
        if isinstance(event, Finished):
            del self.active[index]
            self.nearing_end.pop(index, None)
            self._crowded.discard(index)
            if event.error is not None:
                raise event.error
        return index, event

    def _work(self, index: int, work: Work) -> None:
        def progress(of_benchmark: Progress) -> None:
            placed = replace(
                of_benchmark, commit=work.commit, commit_index=index, num_commits=self._total
            )
            self._events.put((index, placed))

        error: BaseException | None = None
        try:
            for report in self._measure(
                work,
                progress,
                lambda: self._events.put((index, LeavesPlace())),
                lambda text: self._events.put((index, text)),
            ):
                self._events.put((index, report))
        except BaseException as caught:
            error = caught
        self._events.put((index, Finished(work, error)))
