#!/usr/bin/env bash
# distributed 2026.8.0: a task for one worker waits for ever once that worker has been started again.
#
# Worker processes have a nanny that starts them anew when they die. The new one listens at another port,
# so submit(..., workers=[address]) fits no worker any more: the task is neither lost nor cancelled, has
# no error and no time limit, and stays pending beside an idle worker.
#
# Seen: the task's worker is killed, its nanny has another ready within seconds, a task without an
# address runs there; the one with an address is pending after 10 s more, "no-worker" to the scheduler.
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

from distributed import Client, LocalCluster


def state(dask_scheduler, key):
    return dask_scheduler.tasks[key].state


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=100) as cluster,
        Client(cluster) as client,
    ):
        (before,) = client.scheduler_info()["workers"]
        pinned = client.submit(time.sleep, 30, workers=[before], pure=False)
        time.sleep(1)
        os.kill(client.run(os.getpid)[before], signal.SIGKILL)
        end = time.monotonic() + 60
        while (now := set(client.scheduler_info()["workers"]) - {before}) == set():
            assert time.monotonic() < end, "no worker came back"
            time.sleep(0.2)
        free = client.submit(os.getpid, pure=False).result(timeout=30)
        time.sleep(10)
        seen = client.run_on_scheduler(state, key=pinned.key)
        print(f"another worker is there: {len(now) == 1}, and works: {free > 0}")
        print(f"the pinned task: {pinned.status}, {seen} to the scheduler")
        good = len(now) == 1 and free > 0 and (pinned.status, seen) == ("pending", "no-worker")
        pinned.cancel()
    sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
