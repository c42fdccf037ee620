"""Where the seconds of one commit go, phase by phase: on the demo's history, or any target's.

    python -m tests.benchmarks.commit_profile --limit 6
    python -m tests.benchmarks.commit_profile --target PATH --package NAME --commits A..B \
        --model esm2_t33_650M_UR50D --device cuda:0 --dtype float16 --benchmark proteome

Measures the same commits one at a time, without processes that stand by and with them, start
included, in turns, and prints the mean of each phase over all commits but each start's first, then
the seconds from the call to the first verdict. Weights, oracle and the disk's cache are made ready
before. Every process notes when it is where, in what it prints, which is kept with the run; the
fork server is this module itself, so that the notes are in all that it forks. Below the phases
stand the sums of single functions, a commit: in the judge's process ("judge"), in the target's
("target"), in the fork server, and in the caller. What a judge waits for an answer ("judge.ask") is
what the target computes ("target.answer"), brings from the card ("target.fetch"), writes to the
channel ("target.send") and what the judge reads of it ("judge.read").
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

from tests.benchmarks.phases import Sums, told
from virnucpro_monitor.records.calls import NamePackages

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


def noted_functions() -> tuple[tuple[Any, str, str], ...]:
    """What is summed up wherever it runs: where it stands, its name there, and the row's name."""
    from virnucpro_monitor.runner import (
        isolating,
        oracles,
        remote,
        reuse,
        server,
        target_process,
        worker,
    )
    from virnucpro_monitor.validation import exact_model, probes, trace, validate

    return (
        (server, "_preload", "server.imports"),
        (server, "_map_checkpoints", "server.map_weights"),
        (server, "try_confined_cuda", "server.try_confined_cuda"),
        (worker, "_warm_up", "judge.start_device"),
        (worker, "_yardstick", "judge.open_yardstick"),
        (oracles, "open_oracle", "judge.open_yardstick.oracle"),
        (remote.RemoteSubject, "meet", "judge.wait_for_process"),
        (remote.RemoteSubject, "wait", "judge.wait_for_model"),
        (reuse, "_read", "judge.reuse.read"),
        (reuse, "_gives_the_same", "judge.reuse.sample"),
        (reuse, "_write", "judge.reuse.write"),
        (validate, "open_probes", "judge.open_probes"),
        (validate, "measure", "judge.passes"),
        (validate, "run_probes", "judge.probes"),
        (probes, "oracle_beside", "judge.probes.oracle"),
        (probes, "judge_weights", "judge.probes.weights"),
        (validate, "trace", "judge.trace"),
        (trace, "_load_oracle_model", "judge.trace.oracle_model"),
        (exact_model.ExactModel, "layers", "judge.trace.oracle_passes"),
        (validate, "trace_residues", "judge.trace_residues"),
        (isolating, "confine_files", "target.confine"),
        (target_process, "get_ready", "target.get_ready"),
        (target_process.Host, "_loaded", "target.load"),
    )


def serve() -> None:
    """Be the fork server, and all that it forks, with notes."""
    from virnucpro_monitor.runner import channel, remote, server, target_process, worker

    sums = Sums()
    marked(target_process.Host, "load", "load_begun", "load_done")
    marked(worker, "_judge", "judging_begun", "judging_done")
    for place, function, name in noted_functions():
        sums.note(place, function, name)
    sums.note(
        remote.RemoteSubject, "ask", lambda _subject, call, *_: f"judge.ask.{type(call).__name__}"
    )
    sums.note(
        target_process.Host,
        "answer",
        lambda _host, call, *_: f"target.answer.{type(call).__name__}",
    )
    serving, judging = server._serve_target, worker.run_job
    answer = target_process.Host.answer

    def be_target(*arguments: Any, **named: Any) -> Any:
        sums.note_imports("target.imports")
        sums.note(channel, "_plain", "target.fetch")
        sums.note(channel.Channel, "send", "target.send")
        return serving(*arguments, **named)

    def be_judge(*arguments: Any, **named: Any) -> Any:
        sums.note_imports("judge.imports")
        sums.note(channel.Channel, "_take", "judge.read")
        sums.note(channel.Channel, "send", "judge.send")
        try:
            return judging(*arguments, **named)
        finally:
            sums.tell()

    def answered(host: Any, call: Any, tensors: Any) -> Any:
        if isinstance(call, NamePackages):  # the last that is asked of a target
            sums.tell()
        return answer(host, call, tensors)

    server._serve_target, worker.run_job = be_target, be_judge
    target_process.Host.answer = answered  # type: ignore[method-assign,assignment]
    server.main()


