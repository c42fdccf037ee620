"""Where the seconds of one commit go, phase by phase: on the demo's history, or any target's.

    python -m tests.benchmarks.commit_profile --limit 6
    python -m tests.benchmarks.commit_profile --target PATH --package NAME --commits A..B \
        --model esm2_t33_650M_UR50D --device cuda:0 --dtype float16 --benchmark proteome

Measures the same commits one at a time, with processes that stand by and without them, start
included, in turns. A line is printed for each commit as it ends; the tables of means come at the
end, or as soon as it is told to end (SIGTERM, Ctrl-C), of what there is by then. They leave out
each start's first commit, but where there is no other. A commit that could not be judged ends it
with exit code 1, and nothing is averaged. Weights, oracle and the disk's cache are made ready
before, by a commit that is told apart.

The first table has the phases of commits that passed and that did not, from the caller's clock and
from what every process notes of where it is, in what it prints, which is kept with the run; the
fork server is this module itself, so that the notes are in all that it forks. The second has the
functions: seconds, those of them in which no other noted function ran ("own": these add up to a
process's whole), of the processor, and calls. "judge" is the process that judges, "target" the one
that runs the commit, "server" the one that forks both for this job, "caller" this one. What begins
with "standby" came before the commit was named. What a judge waits for an answer ("judge.ask") is
what the target computes ("target.answer"), brings from the card ("target.fetch"), writes to the
channel ("target.send") and what the judge reads of it ("judge.read"). The judge waits for the card
wherever a row ends, so that what it asked of the card counts where it was asked.

With `--calls FOLDER` every process writes each of its calls to FOLDER/SIDE as well
(`tests.benchmarks.timeline`), and the judge no longer waits for the card; the side "watched" stands
by, and looks closer there.
"""

import argparse
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from tests.benchmarks.commit_notes import MARK
from tests.benchmarks.phases import Spent, Sums, judged, told

PHASES = {
    "between two commits": ("last", "begun"),
    "checkout": ("begun", "asked"),
    "start of the processes": ("asked", "load_begun"),
    "commit's code, model": ("load_begun", "load_done"),
    "wait for the judge": ("load_done", "judging_begun"),
    "judging": ("judging_begun", "judging_done"),
    "verdict comes to the caller": ("judging_done", "heard"),
    "judge's process ends": ("heard", "judge_gone"),
    "target's process ends": ("judge_gone", "target_gone"),
    "all it left ends": ("target_gone", "watched"),
    "report": ("watched", "ended"),
    "whole commit": ("begun", "ended"),
    "since the last one ended": ("last", "ended"),
}
SIDES = {"standing by": True, "without": False, "watched": True}


@dataclass(slots=True)
class Measured:
    """One commit: how it came out, when what was reached, and what its functions took.

    Attributes:
        first: of its start.
    """

    name: str
    first: bool
    outcome: str = ""
    marks: dict[str, float] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)

    def span(self, begin: str, end: str) -> float | None:
        if begin in self.marks and end in self.marks:
            return max(0.0, self.marks[end] - self.marks[begin])
        return None

    def line(self) -> str:
        spans = {phase: self.span(*ends) for phase, ends in PHASES.items()}
        told = ", ".join(f"{phase} {s:.2f}" for phase, s in spans.items() if s and s >= 0.005)
        return f"{self.name} {self.outcome}{' (first of its start)' if self.first else ''}: {told}"


class Watch:
    """The commits of one way to start, by what this process sees and what theirs printed."""

    def __init__(self) -> None:
        self.commits: list[Measured] = []
        self.first: list[float] = []  # seconds from the call to the first verdict
        self.whole: list[float] = []

    @contextmanager
    def start(self, title: str, calls: Path | None = None) -> Iterator[None]:
        """Listen to what runs within: one start, whose processes' calls go into a folder."""
        from virnucpro_monitor.records.messages import Judged
        from virnucpro_monitor.runner import client, workers
        from virnucpro_monitor.runner.seats import Seats
        from virnucpro_monitor.runner.workers import Workers

        measure, run, module = Workers.measure, client.WorkerPool.run, client.SERVER_MODULE
        kept = [(Workers, "_check_out"), (Seats, "keep_ready"), (workers, "target_python")]
        originals = [getattr(place, name) for place, name in kept]
        sums, start, now = Sums(), time.monotonic(), list[Measured]()
        own = threading.local()  # each commit's thread: one may begin while another ends

        def noted_measure(*arguments: Any, **named: Any) -> Iterator[Any]:
            marks = {"begun": time.monotonic()}
            last = now[-1] if now else None
            one = Measured(f"{title} {arguments[1].commit.short}", not now, marks=marks)
            now.append(one)
            own.one = one
            sums.clear()
            for report in measure(*arguments, **named):
                text = str(report.documents.get("output"))
                text += report.failure.log if report.failure else ""
                one.marks |= {name: float(at) for name, at in MARK.findall(text)}
                one.outcome = report.run.outcome.value
                one.spent = told(text) | sums.spent
                one.marks["ended"] = time.monotonic()
                if last is not None and "ended" in last.marks:
                    one.marks["last"] = last.marks["ended"]
                print(one.line(), flush=True)
                self.commits.append(one)
                yield report

        def noted_run(*arguments: Any, **named: Any) -> Any:
            one: Measured | None = getattr(own, "one", None)
            if one is not None:
                one.marks["asked"] = time.monotonic()
            for event in run(*arguments, **named):
                if one is not None and isinstance(event, Judged):
                    one.marks["heard"] = time.monotonic()
                yield event

        os.environ.pop("VNPM_WATCHED", None)
        os.environ.pop("VNPM_CALLS", None)
        if calls is not None:
            os.environ["VNPM_CALLS"] = str(calls / title.replace(" ", "-"))
            if title == "watched":
                os.environ["VNPM_WATCHED"] = "1"
        client.SERVER_MODULE = "tests.benchmarks.commit_notes"
        Workers.measure, client.WorkerPool.run = noted_measure, noted_run  # type: ignore[method-assign]
        for place, name in kept:
            sums.note(place, name, f"caller.{name.strip('_')}")
        try:
            yield
            self.whole.append(time.monotonic() - start)
        finally:
            client.SERVER_MODULE = module
            Workers.measure, client.WorkerPool.run = measure, run  # type: ignore[method-assign]
            for (place, name), original in zip(kept, originals, strict=True):
                setattr(place, name, original)
            if now and "ended" in now[0].marks:
                self.first.append(now[0].marks["ended"] - start)


