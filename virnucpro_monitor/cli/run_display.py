"""What a person sees while commits run: a bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from virnucpro_monitor.cli.options import say
from virnucpro_monitor.records import Run, short_hash
from virnucpro_monitor.settings import is_terminal

if TYPE_CHECKING:
    from virnucpro_monitor.monitor.running import Listener
    from virnucpro_monitor.records.progress import Progress


class Display:
    """Plain lines to standard error: one for each run, none for progress."""

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def progress(self, progress: "Progress") -> None:
        """Show how far the present run is."""

    def message(self, text: str) -> None:
        say(text)

    def report(self, run: Run) -> None:
        say(describe_run(run))


class TerminalDisplay(Display):
    """A bar with sequences per second below the lines."""

    def __enter__(self) -> "TerminalDisplay":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("preparing", total=None, speed="")
        self._began: tuple[object, float] = (None, time.monotonic())
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def progress(self, progress: "Progress") -> None:
        commit = progress.commit.short if progress.commit else ""
        place = f"{progress.commit_index + 1}/{progress.num_commits}" if progress.commit else ""
        label = " ".join(filter(None, (place, commit, progress.benchmark, progress.phase)))
        now = time.monotonic()
        if self._began[0] != label:
            self._began = (label, now)
        elapsed = now - self._began[1]
        speed = f"{progress.done / elapsed:.1f} sequences/s" if elapsed > 0.2 else ""
        self._bar.update(
            self._task,
            description=label,
            completed=progress.done,
            total=progress.total,
            speed=speed,
        )

    def message(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def report(self, run: Run) -> None:
        self.message(describe_run(run))


def open_display() -> Display:
    return TerminalDisplay() if is_terminal() else Display()


def listening(display: Display) -> "Listener":
    """What tells a display of a start's progress, messages and runs."""
    from virnucpro_monitor.monitor.running import Listener

    return Listener(on_progress=display.progress, on_message=display.message, on_run=display.report)


def describe_run(run: Run) -> str:
    """One line: commit, outcome, benchmark set, worst similarity or the reason, time."""
    parts = [run.commit.short, f"{run.outcome:8}", run.benchmark]
    if run.inherited_outcome is not None and run.inherited_from is not None:
        parts.append(f"{run.inherited_outcome}, as {short_hash(run.inherited_from)}")
    elif run.figures is not None and run.figures.min_similarity is not None:
        parts.append(f"worst similarity {run.figures.min_similarity:.7f}")
        parts.append(f"{run.duration_s:.1f} s")
    if run.outcome not in ("passed", "skipped") and run.reason:
        parts.append(f"- {run.reason}")
    else:
        parts += [
            f"- gate {gate.name} informs by {gate.informs}"
            for gate in run.gates
            if gate.informs and gate.passed is False
        ]
    return "  ".join(parts)
