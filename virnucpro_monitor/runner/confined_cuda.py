"""Does CUDA start in a process that has given up what a target gives up?

Its driver opens devices, maps memory and names its threads by files of /proc; what it does besides
differs by version, and whoever refuses it that gets error 304 from a card that is well. Neither
confinement nor CUDA's start can be undone, so both are tried in a process made for that.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from virnucpro_monitor.runner.confinement import Territory, confine_files, give_up_capabilities

TRIAL_S = 60
_SIZE = 64


def start_cuda() -> bool:
    """Start CUDA and its matrix products as a model would, on the first card."""
    import torch

    ones = torch.ones(_SIZE, _SIZE, device="cuda", dtype=torch.float16)
    return bool((ones @ ones).float().sum().item() == _SIZE**3)


def stands_confinement(
    territory: Territory, *, network: bool, start: Callable[[], bool] = start_cuda
) -> bool:
    """Whether `start` succeeds under confinement; the caller itself stays as it is.

    Args:
        territory: as for `confine_files`.
        network: as for `confine_files`.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        with suppress(BaseException):
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(TRIAL_S)  # a driver that hangs has not started
            give_up_capabilities()
            confine_files(territory, network=network)
            status = 0 if start() else 1
        os._exit(status)
    _, ended = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(ended) == 0
