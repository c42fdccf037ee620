#!/usr/bin/env bash
# dask-jobqueue 0.9.0 beside distributed 2026.8.0: a job of four cores is four workers, each "with a card".
#
# SLURMCluster(cores=4, memory="32GB", worker_extra_args=["--resources", "GPU=1"]) asks SLURM for one
# task of four CPUs. Its documentation says that by default a job is cut into about sqrt(cores)
# processes, as many as each has threads; up to four cores it is cut into as many processes as cores.
# Each is a Dask worker with a quarter of the memory, and each announces the resource: a job with one
# card (--gres=gpu:1) is four cards to Dask. With processes=1 it is one worker of four threads. Without
# `walltime` the job ends after half an hour, whatever the cluster's own limit is.
#
# Seen: the job's script has --cpus-per-task=4, -t 00:30:00, --nworkers 4 --nthreads 1, a memory limit of
# 7.45 GiB and --resources GPU=1; with 9 cores 3 workers of 3; with processes=1 --nthreads 4 and 29.80 GiB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dask-jobqueue==0.9.0 dask==2026.8.0 distributed==2026.8.0
cat >"$folder/show.py" <<'PYTHON'
import re
import sys

from dask_jobqueue.slurm import SLURMJob


def described(cores, **more):
    """(workers, threads of each, memory limit of each, resources, cores, time limit) of one job."""
    script = SLURMJob(
        "tcp://head:8786",
        name="one",
        cores=cores,
        memory="32GB",
        worker_extra_args=["--resources", "GPU=1"],
        **more,
    ).job_script()

    def find(pattern, default=""):
        found = re.search(pattern, script)
        return found.group(1) if found else default

    return (
        int(find(r"--nworkers (\d+)", "1")),
        int(find(r"--nthreads (\d+)")),
        find(r"--memory-limit (\S+)"),
        find(r"--resources (\S+)"),
        int(find(r"--cpus-per-task=(\d+)")),
        find(r"-t (\S+)"),
    )


found = {
    "cores=4": described(4),
    "cores=9": described(9),
    "cores=4, processes=1": described(4, processes=1),
}
expected = {
    "cores=4": (4, 1, "7.45GiB", "GPU=1", 4, "00:30:00"),
    "cores=9": (3, 3, "9.93GiB", "GPU=1", 9, "00:30:00"),
    "cores=4, processes=1": (1, 4, "29.80GiB", "GPU=1", 4, "00:30:00"),
}
for name, facts in found.items():
    print(name, facts)
sys.exit(found != expected)
PYTHON
cd "$folder"
venv/bin/python show.py
