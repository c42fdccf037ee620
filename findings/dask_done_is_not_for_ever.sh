#!/usr/bin/env bash
# distributed 2026.8.0: a future that is done is done no longer once its worker has gone, and never again if it
# was bound to that worker.
#
# A result stays with its worker until somebody fetches it. Where the worker goes first, Dask does the task
# again; `done()`, which had said True, says False then, and callbacks of `add_done_callback` have been called
# already. A task that was submitted with `workers=[address]` waits for that very address, which no worker has
# again: a nanny starts its worker under another port. So `if future.done(): future.result()` can wait for ever,
# with no error, beside idle workers; a time limit for `result`, and a look at who is there, are needed.
#
# Seen: done() True; after the worker was killed and its nanny had started another one, done() False, status
# "lost", and result(timeout=10) raises TimeoutError, whereas the same without `workers=` is done anew.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q distributed==2026.8.0 dask==2026.8.0
cat >"$folder/show.py" <<'PYTHON'
import logging
import os
import signal
import sys
import time

from distributed import Client, LocalCluster, wait


def result_of(future):
    try:
        return type(future.result(timeout=10)).__name__
    except TimeoutError:
        return "TimeoutError"


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=100
        ) as cluster,
        Client(cluster) as client,
    ):
        (address,) = client.scheduler_info(n_workers=-1)["workers"]
        bound = client.submit(os.getpid, pure=False, workers=[address])
        free = client.submit(os.getpid, pure=False)
        wait([bound, free], timeout=30)
        before = bound.done(), free.done()
        os.kill(client.run(os.getpid)[address], signal.SIGKILL)
        while address in client.scheduler_info(n_workers=-1)["workers"]:
            time.sleep(0.1)
        client.wait_for_workers(1, timeout=60)
        print(f"done before: {before}; bound to the worker that has gone: {bound.status}, "
              f"{result_of(bound)}; to none: {result_of(free)}, {free.status}")
        found = before, bound.done(), result_of(bound), result_of(free)
    sys.exit(found != ((True, True), False, "TimeoutError", "int"))
PYTHON
cd "$folder"
venv/bin/python show.py
