"""Where the seconds of one commit go, phase by phase: on the demo's history, or any target's.

    python -m tests.benchmarks.commit_profile --limit 6
    python -m tests.benchmarks.commit_profile --target PATH --package NAME --commits A..B \
        --model esm2_t33_650M_UR50D --device cuda:0 --dtype float16 --benchmark proteome

Measures the same commits one at a time, without processes that stand by and with them, start
included, in turns, and prints the mean of each phase over all commits but each start's first, then
the seconds from the call to the first verdict. Weights, oracle and the disk's cache are made ready
before. Every process notes when it is where, in what it prints, which is kept with the run; the
fork server is this module itself, so that the notes are in all that it forks.
"""

import argparse
import functools
import os
import re
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

MARK = re.compile(r"@(\w+) ([0-9.]+)")
PHASES = {
    "checkout": ("begun", "asked"),
    "start of the processes": ("asked", "load_begun"),
    "commit's code, model": ("load_begun", "load_done"),
    "wait for the judge": ("load_done", "judging_begun"),
    "judging": ("judging_begun", "judging_done"),
    "end": ("judging_done", "ended"),
    "whole commit": ("begun", "ended"),
}


def mark(name: str) -> None:
    print(f"@{name} {time.monotonic()}", flush=True)


def marked(place: Any, function: str, begun: str, done: str) -> None:
    """Let a function note when it is entered and left."""
    original = getattr(place, function)

    @functools.wraps(original)
    def noted(*arguments: Any, **named: Any) -> Any:
        mark(begun)
        try:
            return original(*arguments, **named)
        finally:
            mark(done)

    setattr(place, function, noted)


def serve() -> None:
    """Be the fork server, and all that it forks, with notes."""
    from virnucpro_monitor.runner import server, target_process, worker

    marked(target_process.Host, "load", "load_begun", "load_done")
    marked(worker, "_judge", "judging_begun", "judging_done")
    server.main()


class Watch:
    """The marks of each commit, in this process and, from what it printed, in its own."""

    def __init__(self) -> None:
        self.commits: list[dict[str, float]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        from virnucpro_monitor.runner import client
        from virnucpro_monitor.runner.workers import Workers

        measure, run = Workers.measure, client.WorkerPool.run
        module, marks = client.SERVER_MODULE, self.commits

        def noted_measure(*arguments: Any, **named: Any) -> Iterator[Any]:
            found = {"begun": time.monotonic()}
            marks.append(found)
            for report in measure(*arguments, **named):
                text = str(report.documents.get("output"))
                text += report.failure.log if report.failure else ""
                found |= {name: float(at) for name, at in MARK.findall(text)}
                found["ended"] = time.monotonic()
                yield report

        def noted_run(*arguments: Any, **named: Any) -> Any:
            if marks:
                marks[-1]["asked"] = time.monotonic()
            return run(*arguments, **named)

        client.SERVER_MODULE = "tests.benchmarks.commit_profile"
        Workers.measure, client.WorkerPool.run = noted_measure, noted_run  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            client.SERVER_MODULE = module
            Workers.measure, client.WorkerPool.run = measure, run  # type: ignore[method-assign]


def main() -> None:
    from virnucpro_monitor.cli.demo import MODEL, TARGET_NAME, TOKEN_BUDGET
    from virnucpro_monitor.cli.sample.repository import build_repository
    from virnucpro_monitor.data.benchmarks import load_benchmark
    from virnucpro_monitor.records import Request, Target
    from virnucpro_monitor.runner.checkout import Repository
    from virnucpro_monitor.runner.commits import run_commits
    from virnucpro_monitor.runner.plan import RunPlan
    from virnucpro_monitor.runner.selection import select_revisions
    from virnucpro_monitor.validation.protocol import load_protocol

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", help="default: the demo's sample repository")
    parser.add_argument("--package")
    parser.add_argument("--commits", nargs="+", default=[])
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--benchmark", default="seed")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        place = Path(options.target).resolve() if options.target else cache / "demo" / TARGET_NAME
        package = options.package if options.target else TARGET_NAME
        hashes = [] if options.target else list(build_repository(place))
        target = Target(name="profiled", location=str(place), package=package)
        repository = Repository.open(target.location, cache)
        chosen = select_revisions(repository, target, options.commits or hashes).commits
        plan = RunPlan(
            target=target,
            repository=repository,
            commits=chosen[: options.limit],
            benchmarks=(load_benchmark(options.benchmark),),
            request=Request(
                model=options.model,
                weights="synthetic",
                device=options.device,
                dtype=options.dtype,
                token_budget=4096 if options.target else TOKEN_BUDGET,
            ),
            protocol=load_protocol(),
            cache_folder=cache,
            force=True,
            workers=1,
        )
        list(run_commits(replace(plan, commits=plan.commits[:1])))  # weights, oracle, disk cache
        watches = {False: Watch(), True: Watch()}
        first: dict[bool, list[float]] = {False: [], True: []}
        whole: dict[bool, list[float]] = {False: [], True: []}
        steady: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for standby, watch in watches.items():
                with watch.listening():
                    watch.commits.clear()
                    start = time.monotonic()
                    list(run_commits(replace(plan, standby=standby)))
                    whole[standby].append(time.monotonic() - start)
                    first[standby].append(watch.commits[0]["ended"] - start)
                    steady[standby] += watch.commits[1:]
        print(f"{'':28}{'without':>10}{'standing by':>14}{'ratio':>8}")
        for phase, (begin, end) in PHASES.items():
            row(phase, *(spans(steady[standby], begin, end) for standby in (False, True)))
        row("call to first verdict", first[False], first[True])
        row(f"all {len(plan.commits)} commits, start included", whole[False], whole[True])


def spans(commits: list[dict[str, float]], begin: str, end: str) -> list[float]:
    return [max(0.0, one[end] - one[begin]) for one in commits if begin in one and end in one]


def row(name: str, without: list[float], standing_by: list[float]) -> None:
    base, now = statistics.fmean(without or [0.0]), statistics.fmean(standing_by or [0.0])
    print(f"{name:28}{base:10.3f}{now:14.3f}{now / base if base else float('nan'):8.2f}")


if __name__ == "__main__":
    # The fork server gets no arguments but --spawn, and its orders from standard input's socket.
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        serve()
    else:
        main()
