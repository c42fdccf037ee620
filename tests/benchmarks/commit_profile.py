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
import functools
import os
import re
import signal
import stat
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from tests.benchmarks.phases import Spent, Sums, judged, told
from tests.benchmarks.timeline import Timeline, about_call
from virnucpro_monitor.records.calls import NamePackages

MARK = re.compile(r"@(\w+) ([0-9.]+)")
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
PROFILED = {"EmbedPack": 12, "EmbedAlone": 10}  # which of a watched target's passes


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
        first_passes,
        isolating,
        oracles,
        remote,
        reuse,
        server,
        standby,
        target_process,
        warm,
        worker,
    )
    from virnucpro_monitor.validation import (
        comparing,
        exact_model,
        fingerprints,
        hypotheses,
        oracle,
        probe_sides,
        probes,
        signatures,
        trace,
        validate,
    )

    return (
        (server, "map_checkpoints", "server.map_weights"),
        (server, "wait_for_trial", "server.wait_for_trial"),
        (server, "load_for", "server.load_for"),
        (worker, "_warm_up", "judge.start_device"),
        (worker, "_yardstick", "judge.open_yardstick"),
        (exact_model, "load_ahead", "judge.load_ahead"),
        (oracles, "open_oracle", "judge.open_yardstick.oracle"),
        (remote.RemoteSubject, "meet", "judge.wait_for_process"),
        (remote.RemoteSubject, "wait", "judge.wait_for_model"),
        (reuse, "_read", "judge.reuse.read"),
        (reuse, "_gives_the_same", "judge.reuse.sample"),
        (reuse, "_write", "judge.reuse.write"),
        (validate, "open_probes", "judge.open_probes"),
        (validate, "measure", "judge.passes"),
        (comparing, "_compare", "judge.passes.compare"),
        (comparing, "_result", "judge.passes.result"),
        (comparing, "compare_ahead", "judge.load_ahead.compare"),
        (reuse, "read_ahead", "judge.reuse.read_ahead"),
        (validate, "run_probes", "judge.probes"),
        (probes, "oracle_beside", "judge.probes.oracle"),
        (probes, "judge_weights", "judge.probes.weights"),
        (probes, "collator_probe", "judge.probes.collator"),
        (probes, "change_passes", "judge.probes.changes"),
        (probes, "ask_changes", "judge.probes.ask_changes"),
        (probes, "probe_mask", "judge.probes.mask"),
        (probes, "probe_embedding", "judge.probes.embedding"),
        (probes, "probe_positions", "judge.probes.position"),
        (probes, "probe_order", "judge.probes.order"),
        (probes, "shape_packs", "judge.probes.shapes"),
        (probe_sides.Disagreement, "add", "judge.probes.disagreement"),
        (validate, "judge_within_noise", "judge.verdict"),
        (validate, "trace", "judge.trace"),
        (validate, "probe_batches", "judge.trace.packs"),
        (exact_model, "_oracle_model", "judge.trace.oracle_model"),
        (exact_model, "load_checkpoint", "judge.trace.oracle_model.load"),
        (trace, "trace_leak", "judge.trace.leak"),
        (trace, "name_unsteady", "judge.trace.unsteady"),
        (trace._Tracer, "_pooled_errors", "judge.trace.which"),
        (trace._Tracer, "_trace_one", "judge.trace.one"),
        (trace._Tracer, "_group", "judge.trace.group"),
        (trace, "describe", "judge.trace.describe"),
        (signatures, "explain", "judge.trace.explain"),
        (hypotheses, "run_layer", "judge.trace.explain.layer"),
        (exact_model.ExactModel, "layers", "judge.trace.oracle_passes"),
        (validate, "trace_residues", "judge.trace_residues"),
        (validate, "write_embeddings", "judge.keep_embeddings"),
        (oracle, "load_checkpoint", "judge.oracle.load"),
        (fingerprints, "load_checkpoint", "judge.probes.weights.load"),
        (isolating, "confine_files", "target.confine"),
        (target_process, "get_ready", "target.get_ready"),
        (first_passes, "run_first_passes", "target.get_ready.first_passes"),
        (standby, "_populate", "target.get_ready.populate"),
        (target_process.Host, "_loaded", "target.load"),
        (warm, "build_model", "target.load.build"),
    )


