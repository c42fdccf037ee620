#!/usr/bin/env bash
# distributed 2026.8.0: a task that secedes gives its thread away, and keeps its worker's resource.
#
# `secede` and `worker_client` are there so that a task can wait for others that it submits to the same
# worker: "opens up a new scheduling slot". That slot is none for a task that asks for a resource, as cards
# are counted (--resources GPU=1): the one that waits still holds it. So a task with a card that waits for
# another one with a card waits for ever, with no error and no time limit, on an idle worker.
#
# Seen: from within a task without a resource, a task with GPU=1 runs at once; from within one with GPU=1 it
# is still pending after 10 s ("processing" to the scheduler), while one without a resource runs there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q distributed==2026.8.0 dask==2026.8.0
cat >"$folder/show.py" <<'PYTHON'
import logging
import os
import sys

from distributed import Client, LocalCluster, wait, worker_client


def outer():
    with worker_client(separate_thread=True) as client:
        plain = client.submit(os.getpid, pure=False)
        on_card = client.submit(os.getpid, pure=False, resources={"GPU": 1})
        wait([plain], timeout=30)
        try:
            wait([on_card], timeout=10)
        except TimeoutError:
            pass
        return plain.status, on_card.status


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=4, resources={"GPU": 1}, dashboard_address=None,
            silence_logs=100,
        ) as cluster,
        Client(cluster) as client,
    ):
        found = {
            name: client.submit(outer, resources=resources, pure=False).result(timeout=60)
            for name, resources in (("no resource", None), ("GPU=1", {"GPU": 1}))
        }
        for name, (plain, on_card) in found.items():
            print(f"within a task with {name}: without a resource {plain}, with GPU=1 {on_card}")
        expected = {"no resource": ("finished", "finished"), "GPU=1": ("finished", "pending")}
    sys.exit(found != expected)
PYTHON
cd "$folder"
venv/bin/python show.py
