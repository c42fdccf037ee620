"""Does CUDA start in a process that has given up what a target gives up?

Its driver opens devices, maps memory and names its threads by files of /proc; what it does besides
differs by version, and whoever refuses it that gets error 304 from a card that is well. Neither
confinement nor CUDA's start can be undone, so both are tried in an interpreter made for that, with
shared memory of its own first, and else without. It asks the driver itself, so that it need not
wait until torch is imported.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.runner.confinement import Territory, confine_files, give_up_capabilities
from virnucpro_monitor.runner.containment import own_shared_memory

TRIAL_S = 60
_SIZE = 4096
_SUCCEEDED, _WITH_OWN_MEMORY = b"1", b"2"
_COMMAND = (sys.executable, "-P", "-m", __name__)


def start_cuda() -> bool:
    """Start CUDA's driver on the first card that it sees; have it compute and copy there."""
    driver = ctypes.CDLL("libcuda.so.1")
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    size, rows = ctypes.c_size_t(_SIZE), ctypes.create_string_buffer(_SIZE)
    steps: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        lambda: driver.cuCtxSetCurrent(context),
        lambda: driver.cuMemAlloc_v2(ctypes.byref(address), size),
        lambda: driver.cuMemsetD8_v2(address, ctypes.c_ubyte(1), size),
        lambda: driver.cuMemcpyDtoH_v2(rows, address, size),
    )
    return all(step() == 0 for step in steps) and rows.raw == b"\1" * _SIZE


@dataclass(frozen=True, slots=True)
class Found:
    """Attributes:
    starts: CUDA starts in a confined process.
    own_memory: it does so, too, with a /dev/shm of its own.
    """

    starts: bool
    own_memory: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """An interpreter in which something is started under confinement.

    Whoever reaps this process's children may reap it: it says by a pipe how it went.
    """

    process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        return self.process.pid

    def found(self) -> Found:
        """Wait for its end, once, and say how the start went."""
        assert self.process.stdout is not None
        with self.process:
            said = self.process.stdout.read()
        return Found(said in (_SUCCEEDED, _WITH_OWN_MEMORY), said == _WITH_OWN_MEMORY)


def try_confined(
    territory: Territory,
    *,
    network: bool,
    variables: Mapping[str, str] | None = None,
    command: Sequence[str] = _COMMAND,
) -> Trial:
    """Begin to start CUDA under confinement; the caller itself stays as it is, and goes on.

    Args:
        territory: as for `confine_files`.
        network: as for `confine_files`.
        variables: of its environment, beside ours.
        command: an interpreter that tells by `tell` how its start went.
    """
    ways = [list(map(str, some)) for some in (territory.writable, territory.hidden)]
    process = subprocess.Popen(
        [*command, json.dumps([*ways, network])],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            **(variables or {}),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
    )
    return Trial(process)


def tell(start: Callable[[], bool] = start_cuda) -> None:
    """Be confined as the last argument says, and print whether `start` succeeds then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        if own_shared_memory():
            _start_confined(start, _WITH_OWN_MEMORY)
        os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        _start_confined(start, _SUCCEEDED)


def _start_confined(start: Callable[[], bool], said: bytes) -> None:
    """End this process with status 0 once `start` has succeeded and that is said."""
    signal.alarm(TRIAL_S)  # a driver that hangs has not started
    writable, hidden, network = json.loads(sys.argv[-1])
    with suppress(BaseException):
        give_up_capabilities()
        confine_files(
            Territory(tuple(map(Path, writable)), tuple(map(Path, hidden))), network=network
        )
        if start():
            os.write(1, said)
            os._exit(0)


if __name__ == "__main__":
    tell()