def note_calls(timeline: Timeline) -> None:
    """Let the timeline have each call of what is noted, and of what they exchange."""
    import torch

    from virnucpro_monitor.runner import channel, environment, orders, packages, worker
    from virnucpro_monitor.validation import poison

    for place, function, name in noted_functions():
        timeline.note(place, function, name)
    for place, function, name in (
        (torch, "load", "torch.load"),
        (torch.nn.Module, "to", "module.to"),
        (torch.cuda, "memory_snapshot", "fill.snapshot"),
        (poison, "_fill_free_blocks", "fill"),
        (channel, "_plain", "fetch"),
        (channel.Channel, "send", "send"),
        (channel.Channel, "receive", "receive"),
        (worker, "_prepare", "worker.prepare"),
        (worker, "_measure", "worker.measure"),
        (worker, "_yardstick", "worker.yardstick"),
        (environment, "capture_environment", "prepare.environment"),
        (packages, "installed_packages", "prepare.packages"),
        (orders, "decode_job", "server.decode_job"),
    ):
        timeline.note(place, function, name)

    note_questions(timeline)


def note_questions(timeline: Timeline) -> None:
    """Let the timeline have what a judge asks, and what its target answers."""
    from virnucpro_monitor.runner import remote, target_process

    def asked(_: Any, call: Any, *__: Any) -> str:
        return f"ask.{type(call).__name__}"

    def about(subject: Any, call: Any, _: Any, tensors: Any = (), *__: Any) -> str:
        return about_call(subject, call, tensors)

    timeline.note(remote.RemoteSubject, "ask", asked, about)
    timeline.note(target_process.Host, "answer", asked, about_call)


def wait_for_card() -> None:
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def synchronised(answer: Any) -> Any:
    """`Host.answer` of a watched target: it waits for the card, and some passes are profiled."""
    calls = dict.fromkeys(PROFILED, 0)

    def answered(host: Any, call: Any, tensors: Any) -> Any:
        import torch

        wait_for_card()
        kind = type(call).__name__
        calls[kind] = calls.get(kind, 0) + 1
        if calls[kind] != PROFILED.get(kind):
            found = answer(host, call, tensors)
            wait_for_card()
            return found
        with torch.profiler.profile() as profile:
            found = answer(host, call, tensors)
            wait_for_card()
        averages = profile.key_averages()
        for key in ("self_cpu_time_total", "self_device_time_total"):
            table = averages.table(sort_by=key, row_limit=16, max_name_column_width=50)
            host.timeline.tell(f"{kind}, by {key}\n{table}")
        return found

    return answered


def serve() -> None:
    """Be the fork server, and all that it forks, with notes from the moment that it has imported.

    Until then it is what it is elsewhere: some things pass beside the import.
    """
    from virnucpro_monitor.runner import server

    preload, start = server.preload, time.monotonic()

    def preload_and_note() -> None:
        preload()
        note_all(start)

    server.preload = preload_and_note
    server.main()


