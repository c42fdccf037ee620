"""Seconds of named functions, summed up in whichever process runs them and told in what it prints.

    #judge.passes 1.234 40      the sum of all calls' seconds, and their number

Time in a noted function within a noted function counts for both; a row's name says what it is part
of. Imports are summed from outside: a module that imports others counts once.
"""

import builtins
import functools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SUM = re.compile(r"#([\w.-]+) ([0-9.]+) ([0-9]+)")


class Sums:
    """What one process has noted so far."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
            self.calls[name] = self.calls.get(name, 0) + 1

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
            try:
                with self.noting(name):
                    return original(*arguments, **named)
            finally:
                depth -= 1

        builtins.__import__ = noted

    def tell(self) -> None:
        for name, seconds in self.seconds.items():
            print(f"#{name} {seconds:.6f} {self.calls[name]}", flush=True)


def told(text: str) -> dict[str, tuple[float, int]]:
    """(seconds, calls) by name; of what is told twice, the last."""
    return {name: (float(seconds), int(calls)) for name, seconds, calls in SUM.findall(text)}
