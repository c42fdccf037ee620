"""What is freed is used again, and poisoned all the same."""

import subprocess
import sys

import pytest
import torch

from virnucpro_monitor.heap import keep_freed_memory
from virnucpro_monitor.validation.poison import poisoned, zeroed

ROUNDS = """
import ctypes, resource, sys
from virnucpro_monitor.heap import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
kept = sys.argv[1] == "keep" and keep_freed_memory()
size = 80 * 1024**2
for _ in range(5):
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt, int(kept))
"""
NUM_VALUES = 10 * 1024**2


def test_a_large_block_costs_its_page_faults_once() -> None:
    (kept, possible), (mapped, _) = (
        map(int, subprocess.check_output([sys.executable, "-c", ROUNDS, how], text=True).split())
        for how in ("keep", "map")
    )
    assert kept < mapped / 2 or not possible


@pytest.mark.parametrize(("fill", "shows"), [(poisoned, torch.isnan), (zeroed, torch.logical_not)])
def test_what_is_used_again_can_be_filled(fill, shows) -> None:
    keep_freed_memory()
    torch.empty(2 * NUM_VALUES).fill_(1.0)
    with fill(torch.device("cpu")) as possible:
        assert bool(shows(torch.empty(NUM_VALUES)).all()) or not possible
