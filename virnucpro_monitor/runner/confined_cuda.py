"""Does CUDA start in a process that has given up what a target gives up?

Its driver opens devices, maps memory and names its threads by files of /proc; what it does besides
differs by version, and whoever refuses it that gets error 304 from a card that is well. Neither
confinement nor CUDA's start can be undone, so both are tried in a process made for that.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress

from virnucpro_monitor.runner.confinement import Territory, confine_files, give_up_capabilities

TRIAL_S = 60


def start_cuda() -> bool:
    """Start the driver and make a context on its first card."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    return bool(
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
        and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
    )


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
