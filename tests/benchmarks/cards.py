"""What several cards of a host are worth: the same commits on one card and on all, with the start.

    python -m tests.benchmarks.cards --commits 40 --model esm2_t33_650M_UR50D --dtype float16

Makes a repository of that many commits, none like another, and covers it with `--device cuda:0` and
then with `--device cuda`, caches ready for both. Both must find the same, in the same order.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.commit_cost import findings
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.records import Request, Target
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.gpu import count_gpus
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.validation.protocol import load_protocol


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=40)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--benchmark", default="proteome")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tiny = TinyRepository(Path(folder) / "repository")
        model = HEALTHY[MODEL_FILE].replace(
            "dtype=torch.long)", "dtype=torch.long, device=input_ids.device)"
        )
        for number in range(options.commits):
            tiny.commit({**HEALTHY, MODEL_FILE: f"{model}\n# {number}\n"})
        target = Target(name="cards", location=str(tiny.folder))
        repository = Repository.open(target.location, Path(folder) / "cache")
        history = repository.history("HEAD")
        plan = RunPlan(
            target=target,
            repository=repository,
            commits=repository.commits(history, history),
            benchmarks=(load_benchmark(options.benchmark),),
            request=Request(
                model=options.model, weights="synthetic", device="cuda:0", dtype=options.dtype
            ),
            protocol=load_protocol(),
            cache_folder=Path(folder) / "cache",
        )
        list(run_commits(replace(plan, commits=plan.commits[:1])))  # weights, oracle, disk cache
        seconds, found = {}, {}
        for device in ("cuda:0", "cuda"):
            start = time.monotonic()
            asked = replace(plan, request=replace(plan.request, device=device))
            found[device] = [findings(one) for one in run_commits(asked, on_message=print)]
            seconds[device] = time.monotonic() - start
            print(f"--device {device}: {seconds[device]:.1f} s", flush=True)
        same = sum(a == b for a, b in zip(found["cuda:0"], found["cuda"], strict=True))
        print(
            f"{count_gpus()} cards against 1, {os.cpu_count()} cores, {options.commits} commits: "
            f"{seconds['cuda'] / seconds['cuda:0']:.2f} x the time, {same} results equal"
        )


if __name__ == "__main__":
    main()
