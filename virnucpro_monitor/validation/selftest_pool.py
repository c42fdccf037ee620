"""The self-test's changes judged by several processes at once, or by new ones after a failure.

On a CPU the processes are forked from the one that holds the model. On a card each loads its own,
since CUDA does not survive a fork, and a change that reads or writes beyond its memory ends the
process that asks: the next change is asked by another one.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any

import torch

from virnucpro_monitor.errors import DeviceError
from virnucpro_monitor.validation.kill_matrix import Lost, Row
from virnucpro_monitor.validation.selftest import Bench, Judges

_MOST_LOST = 8
_ASKS_FOR_PARENT_S = 1.0
_PATIENCE_S = 5.0


def forked(workers: int) -> Judges:
    """`workers` forks of this process, one thread each. Not where it has opened a GPU."""

    def judge(bench: Bench) -> Iterator[tuple[int, Row | Lost]]:
        context = multiprocessing.get_context("fork")
        waiting = deque(range(len(bench.jobs)))
        yield from _Pool(context, lambda: bench, workers).judge(waiting)

    return judge


def on_a_card(make: Callable[[], Bench], workers: int = 1) -> Judges:
    """This process until a change brings the device down, and then new ones, or `workers` of them.

    Args:
        make: the same bench in another process; picklable.

    Raises:
        DeviceError: it came down too often for that to be the changes' doing.
    """

    def judge(bench: Bench) -> Iterator[tuple[int, Row | Lost]]:
        waiting = deque(range(len(bench.jobs)))
        while waiting and workers == 1:
            number = waiting.popleft()
            found = bench.judge(number)
            yield number, found
            if isinstance(found, Lost):
                break
        context = multiprocessing.get_context("spawn")
        yield from _Pool(context, make, workers).judge(waiting)

    return judge


class _Pool:
    """Processes with a bench each, who get one job after another."""

    def __init__(self, context: BaseContext, make: Callable[[], Bench], workers: int) -> None:
        self._context = context
        self._make = make
        self._workers = workers
        self._processes: dict[Connection, Any] = {}
        self._busy: dict[Connection, int] = {}

    def judge(self, waiting: deque[int]) -> Iterator[tuple[int, Row | Lost]]:
        lost = 0
        try:
            for _ in range(min(self._workers, len(waiting))):
                self._start(waiting.popleft())
            while self._busy:
                for connection in wait(list(self._busy)):
                    assert isinstance(connection, Connection)
                    number = self._busy.pop(connection)
                    found = _received(connection, self._processes[connection])
                    yield number, found
                    if isinstance(found, Lost):
                        lost += 1
                        if lost >= _MOST_LOST:
                            raise DeviceError(
                                f"The device failed {lost} times, last with: {found.reason}."
                            )
                        if waiting:
                            self._start(waiting.popleft())
                    elif waiting:
                        self._give(connection, waiting.popleft())
        finally:
            # None outlives its work: a fork keeps open whatever this process had open, and who
            # waits for the end of a pipe of that waits for the fork.
            for connection, process in self._processes.items():
                process.kill()
                process.join()
                connection.close()

    def _start(self, number: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, self._make, os.getpid()), daemon=True
        )
        process.start()
        theirs.close()
        self._processes[ours] = process
        self._give(ours, number)

    def _give(self, connection: Connection, number: int) -> None:
        with suppress(OSError):  # it has ended, which is seen when its answer is awaited
            connection.send(number)
        self._busy[connection] = number


def _received(connection: Connection, process: Any) -> Row | Lost:
    """What a process found.

    Raises:
        Exception: what it has raised.
    """
    try:
        found = connection.recv()
    except (EOFError, OSError):
        process.join(_PATIENCE_S)
        return Lost(reason=f"its process ended with exit code {process.exitcode}")
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, Row | Lost)
    return found


def _serve(connection: Connection, make: Callable[[], Bench], parent: int) -> None:
    """Answer each number with its row, until the caller ends this process or is gone."""
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):
        try:
            bench = make()
            while _asked(connection, parent):
                found = bench.judge(connection.recv())
                connection.send(found)
                if isinstance(found, Lost):
                    return
        except (EOFError, OSError):
            raise
        except Exception as error:  # raised again by the caller
            connection.send(error)


def _asked(connection: Connection, parent: int) -> bool:
    while not connection.poll(_ASKS_FOR_PARENT_S):
        if os.getppid() != parent:
            return False
    return True