def note_all(start: float) -> None:
    """Let a fork server that has started then, and all that it forks, note what they do."""
    import torch

    from virnucpro_monitor.records.messages import decode_job
    from virnucpro_monitor.runner import (
        channel,
        confinement,
        orders,
        remote,
        server,
        standby,
        target_process,
        worker,
    )
    from virnucpro_monitor.runner.containment import Contained
    from virnucpro_monitor.runner.supervisor import supervise

    sums = Sums()
    marked(target_process.Host, "load", "load_begun", "load_done")
    marked(worker, "_judge", "judging_begun", "judging_done")
    role = "server"
    for place, function, name in noted_functions():
        sums.note(place, function, name)
    for place, function, name in (
        (torch, "load", "torch.load"),
        (torch.nn.Module, "load_state_dict", "load_state_dict"),
        (torch.nn.Module, "to", "module.to"),
    ):
        sums.note(place, function, lambda *_, name=name: f"{role}.{name}")
    sums.note(
        remote.RemoteSubject, "ask", lambda _subject, call, *_: f"judge.ask.{type(call).__name__}"
    )
    sums.note(
        target_process.Host,
        "answer",
        lambda _host, call, *_: f"target.answer.{type(call).__name__}",
    )
    sums.note(worker, "encode", "judge.encode")
    folder, watched = os.environ.get("VNPM_CALLS"), "VNPM_WATCHED" in os.environ
    timeline = None if folder is None else Timeline.open(Path(folder), "server")
    if timeline is not None:
        note_calls(timeline)
        timeline.add("server.imports", start)
    serving, judging, meeting = server._serve_target, worker.run_job, remote.RemoteSubject.meet
    going, answer, waiting = standby.wait_for_go, target_process.Host.answer, Contained.wait
    is_first, ends = True, dict[str, float]()

    def decoded(line: bytes) -> Any:
        nonlocal is_first
        if not is_first:  # what the server did for the job before it
            sums.clear()
        is_first = False
        if timeline is not None:
            timeline.write()
        return decode_job(line)

    def be_target(*arguments: Any, **named: Any) -> Any:
        nonlocal role
        role = "target"
        sums.note_imports("target.imports")
        sums.note(channel, "_plain", "target.fetch")
        sums.note(channel.Channel, "send", "target.send")
        sums.note(channel.Channel, "receive", "target.waits")
        sums.enter("target")
        if timeline is not None:
            timeline.restart("target")
            if watched:
                target_process.Host.timeline = timeline  # type: ignore[attr-defined]
                timeline.sample()
        return serving(*arguments, **named)

    def go(*arguments: Any) -> None:
        going(*arguments)
        sums.set_aside("standby.")

    def be_judge(*arguments: Any, held: bool = False, **named: Any) -> Any:
        def meet(subject: Any) -> None:
            meeting(subject)
            sums.set_aside("standby.")

        nonlocal role
        role = "judge"
        if held:
            remote.RemoteSubject.meet = meet  # type: ignore[method-assign,assignment]
        if timeline is None:
            sums.settle = wait_for_card
        else:
            timeline.restart(f"judge of {type(arguments[0]).__name__}")
            if watched:
                timeline.sample()
        sums.note_imports("judge.imports")
        sums.note(channel.Channel, "_take", "judge.read")
        sums.note(channel.Channel, "send", "judge.send")
        sums.enter("judge")
        try:
            return judging(*arguments, held=held, **named)
        finally:
            sums.tell()
            if timeline is not None:
                timeline.write()

    def answered(host: Any, call: Any, tensors: Any) -> Any:
        if isinstance(call, NamePackages):  # the last that is asked of a target
            sums.tell()
            if timeline is not None:
                timeline.write()
        return answer(host, call, tensors)

    def waited(child: Any, timeout_s: float) -> Any:
        ends["judge_gone"] = time.monotonic()
        status = waiting(child, timeout_s)
        ends["target_gone"] = time.monotonic()
        return status

    def supervised(*arguments: Any, **named: Any) -> Any:
        ending = supervise(*arguments, **named)
        ends["watched"] = time.monotonic()
        marks = "".join(f"@{name} {at}\n" for name, at in ends.items())
        return replace(ending, output=f"{ending.output}\n{marks}")

    def closed(*, but: set[int]) -> None:
        closing(but=but if timeline is None else {*but, timeline.descriptor})

    closing = confinement.close_descriptors
    if watched:
        answer = synchronised(answer)
    for place, function, ours in (
        (server, "close_descriptors", closed),
        (server, "_serve_target", be_target),
        (worker, "run_job", be_judge),
        (orders, "decode_job", decoded),
        (server, "supervise", supervised),
        (target_process, "wait_for_go", go),
        (Contained, "wait", waited),
        (target_process.Host, "answer", answered),
    ):
        setattr(place, function, ours)


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
        client.SERVER_MODULE = "tests.benchmarks.commit_profile"
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
    # The fork server gets no arguments but --spawn, and its orders from standard input's socket.
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        serve()
    else:
        main()
