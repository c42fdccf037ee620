"""Which ways of confining a commit's process CUDA (or the CPU) survives on this machine.

    python -m tests.benchmarks.confinement --device cuda:0

Each way is tried in a process of its own, which multiplies two matrices on the device after it has
given up what the way takes. `runner.server` uses "Landlock" for a GPU and all of it for the CPU.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from virnucpro_monitor.runner import containment
from virnucpro_monitor.runner.confinement import (
    Territory,
    confine_files,
    give_up_capabilities,
    landlock_version,
    leave_network,
    mount_read_only,
)

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_MS_REC_SLAVE = 0x4000 | 0x80000


TERRITORY = Territory((Path(tempfile.gettempdir()),))


def _landlock() -> bool:
    give_up_capabilities()
    return confine_files(TERRITORY, network=False)


def _mounts(flags: int) -> bool:
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_NEWNS | flags) != 0:
        return False
    if library.mount(b"none", b"/", None, _MS_REC_SLAVE, None) != 0:
        return False
    return mount_read_only(TERRITORY)


def _processes(*, hide: bool) -> bool:
    """As root, without a user namespace; `hide` gives it a /proc of its own."""
    if not containment.enter_process_namespace():
        return False
    pid = os.fork()
    if pid:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return not hide or containment._hide_other_processes()


WAYS: dict[str, Callable[[], bool]] = {
    "nothing": lambda: True,
    "no capabilities": lambda: give_up_capabilities() is None,
    "Landlock": _landlock,
    "read-only mounts, as root": lambda: _mounts(0),
    "read-only mounts, in a user namespace": lambda: _mounts(_NEWUSER),
    "own network": leave_network,
    "own processes, the machine's /proc": lambda: _processes(hide=False),
    "own processes and /proc": lambda: _processes(hide=True),
    "mounts and Landlock": lambda: _mounts(0) and _landlock(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        if not WAYS[options.way]():
            print("the kernel refuses")
            raise SystemExit(3)
        import torch

        one = torch.ones(64, 64, device=options.device)
        print(f"works: {float((one @ one).sum()):.0f}")
        return
    print(f"Landlock {landlock_version()}, user {os.getuid()}, {options.device}")
    for way in WAYS:
        command = [sys.executable, "-m", __spec__.name, "--device", options.device, "--way", way]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing said"]
        print(f"  {way:40}  {said[-1][:100]}", flush=True)


if __name__ == "__main__":
    main()
