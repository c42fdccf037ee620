"""What measuring a release costs beside one more commit of the built-in target, in CPU seconds.

    python -m tests.benchmarks.release_cost --folder FOLDER [--benchmark seed] [--rounds 5]

Both on the CPU in FP32 with synthetic weights of ESM-2 8M. A release runs in an environment of its
own, which is made before the clock starts and stays in the folder; its interpreter's start is part
of it. One more is the difference between two and one of each kind, so that what a start does once
does not count.
"""

import argparse
import resource
from dataclasses import replace
from pathlib import Path

from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.records import Commit, Outcome, Request, Target
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.sources import open_source
from virnucpro_monitor.validation.protocol import load_protocol

RELEASES = ("5.3.0", "5.24.0")


def cpu_s(plan: RunPlan) -> float:
    """User and system seconds of all processes of one start."""

    def used() -> float:
        known = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        return sum(one.ru_utime + one.ru_stime for one in known)

    before = used()
    outcomes = {report.run.outcome for report in run_commits(plan)}
    assert outcomes == {Outcome.PASSED}, outcomes
    return used() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--benchmark", default="seed")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cache = options.folder.resolve() / "cache"
    released = Target(
        name="hf", location="pypi:transformers", adapter="hf-esm", branch=f">={RELEASES[0]}"
    )
    source = open_source(released, cache)
    builtin = RunPlan(
        target=Target(name="builtin", location="", adapter="builtin"),
        repository=None,
        commits=tuple(Commit(hash=f"{number:040x}", subject="again") for number in range(2)),
        benchmarks=(load_benchmark(options.benchmark),),
        request=Request(
            model="esm2_t6_8M_UR50D", weights="synthetic", device="cpu", dtype="float32"
        ),
        protocol=load_protocol(),
        cache_folder=cache,
        force=True,
        reuse=False,
        workers=1,
    )
    plans = {
        "commit": builtin,
        "release": replace(
            builtin, target=released, repository=source, commits=source.commits(RELEASES)
        ),
    }
    for plan in plans.values():
        cpu_s(plan)  # weights, oracle, environments
    total = dict.fromkeys(plans, 0.0)
    for number in range(options.rounds):
        one_more = {
            name: cpu_s(plan) - cpu_s(replace(plan, commits=plan.commits[:1]))
            for name, plan in plans.items()
        }
        told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in one_more.items())
        ratio = one_more["release"] / one_more["commit"]
        print(f"round {number + 1}: {told} CPU; release / commit {ratio:.2f}", flush=True)
        total = {name: total[name] + seconds for name, seconds in one_more.items()}
    print(f"all rounds: release / commit {total['release'] / total['commit']:.2f}")


if __name__ == "__main__":
    main()
