#!/usr/bin/env bash
# distributed 2026.8.0: a task whose process dies is started four times, whatever `retries` says.
#
# retries=0 limits only what raises. A task that ends its process (as an out-of-memory kill does) is
# started again on another worker until distributed.scheduler.allowed-failures (3) is passed: one bad
# task takes four workers with it.
#
# Seen: submit(..., retries=0) of a task that leaves by os._exit(1): 4 starts, then KilledWorker.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q distributed==2026.8.0
cat >"$folder/show.py" <<'PYTHON'
import logging
import os
import sys
import tempfile
from pathlib import Path

from distributed import Client, LocalCluster


def die(path):
    with open(path, "a") as file:
        file.write("x")
    os._exit(1)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    marks = Path(tempfile.mkdtemp()) / "starts"
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=100) as cluster,
        Client(cluster) as client,
    ):
        try:
            client.submit(die, str(marks), retries=0, pure=False).result(timeout=300)
            ended = "a result"
        except Exception as error:
            ended = type(error).__name__
    starts = len(marks.read_text())
    print(f"retries=0: {starts} starts, then {ended}")
    sys.exit(not (starts == 4 and ended == "KilledWorker"))
PYTHON
cd "$folder"
venv/bin/python show.py
