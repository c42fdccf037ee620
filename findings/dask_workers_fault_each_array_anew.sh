#!/usr/bin/env bash
# distributed 2026.8.0: in a Dask worker on Linux each array of more than 128 KiB is taken from the kernel
# anew, page by page, where another process takes it from its heap.
#
# To give memory back, the nanny starts workers with MALLOC_TRIM_THRESHOLD_=65536. For glibc any such setting
# also turns off its dynamic threshold, by which buffers up to 32 MiB, once freed, come from the heap: each is
# an mmap, a page fault for every 4 KiB, and a munmap. Whatever a task or its child processes compute on CPU
# buffers of some MiB (NumPy, PyTorch's CPU tensors) spends more time in the kernel than in arithmetic; beside
# CUDA it holds up the process that launches kernels. Dask's settings name it
# (distributed.nanny.pre-spawn-environ), its page on memory calls it a trade of speed for memory without a size.
#
# Seen: 300 rounds of x * 2 + 1 on 1 MiB take over a hundred times as many page faults in a worker as in the
# process that started it, and, printed only, several times its seconds of the processor.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q distributed==2026.8.0 dask==2026.8.0 numpy==2.3.5
cat >"$folder/show.py" <<'PYTHON'
import logging
import os
import resource
import sys
import time

import numpy as np
from distributed import Client, LocalCluster


def rounds():
    x = np.ones(2**17)
    x * 2 + 1
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    for _ in range(300):
        x * 2 + 1
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults, time.process_time() - start, os.environ.get("MALLOC_TRIM_THRESHOLD_")


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    here = rounds()  # before the nanny sets it, which is in this process, too
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=100
        ) as cluster,
        Client(cluster) as client,
    ):
        there = client.submit(rounds, pure=False).result(timeout=60)
    for name, (faults, seconds, setting) in (("here", here), ("in a worker", there)):
        print(f"{name}: {faults} faults, {seconds:.2f} s, MALLOC_TRIM_THRESHOLD_={setting}")
    sys.exit(not (there[2] == "65536" and here[2] is None and there[0] > 100 * max(1, here[0])))
PYTHON
cd "$folder"
venv/bin/python show.py