class Watch:
    """The marks of each commit, in this process and, from what it printed, in its own."""

    def __init__(self) -> None:
        self.commits: list[dict[str, float]] = []
        self.sums: list[dict[str, tuple[float, int]]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        from virnucpro_monitor.runner import client
        from virnucpro_monitor.runner.workers import Workers

        measure, run = Workers.measure, client.WorkerPool.run
        module, marks, sums = client.SERVER_MODULE, self.commits, self.sums

        def noted_measure(*arguments: Any, **named: Any) -> Iterator[Any]:
            found = {"begun": time.monotonic()}
            marks.append(found)
            for report in measure(*arguments, **named):
                text = str(report.documents.get("output"))
                text += report.failure.log if report.failure else ""
                found |= {name: float(at) for name, at in MARK.findall(text)}
                sums.append(told(text))
                found["ended"] = time.monotonic()
                yield report

        def noted_run(*arguments: Any, **named: Any) -> Any:
            if marks:
                marks[-1]["asked"] = time.monotonic()
            return run(*arguments, **named)

        client.SERVER_MODULE = "tests.benchmarks.commit_profile"
        Workers.measure, client.WorkerPool.run = noted_measure, noted_run  # type: ignore[method-assign]
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
        summed: dict[bool, list[dict[str, tuple[float, int]]]] = {False: [], True: []}
        for _ in range(options.rounds):
            for standby, watch in watches.items():
                with watch.listening():
                    watch.commits.clear()
                    watch.sums.clear()
                    start = time.monotonic()
                    list(run_commits(replace(plan, standby=standby)))
                    whole[standby].append(time.monotonic() - start)
                    first[standby].append(watch.commits[0]["ended"] - start)
                    steady[standby] += watch.commits[1:]
                    summed[standby] += watch.sums[1:]
        print(f"{'':28}{'without':>10}{'standing by':>14}{'ratio':>8}")
        for phase, (begin, end) in PHASES.items():
            row(phase, spans(steady[False], begin, end), spans(steady[True], begin, end))
        row("call to first verdict", first[False], first[True])
        row(f"all {len(plan.commits)} commits, start included", whole[False], whole[True])
        print(f"\n{'a commit':40}{'without':>10}{'standing by':>14}{'ratio':>8}{'calls':>8}")
        for name in sorted({name for some in summed.values() for one in some for name in one}):
            base, now = ([one.get(name, (0.0, 0)) for one in summed[side]] for side in summed)
            calls = statistics.fmean([float(count) for _, count in now] or [0.0])
            row(name, [one[0] for one in base], [one[0] for one in now], calls, width=40)


def spans(commits: list[dict[str, float]], begin: str, end: str) -> list[float]:
    return [max(0.0, one[end] - one[begin]) for one in commits if begin in one and end in one]


def row(
    name: str,
    without: list[float],
    standing_by: list[float],
    calls: float | None = None,
    *,
    width: int = 28,
) -> None:
    base, now = statistics.fmean(without or [0.0]), statistics.fmean(standing_by or [0.0])
    ratio = now / base if base else float("nan")
    end = "" if calls is None else f"{calls:8.0f}"
    print(f"{name:{width}}{base:10.3f}{now:14.3f}{ratio:8.2f}{end}")


if __name__ == "__main__":
    # The fork server gets no arguments but --spawn, and its orders from standard input's socket.
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        serve()
    else:
        main()
