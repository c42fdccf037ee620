"""Let reports out in the plan's order, once they know the backend that they belong to."""

from collections.abc import Iterator
from dataclasses import replace

from virnucpro_monitor.records import RunReport
from virnucpro_monitor.runner.ledger import Ledger

MAX_HELD = 50


class Turns:
    """Reports of several commits that are measured at once, given out one commit after another.

    Args:
        num_commits: of the plan, in its order.
    """

    def __init__(self, num_commits: int) -> None:
        self._reports: list[list[RunReport]] = [[] for _ in range(num_commits)]
        self._done = [False] * num_commits
        self.turn = 0

    @property
    def over(self) -> bool:
        return self.turn == len(self._done)

    def add(self, index: int, report: RunReport) -> None:
        self._reports[index].append(report)

    def finish(self, index: int) -> None:
        """No more reports come of this commit."""
        self._done[index] = True

    def ready(self) -> Iterator[RunReport]:
        """What may leave now; `turn` is the place of the commit that it belongs to."""
        while not self.over:
            waiting = self._reports[self.turn]
            while waiting:
                yield waiting.pop(0)
            if not self._done[self.turn]:
                return
            self.turn += 1


class Holding:
    """Holds reports back that don't know their backend yet.

    The first commits of a history often cannot run; their configuration is that of the first one
    which can.

    Args:
        asked: the backend that was asked for, which may be "auto".
    """

    def __init__(self, ledger: Ledger, asked: str) -> None:
        self._ledger = ledger
        self._asked = asked
        self._held: list[RunReport] = []

    def take(self, report: RunReport) -> Iterator[RunReport]:
        """Give out what may leave once this report has come."""
        self._held.append(report)
        if self._ledger.backend_known or len(self._held) > MAX_HELD:
            yield from self.empty()

    def empty(self) -> Iterator[RunReport]:
        """Give out everything, whatever is known."""
        held, self._held = self._held, []
        for report in held:
            used = report.run.configuration
            if used.backend == self._asked:
                used = replace(used, backend=self._ledger.backend)
            yield replace(report, run=replace(report.run, configuration=used))
