"""What one commit, the demo and the self-test cost here against another checkout, as ratios.

    git worktree add ../before 043eec9
    python -m tests.benchmarks.cost_ratio ../before --rounds 5
    python -m tests.benchmarks.cost_ratio ../before --rounds 1 --demo --selftest

The two take turns on the same machine, so that its load falls on both; each runs its own code with
the defaults that it has. Times are of the processor, of the process and its children, with one
thread each: threads that wait for a busy core would count as work. "A commit" is a healthy one
after another of the same configuration: it is embedded both ways and judged, and unpacked rows of
the commit before are reused where the checkout does that.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
COMMIT = """
import inspect, os, sys, time
from pathlib import Path
import torch
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.models.esm2_flash import load_esm2_model
from virnucpro_monitor.models.weights import resolve_weights
from virnucpro_monitor.runner.reuse import reuse_unpacked
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.oracle import prepare_oracle
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.validate import validate_subject
folder, name, model, device, dtype, rounds = sys.argv[1:]
weights = resolve_weights(model, "synthetic", cache_folder=Path(folder))
benchmark, protocol = load_benchmark(name), load_protocol()
oracle = prepare_oracle(model, weights, benchmark, cache_folder=Path(folder), device=device)
fresh = {}
if "fresh" in inspect.signature(reuse_unpacked).parameters:
    from virnucpro_monitor.validation.probe_texts import fresh_texts
    fresh = {"fresh": fresh_texts(protocol)}
def clock():
    if device != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
kept = Path(folder) / f"kept-{model}-{dtype}-{device.partition(':')[0]}"
kept.mkdir(exist_ok=True)
for _ in range(int(rounds) + 1):
    loaded, converter = load_esm2_model(model, device, weights=str(weights.path), dtype=dtype)
    started = clock()
    subject = BuiltinSubject(loaded, converter, model_name=model)
    with reuse_unpacked(subject, benchmark, str(kept), **fresh) as judged:
        verdict = validate_subject(judged, benchmark, oracle=oracle, protocol=protocol)
    assert verdict.outcome == "passed", verdict.reason
    print(f"{clock() - started:.3f}", flush=True)
"""


def commit_times(checkout: Path, folder: str, options: argparse.Namespace, rounds: int) -> float:
    """Median of `rounds` commits; the first, which nothing was kept for, is left out."""
    arguments = [folder, options.benchmark, options.model, options.device, options.dtype]
    out = run(checkout, folder, "-c", COMMIT, *arguments, str(rounds)).split()
    return statistics.median(float(one) for one in out[-rounds:])


def command_time(checkout: Path, folder: str, *command: str) -> float:
    """Seconds of the processor that a command of the checkout takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(checkout, folder, "-m", "virnucpro_monitor", *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(checkout: Path, folder: str, *arguments: str) -> str:
    elsewhere = os.environ.get("PYTHONPATH", "")  # where packages may lie
    place = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(checkout), elsewhere))),
        "VIRNUCPRO_MONITOR_CACHE_DIR": folder,
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **place},
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--benchmark", default="seed")
    parser.add_argument("--model", default="esm2_t6_8M_UR50D")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--selftest", action="store_true")
    options = parser.parse_args()
    sides = {"here": HERE, "there": options.other.resolve()}
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as there:
        folders = {"here": here, "there": there}

        def ratio(what: str, measured: dict[str, list[float]]) -> None:
            a, b = (statistics.median(measured[side]) for side in ("here", "there"))
            print(f"{what}: {a / b:.2f} x ({a:.2f} s here, {b:.2f} s there)", flush=True)

        found: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(options.rounds):
            for side, checkout in sides.items():
                found[side].append(commit_times(checkout, folders[side], options, 2))
        ratio("a commit", found)
        commands = {
            "demo": ["demo", "--no-open", "--db", "sqlite:///demo.db"],
            "selftest": ["selftest"],
        }
        for name, command in commands.items():
            if getattr(options, name):
                times = {
                    side: [command_time(checkout, folders[side], *command)]
                    for side, checkout in sides.items()
                }
                ratio(name, times)


if __name__ == "__main__":
    main()
