"""What of a commit is to be measured a second time, once its first measuring has ended."""

from dataclasses import replace

from virnucpro_monitor.records import RunReport
from virnucpro_monitor.records.progress import Say
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.ledger import Ledger


class OnceMore:
    """Notes what cannot be relied on yet: verdicts in doubt, and what neighbours may have done.

    Args:
        confirm: whether a verdict in doubt is asked for again.
    """

    def __init__(self, ledger: Ledger, say: Say, *, confirm: bool) -> None:
        self._ledger = ledger
        self._say = say
        self._confirm = confirm
        self._noted: dict[str, list[Work]] = {}  # by the commit's hash

    def stands(self, work: Work, report: RunReport, *, had_company: bool = False) -> bool:
        """Whether a new report of this work, which the ledger does not know yet, is to be stored.

        A commit that had no memory left, wholly or for packs of the size asked for, is measured by
        itself if it shared its card: else a neighbour would decide what is found of it.

        Args:
            had_company: whether another commit was on its card meanwhile.
        """
        short = work.commit.short
        on_gpu = work.card is not None and work.card.device.startswith("cuda")
        if on_gpu and had_company and not work.alone and _ran_out_of_memory(report):
            self._say(
                f"{short} had no memory left on a card that it shared: it is measured by itself."
            )
            self._note(replace(work, alone=True), report)
            return False
        if self._confirm and not work.again and (doubt := self._ledger.doubt(report.run)):
            self._say(f"{short} {doubt}: it is measured again in another process.")
            self._note(replace(work, again=True), report)
        return True

    def next(self, work: Work) -> Work | None:
        """What is to be measured once this work has ended; None for nothing."""
        noted = self._noted.get(work.commit.hash)
        return noted.pop(0) if noted else None

    def _note(self, work: Work, report: RunReport) -> None:
        noted = self._noted.setdefault(work.commit.hash, [])
        benchmarks = [report.benchmark]
        if noted and (noted[-1].again, noted[-1].alone) == (work.again, work.alone):
            benchmarks = [*noted.pop().benchmarks, *benchmarks]
        noted.append(replace(work, benchmarks=tuple(benchmarks), card=None))


def _ran_out_of_memory(report: RunReport) -> bool:
    """So that packs were halved, or nothing was measured."""
    failed = report.failure is not None and report.failure.kind == "out_of_memory"
    return failed or "memory" in report.documents
