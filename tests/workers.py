"""One pool of workers for all tests of a process: starting its server takes seconds."""

from virnucpro_monitor.runner.client import WorkerPool


class SharedPool(WorkerPool):
    """Stays open from test to test, until `end`."""

    def close(self) -> None:
        pass

    def end(self) -> None:
        super().close()


def choose_pool(shared: SharedPool, *, fork: bool | None = None) -> WorkerPool:
    """The shared pool where the usual one is asked for, else one of its own."""
    return shared if fork is None else WorkerPool(fork=fork)
