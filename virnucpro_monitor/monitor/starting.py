"""Measuring processes that begin to start before this one has imported what it needs.

What measures imports torch, which takes longer than all that a start does until it needs it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from virnucpro_monitor.runner.client import WorkerPool

if TYPE_CHECKING:  # its parser is imported later, beside what starts here
    from virnucpro_monitor.settings import Settings

_MEASURING = ("run", "check", "demo")
_ENGINE = "VIRNUCPRO_MONITOR_ENGINE"
_early: list[WorkerPool] = []


@contextmanager
def begun_early(arguments: Sequence[str]) -> Iterator[None]:
    """Within the block, processes for `workers_ahead` start already where a command line measures.

    It is only looked at: whatever it turns out to say, they serve nobody else and end with the
    block.
    """
    if _measures(arguments):
        _early.append(WorkerPool())
        _early[-1].start()
    try:
        yield
    finally:
        while _early:
            _early.pop().close()


def _measures(arguments: Sequence[str]) -> bool:
    command = next((one for one in arguments if not one.startswith("-")), "")
    elsewhere = os.environ.get(_ENGINE, "local") != "local"
    others = any(one.startswith(("--help", "--version", "--engine")) for one in arguments)
    return command in _MEASURING and not elsewhere and not others


@contextmanager
def workers_ahead(settings: "Settings") -> Iterator[WorkerPool]:
    """Within the block, processes for `run_and_store`; they end with it."""
    with _early.pop() if _early else WorkerPool() as pool:
        if settings.engine == "local":
            pool.start()
        else:
            pool.close()
        yield pool
