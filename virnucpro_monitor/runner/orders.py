"""What a fork server is told: each job with its socket, the first one while it still imports."""

import select
import socket
import threading
from dataclasses import dataclass

from virnucpro_monitor.records.messages import DescribeJob, Job, decode_job
from virnucpro_monitor.runner.isolating import begin_trial


@dataclass(frozen=True, slots=True)
class Order:
    """Attributes:
    job: None where the caller has gone before it said which.
    go_fd: of a job that is held.
    """

    job: Job | None
    connection: socket.socket
    go_fd: int | None


def receive(control: socket.socket) -> Order | None:
    """Wait for the next order; None where no more will come."""
    message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    if not message:
        return None
    connection = socket.socket(fileno=descriptors[0])
    line = connection.makefile("rb").readline()
    job = decode_job(line) if line else None
    return Order(job, connection, descriptors[1] if len(descriptors) > 1 else None)


class First:
    """Hears the first order while this process imports, and begins what a card takes of it then.

    Its thread has ended before anything is forked.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._thread: threading.Thread | None = None
        self._order: Order | None = None

    def hear(self) -> None:
        def listen() -> None:
            self._order = receive(self._control)
            job = None if self._order is None else self._order.job
            if job is not None and not isinstance(job, DescribeJob):
                begin_trial(job)

        self._thread = threading.Thread(target=listen, daemon=True)
        self._thread.start()

    def has_come(self, timeout_s: float) -> bool:
        """Whether there is an order to take or receive, at most that much later."""
        if self._thread is None:
            return bool(select.select([self._control], [], [], timeout_s)[0])
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def take(self) -> Order | None:
        """The first order, once; None where there was none, or it was taken."""
        order, self._order, self._thread = self._order, None, None
        return order
