"""Does CUDA start in a process that has given up what a target gives up?

Its driver opens devices, maps memory and names its threads by files of /proc; what it does besides
differs by version, and whoever refuses it that gets error 304 from a card that is well. Neither
confinement nor CUDA's start can be undone, so both are tried in a process made for that.

The process is forked, which costs nothing. A fork of a process that has started CUDA, or has only
counted its cards, cannot start it again; there it is a fresh interpreter.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.runner.confinement import Territory, confine_files, give_up_capabilities

TRIAL_S = 60
_SIZE = 64
_SUCCEEDED = b"1"


def start_cuda() -> bool:
    """Start CUDA and its matrix products as a model would, on the first card."""
    import torch

    ones = torch.ones(_SIZE, _SIZE, device="cuda", dtype=torch.float16)
    return bool((ones @ ones).float().sum().item() == _SIZE**3)


@dataclass(frozen=True, slots=True)
class Trial:
    """A process in which something is started under confinement.

    Whoever reaps this process's children may reap it: it says by a pipe how it went.
    """

    pid: int
    said_fd: int

    def succeeded(self) -> bool:
        """Wait for its end, once, and say whether the start succeeded."""
        with os.fdopen(self.said_fd, "rb") as said:
            succeeded = said.read() == _SUCCEEDED
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        return succeeded


def try_confined(
    territory: Territory, *, network: bool, start: Callable[[], bool] = start_cuda
) -> Trial:
    """Begin to try `start` under confinement; the caller itself stays as it is, and goes on.

    Args:
        territory: as for `confine_files`.
        network: as for `confine_files`.
    """
    said_fd, saying_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(TRIAL_S)  # a driver that hangs has not started
            begin = _freshly if start is start_cuda and _is_in_bad_fork() else _confined
            if begin(territory, network, start):
                os.write(saying_fd, _SUCCEEDED)
        os._exit(0)
    os.close(saying_fd)
    return Trial(pid, said_fd)


def _confined(territory: Territory, network: bool, start: Callable[[], bool]) -> bool:
    give_up_capabilities()
    confine_files(territory, network=network)
    return start()


def _is_in_bad_fork() -> bool:
    """Whether this process was forked from one that had called the driver; torch notes it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda._is_in_bad_fork())


def _freshly(territory: Territory, network: bool, _: Callable[[], bool]) -> bool:
    """`start_cuda`, confined in an interpreter of its own."""
    ways = [list(map(str, some)) for some in (territory.writable, territory.hidden)]
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, json.dumps([*ways, network])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=TRIAL_S,
        check=False,
    )
    return done.returncode == 0


if __name__ == "__main__":
    writable, hidden, reaches_network = json.loads(sys.argv[1])
    ours = Territory(tuple(map(Path, writable)), tuple(map(Path, hidden)))
    sys.exit(0 if _confined(ours, reaches_network, start_cuda) else 1)
