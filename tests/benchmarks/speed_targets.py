"""Every target of speed as one table, each row beside its base from the same call.

    python -m tests.benchmarks.speed_targets --out FOLDER --within 560 --target PATH \
        --commits A..B --cards 1 2 4 --peers FOLDERS --before CHECKOUT --engine-before CHECKOUT
    python -m tests.benchmarks.speed_targets --out FOLDER --only demo memory
    python -m tests.benchmarks.speed_targets --out FOLDER --cpu

Each step is a benchmark of this folder, whose whole output goes to FOLDER/STEP.txt; its rows are
printed as it ends. The whole table, in order, is printed last and kept as FOLDER/table.md and
table.json. Weights and oracles are made ready once, in `--cache`.

Where cores and cards are enough, steps that a neighbour does not slow (packed engines; the demo on
two cores of its own; memory; making ready) run beside one another first, each on its own card and
cores. Everything else runs alone, the most important first; with
`--within` a step that would not fit into what is left is not begun, and one that does not is ended.
A row without a figure says why.

`--before` is a checkout of the version whose first verdict and demo today's are held against,
`--engine-before` one whose packed engine small models' is. `--cpu` tries all of it without a card:
processes in place of cards, the demo's sample and model, a few sequences; its figures mean nothing.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.speed_rows import BIG, EFFICIENT, HEAD, HUGE, OURS, SMALL, VIRNUCPRO, Outputs
from virnucpro_monitor.cli.demo import MODEL as DEMO_MODEL
from virnucpro_monitor.runner.gpu import count_gpus, find_gpu

HERE = Path(__file__).resolve().parents[2]
PATIENCE_S = 15.0  # for a step that is told to end
TIMES_USUAL = 3  # as long as a step usually takes, and one that hangs leaves time for the others
DASK_BY_LOCAL = 1.3  # at most about so much of the local engine's time, as it was
CORES_BESIDE = 4  # at least, for each step that runs beside others


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        name: of its output, and what `--only` begins.
        module: of this folder.
        seconds: that it took on an H200, the last time that it was looked at.
        checkout: whose code it runs.
        lane: of those that run beside others: those of one lane take turns. "demo" has two cores.
        needs: options without which it cannot run.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    seconds: float
    checkout: Path = HERE
    lane: str = ""
    needs: tuple[str, ...] = ()


def steps(options: argparse.Namespace, cache: Path) -> Iterator[Step]:
    """All steps: first those that run beside others, then the most important first."""
    out, cpu = options.out, options.cpu
    device, dtype = ("cpu", "float32") if cpu else ("cuda:0", "float16")
    setup = ("--model", options.model, "--device", device, "--dtype", dtype)
    setup += ("--benchmark", "seed" if cpu else "proteome", "--cache", str(cache))
    target: tuple[str, ...] = ()
    if options.target:
        target = ("--target", options.target, "--package", options.package)
        target += ("--commits", *options.commits)
    needs = () if cpu else ("target", "commits")
    starts = (*target, *setup, "--json", str(out / "starts.jsonl"))
    before = ("--before", str(options.before)) if options.before else ()
    peers = ("--peers", *options.peers) if options.peers else ()
    sized = ("--device", "cpu", "--dtype", "float32", "--backends", "sdpa") if cpu else ()
    sized += ("--count", "2", "--rounds", "1") if cpu else ()
    sized += () if cpu else ("--backends", "triton", "flash-attn")
    small = tuple(SMALL)[: 1 if cpu else None]
    memory = ("--folder", str(cache), "--sequences", "20" if cpu else "1000")

    def engine(
        name: str, seconds: float, models: tuple[str, ...], *only: str, lane: str = ""
    ) -> Step:
        checkout = options.engine_before if name == "engine-before" else HERE
        arguments = ("--models", *models, "--only", *only, *sized, *peers)
        arguments += () if cpu else ("--rounds", "5" if lane == "small" else "3")
        arguments += ("--json", str(out / f"{name}.json"))
        needed = ("engine_before",) if name == "engine-before" else ()
        return Step(name, "packed_engine", arguments, seconds, checkout, lane=lane, needs=needed)

    def cost(name: str, seconds: float, *arguments: str, lane: str = "") -> Step:
        return Step(name, "commit_cost", (*starts, *arguments), seconds, lane=lane, needs=needs)

    def scaling(engine: str, cards: int, seconds: float) -> Step:
        arguments = ("--engines", engine, "--cards", str(cards))
        arguments += ("--limit", str(options.cards_limit))
        name = f"{engine} {cards}"
        return Step(name, "scaling", (*starts, *arguments), seconds, needs=needs)

    there = [n for n in options.cards if cpu or n <= count_gpus()] or [min(options.cards)]
    first = ("first", *target, *setup, *before, "--json", str(out / "first.jsonl"))
    if not cpu:
        yield engine("engine-650M", 40, (BIG,), OURS, VIRNUCPRO, lane="650M")
        yield engine("engine-3B", 60, (HUGE,), OURS, VIRNUCPRO, lane="3B")
    # One after the other on one card: the first is bound by the host, the second by the card.
    yield engine("engine-before", 35, small, OURS, lane="small")
    yield engine("engine-small", 45, small, OURS, EFFICIENT, lane="small")
    yield cost("ready", 45, "--sides", lane="ready")
    if options.before:
        words = (*first, "--ready")
        yield Step("ready-before", "command_times", words, 55, lane="before", needs=needs)
    demo = ("demo", *before, "--json", str(out / "demo.jsonl"))
    yield Step("demo", "command_times", demo, 60, lane="demo")
    yield Step("memory", "validation_memory", memory, 60, lane="memory")

    most, fewest = max(there), min(there)
    yield cost("warm", 40, "--limit", str(options.limit), "--sides", "warm")
    yield scaling("local", fewest, 90)
    if most > fewest:
        yield scaling("local", most, 35 if most > 2 else 55)
    yield cost(
        "fresh", 34 * options.fresh_limit, "--limit", str(options.fresh_limit), "--sides", "fresh"
    )
    yield Step("first", "command_times", first, 40, needs=needs)
    if most > fewest:
        yield scaling("dask", most, 40 if most > 2 else 60)
    rest = sorted({*options.cards} - {most, fewest})
    for cards in rest:
        yield scaling("local", cards, 55)
    yield scaling("dask", fewest, 100)
    for cards in rest:
        yield scaling("dask", cards, 60)


class Bench:
    """Runs steps within the time there is, and says what came of each."""

    def __init__(self, options: argparse.Namespace, out: Path) -> None:
        self._began = time.monotonic()
        self._within, self._options, self._out = options.within, options, out
        self.why: dict[str, str] = {}
        self.took: dict[str, float] = {}
        self._printed: set[str] = set()
        self._lock = threading.Lock()

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    def outputs(self) -> Outputs:
        return Outputs(self._out, self.why, tuple(sorted(self._options.cards)))

    def run(self, step: Step, card: str | None = None, cores: tuple[int, ...] = ()) -> None:
        """Run one step, and print the rows that it completes."""
        begun, why = time.monotonic(), self._why_not(step)
        if not why:
            why = self._run(step, card, cores)
            self.took[step.name] = time.monotonic() - begun
        self.why[step.name] = why
        with self._lock:
            for row in self.outputs().rows():
                if row.what not in self._printed and all(name in self.why for name in row.steps):
                    self._printed.add(row.what)
                    print(row.text(), flush=True)

    def run_beside(self, lanes: dict[str, list[Step]]) -> None:
        """Run each lane's steps in turn, all lanes at once, on cards and cores of their own."""
        cores = sorted(os.sched_getaffinity(0))
        cards = self._cards()
        others = [name for name in lanes if name != "demo"]
        each = (len(cores) - 2) // len(others) if others else 0
        threads = []
        for number, name in enumerate(others):
            own = tuple(cores[2 + number * each : 2 + (number + 1) * each])
            card = cards[number % len(cards)] if cards else None
            threads.append(threading.Thread(target=self._lane, args=(lanes[name], card, own)))
        if "demo" in lanes:
            threads.append(threading.Thread(target=self._lane, args=(lanes["demo"], None, ())))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _lane(self, some: list[Step], card: str | None, cores: tuple[int, ...]) -> None:
        for step in some:
            self.run(step, card, cores)

    def _cards(self) -> list[str]:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return visible.split(",") if visible else [str(n) for n in range(count_gpus())]

    def _left_s(self) -> float | None:
        return None if self._within is None else self._within - self.spent_s

    def _why_not(self, step: Step) -> str:
        lacking = [one for one in step.needs if not getattr(self._options, one)]
        if lacking:
            return "needs " + " and ".join(f"--{one.replace('_', '-')}" for one in lacking)
        asked = step.name.partition(" ")[2]
        if not self._options.cpu and asked.isdigit() and int(asked) > count_gpus():
            return f"{count_gpus()} cards are here"
        left, seconds = self._left_s(), step.seconds
        beside = self.took.get(f"local {asked}") if step.name.startswith("dask ") else None
        if beside is not None and not self.why[f"local {asked}"]:
            seconds = beside * DASK_BY_LOCAL
        if left is not None and left < seconds:
            return f"no time left (about {seconds:.0f} s, {max(0.0, left):.0f} s are left)"
        return ""

    def _run(self, step: Step, card: str | None, cores: tuple[int, ...]) -> str:
        """Why the step has no figures; empty where it came to its end."""
        places = filter(None, (str(step.checkout), os.environ.get("PYTHONPATH", "")))
        place = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1"}
        if card is not None:
            place["CUDA_VISIBLE_DEVICES"] = card
        pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
        command = [sys.executable, "-m", f"tests.benchmarks.{step.module}", *step.arguments]
        path = self._out / f"{step.name.replace(' ', '-')}.txt"
        with path.open("w") as output:
            process = subprocess.Popen(
                [*pinned, *command],
                env=place, cwd=step.checkout, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            left = self._left_s()
            usual = step.seconds * TIMES_USUAL
            try:
                code = process.wait(None if left is None else max(0.0, min(left, usual)))
            except subprocess.TimeoutExpired:
                _end(process)
                if left is not None and left > usual:
                    return f"ended after {usual:.0f} s, {TIMES_USUAL} x what it usually takes"
                return f"no time left: ended after {left or 0.0:.0f} s"
        if not code:
            return ""
        lines = path.read_text(errors="replace").strip().splitlines() or [""]
        return f"exit code {code}: {lines[-1][:120]} ({path.name})"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # as Ctrl-C: it ends its own processes
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def lanes_of(beside: list[Step], num_cards: int) -> dict[str, list[Step]]:
    """Lanes that may run at once: those with a card share it in turns where cards are few.

    The longest comes first, each on the card that is free the soonest.
    """
    own: dict[str, list[Step]] = {}
    for step in beside:
        own.setdefault(step.lane, []).append(step)
    lanes = {name: own.pop(name) for name in ("demo", "memory") if name in own}
    cards: list[list[Step]] = [[] for _ in range(max(1, num_cards))]
    for some in sorted(own.values(), key=_usual_s, reverse=True):
        min(cards, key=_usual_s).extend(some)
    return {f"card {number}": some for number, some in enumerate(cards) if some} | lanes


def _usual_s(some: list[Step]) -> float:
    return sum(step.seconds for step in some)


def where() -> str:
    """The machine, in words."""
    cards = [find_gpu(f"cuda:{number}") for number in range(count_gpus())]
    names = [one.name for one in cards if one is not None]
    kinds = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, torch {version('torch')}"
    return f"{kinds or 'no card'}, {cores} cores, {versions}, {datetime.now(UTC):%Y-%m-%d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""], help="steps whose name begins so")
    parser.add_argument("--within", type=float, metavar="SECONDS", help="for all of it")
    parser.add_argument("--cache", type=Path, help="weights, oracles; default: in FOLDER")
    parser.add_argument("--target", help="a checkout of VirNucPro")
    parser.add_argument("--package", default="virnucpro")
    parser.add_argument("--commits", nargs="+", default=[])
    parser.add_argument("--limit", type=int, default=12, help="commits one at a time")
    parser.add_argument("--fresh-limit", type=int, default=2, help="commits in fresh processes")
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--cards-limit", type=int, default=40, help="commits on the cards")
    parser.add_argument("--model", help=f"of the commits; default: {BIG}")
    parser.add_argument("--peers", nargs="+", default=[])
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--engine-before", type=Path, help="one whose engine is compared")
    parser.add_argument("--cpu", action="store_true", help="try it without a card")
    options = parser.parse_args()
    out = options.out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for left in (*out.glob("*.jsonl"), *out.glob("engine-*.json"), *out.glob("*.txt")):
        left.unlink()  # of an earlier call: rows are of one
    options.model = options.model or (DEMO_MODEL if options.cpu else BIG)
    for name in ("before", "engine_before"):
        if getattr(options, name):
            setattr(options, name, getattr(options, name).resolve())
    cache = (options.cache or out / "cache").resolve()
    cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(options, out)
    told = where()
    chosen = [one for one in steps(options, cache) if one.name.startswith(tuple(options.only))]
    print(f"{told}\n\n{HEAD}", flush=True)
    beside = [one for one in chosen if one.lane]
    lanes = lanes_of(beside, 1 if options.cpu else count_gpus())
    if shutil.which("taskset") and len(os.sched_getaffinity(0)) >= 2 + CORES_BESIDE * len(lanes):
        bench.run_beside(lanes)
    else:
        for step in beside:
            bench.run(step)
    for step in chosen:
        if not step.lane:
            bench.run(step)
    write(bench, out, told)


def write(bench: Bench, out: Path, told: str) -> None:
    """The whole table, to standard output and into the folder."""
    outputs = bench.outputs()
    rows = [row for row in outputs.rows() if any(name in bench.why for name in row.steps)]
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in bench.took.items())
    text = "\n".join((told, "", HEAD, *(row.text() for row in rows), "", outputs.agreement()))
    text = f"{text}\n{bench.spent_s:.0f} s in all: {took or 'no step was begun'}.\n"
    (out / "table.md").write_text(text)
    whole = {"where": told, "took_s": bench.took, "why_not": bench.why}
    whole |= {"rows": [{**asdict(row), "result": row.result} for row in rows]}
    (out / "table.json").write_text(json.dumps(whole, indent=1))
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
