"""Measuring processes that begin to start before this one has imported what it needs.

What measures imports torch, which takes longer than all that a start does until it needs it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.settings import Settings


@contextmanager
def workers_ahead(settings: Settings) -> Iterator[WorkerPool]:
    """Within the block, processes for `run_and_store`; they end with it."""
    with WorkerPool() as pool:
        if settings.engine == "local":
            pool.start()
        yield pool
