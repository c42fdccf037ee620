"""Ports for the tests' own servers."""

import random
import socket
from contextlib import suppress

HOST = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives out itself.

    One of the system's choice may be anybody's connection by the time that a server asks for it.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
