"""Seconds of named functions, summed up in whichever process runs them and told in what it prints.

    #judge.passes 1.234 0.120 0.910 40      seconds, of them its own, of the processor, and calls

Its own seconds are those in which no other noted function ran within it, so that they add up to the
whole; a row's name says what it is part of. Imports are summed from outside: a module that imports
others counts once.
"""

import builtins
import functools
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

SUM = re.compile(r"#([\w.-]+) ([0-9.]+) ([0-9.]+) ([0-9.]+) ([0-9]+)")


def judged(reports: Iterable[Any]) -> Iterator[Any]:
    """The reports of a start, as they come.

    Raises:
        SystemExit: a commit was not judged, so that its seconds are no measurement; exit code 1.
    """
    for report in reports:
        run = report.run
        if run.outcome not in ("passed", "failed"):
            raise SystemExit(
                f"{run.commit.short} is {run.outcome}: {run.reason} Nothing is averaged: what was "
                f"to be timed did not run."
            )
        yield report


class Spent(NamedTuple):
    """Of all calls of a function: seconds, its own, of the processor, and how many calls."""

    seconds: float = 0.0
    own: float = 0.0
    processor: float = 0.0
    calls: int = 0

    def plus(self, other: "Spent") -> "Spent":
        return Spent(
            self.seconds + other.seconds,
            self.own + other.own,
            self.processor + other.processor,
            self.calls + other.calls,
        )


@dataclass(slots=True)
class _Frame:
    """A noted function that has not returned yet."""

    name: str
    start: float
    processor: float
    within: float = 0.0  # seconds in noted functions that it called


class Sums:
    """What one process has noted so far.

    Args:
        settle: called before each look at the clock, as to wait for a card.
    """

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self.spent: dict[str, Spent] = {}
        self.settle = settle
        self._local = threading.local()

    @property
    def _frames(self) -> list[_Frame]:
        frames: list[_Frame] = self._local.__dict__.setdefault("frames", [])
        return frames

    def enter(self, name: str) -> None:
        self._frames.append(_Frame(name, time.monotonic(), time.process_time()))

    def leave(self) -> None:
        frame = self._frames.pop()
        seconds = time.monotonic() - frame.start
        if self._frames:
            self._frames[-1].within += seconds
        own = max(0.0, seconds - frame.within)
        processor = time.process_time() - frame.processor
        known = self.spent.get(frame.name, Spent())
        self.spent[frame.name] = known.plus(Spent(seconds, own, processor, 1))

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        self.settle()
        self.enter(name)
        try:
            yield
        finally:
            self.settle()
            self.leave()

    def note(self, place: Any, function: str, name: str | Callable[..., str]) -> None:
        """Sum up a function's seconds from now on.

        Args:
            name: of the row, or what makes it of the call's arguments.
        """
        original = getattr(place, function)

        @functools.wraps(original)
        def noted(*arguments: Any, **named: Any) -> Any:
            with self.noting(name if isinstance(name, str) else name(*arguments)):
                return original(*arguments, **named)

        setattr(place, function, noted)

    def note_imports(self, name: str) -> None:
        original, depth = builtins.__import__, 0

        def noted(*arguments: Any, **named: Any) -> Any:
            nonlocal depth
            if depth:
                return original(*arguments, **named)
            depth += 1
            self.enter(name)
            try:
                return original(*arguments, **named)
            finally:
                self.leave()
                depth -= 1

        builtins.__import__ = noted

    def clear(self) -> None:
        """Forget what was noted, and let what has not returned begin now."""
        self.spent.clear()
        for frame in self._frames:
            frame.start, frame.processor, frame.within = time.monotonic(), time.process_time(), 0.0

    def set_aside(self, prefix: str) -> None:
        """Put what was noted so far under other names, and let what has not returned begin now."""
        before = {f"{prefix}{name}": spent for name, spent in self.spent.items()}
        self.clear()
        self.spent = before

    def tell(self) -> None:
        """Print all sums, of the functions that have not returned as far as they are."""
        frames = list(self._frames)
        told = dict(self.spent)
        within = 0.0
        for frame in reversed(frames):
            seconds = time.monotonic() - frame.start
            processor = time.process_time() - frame.processor
            own = max(0.0, seconds - frame.within - within)
            within = seconds
            now = Spent(seconds, own, processor, 1)
            told[frame.name] = told.get(frame.name, Spent()).plus(now)
        lines = [
            f"#{name} {one.seconds:.4f} {one.own:.4f} {one.processor:.4f} {one.calls}\n"
            for name, one in told.items()
        ]
        print("".join(lines), end="", flush=True)


def told(text: str) -> dict[str, Spent]:
    """What was spent, by name; of what is told twice, the last."""
    return {
        name: Spent(float(seconds), float(own), float(processor), int(calls))
        for name, seconds, own, processor, calls in SUM.findall(text)
    }