def tables(watches: dict[str, Watch], num_commits: int) -> str:
    """All tables, of what was measured so far."""
    columns: dict[str, list[Measured]] = {}
    for side, watch in watches.items():
        later = [one for one in watch.commits if not one.first] or watch.commits
        for outcome in ("passed", "failed"):
            some = [one for one in later if one.outcome == outcome]
            if some:
                columns[f"{outcome} ({len(some)}), {side}"] = some
    lines = ["", "seconds a commit (mean)", *(f"  [{n}] {one}" for n, one in enumerate(columns))]
    lines.append("".join([" " * 34, *(f"{f'[{number}]':>10}" for number in range(len(columns)))]))
    for phase, ends in PHASES.items():
        lines.append(
            row(phase, [mean(one.span(*ends) for one in some) for some in columns.values()])
        )
    lines.append("")
    for side, watch in watches.items():
        for what, seconds in (
            ("call to first verdict", watch.first),
            (f"all {num_commits} commits, start included", watch.whole),
        ):
            lines.append(row(f"{what}, {side}", [mean(seconds)], width=50))
    for column, some in columns.items():
        lines += ["", f"{column}: {'':{max(0, 46 - len(column))}}"]
        lines.append(f"{'':46}{'seconds':>10}{'own':>10}{'processor':>11}{'calls':>8}")
        names = {name for one in some for name in one.spent}
        for name in sorted(names):
            each = [one.spent.get(name, Spent()) for one in some]
            took, own, processor, calls = (
                mean(map(float, part)) for part in zip(*each, strict=True)
            )
            lines.append(f"{name:46}{took:10.3f}{own:10.3f}{processor:11.3f}{calls:8.1f}")
    return "\n".join(lines)


def mean(values: Iterable[float | None]) -> float:
    known = [one for one in values if one is not None]
    return statistics.fmean(known) if known else float("nan")


def row(name: str, values: Sequence[float], *, width: int = 34) -> str:
    return f"{name:{width}}" + "".join(f"{one:10.3f}" for one in values)


def main() -> None:
    from virnucpro_monitor.cli.demo import TARGET_NAME, TOKEN_BUDGET
    from virnucpro_monitor.cli.sample.repository import build_repository
    from virnucpro_monitor.data.benchmarks import load_benchmark
    from virnucpro_monitor.records import Request, Target
    from virnucpro_monitor.runner.checkout import Repository
    from virnucpro_monitor.runner.commits import run_commits
    from virnucpro_monitor.runner.plan import RunPlan
    from virnucpro_monitor.runner.selection import select_revisions
    from virnucpro_monitor.validation.protocol import load_protocol

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", help="default: the demo's sample repository")
    parser.add_argument("--package")
    parser.add_argument("--commits", nargs="+", default=[])
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="esm2_t6_8M_UR50D")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--benchmark", default="seed")
    parser.add_argument("--cache", type=Path, help="keeps weights and oracles for the next call")
    sides = [side for side in SIDES if side != "watched"]
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=sides)
    parser.add_argument("--calls", type=Path, help="a folder for each process's calls")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    watches = {side: Watch() for side in options.sides}
    before = Watch()

    def tell() -> None:
        print(tables({"making ready": before, **watches}, options.limit), flush=True)

    def end(number: int, _frame: Any) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)
        tell()  # before what runs is ended, which may be cut short
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder)
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
        with before.start("making ready"):  # weights, oracle, disk cache
            list(judged(run_commits(replace(plan, commits=plan.commits[:1]))))
        for _ in range(options.rounds):
            for side, watch in watches.items():
                with watch.start(side, options.calls):
                    list(judged(run_commits(replace(plan, standby=SIDES[side]))))
        tell()


if __name__ == "__main__":
    main()
