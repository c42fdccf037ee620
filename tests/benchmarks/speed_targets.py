"""Every target of speed as one table, each row beside its base from the same run.

    python -m tests.benchmarks.speed_targets --out FOLDER --target PATH --package NAME \
        --commits A..B [--cards 1 2 4] [--peers FOLDERS] [--engine-before CHECKOUT]
    python -m tests.benchmarks.speed_targets --out FOLDER --only demo memory

Each step is a benchmark of this folder; its whole output goes to FOLDER/STEP.txt, and what it has
found is printed as soon as it ends. `--engine-before` is a checkout of an earlier version, whose
packed engine then runs for the same models right before today's. A row without a figure says where
to read why. `--limit` is the commits of the steps "commits" and "first"; the cards cover 40.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BIG, HUGE = "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D"
SMALL = {"esm2_t6_8M_UR50D": 2.0, "esm2_t12_35M_UR50D": 1.6, "esm2_t30_150M_UR50D": 1.25}
OURS, VIRNUCPRO, EFFICIENT = "virnucpro-monitor", "VirNucPro HEAD", "esm-efficient"
NUMBER = r"([0-9.]+)"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        base: what it is held against, measured in the same step; None where it was not.
        now: in the same unit; None where it was not measured.
        reach: the target, of `now` itself or, with `relative`, of `now` by `base`.
    """

    what: str
    base: float | None
    now: float | None
    reach: float
    relative: bool = False
    more_is_better: bool = False

    def text(self) -> str:
        ratio = None if not self.base or self.now is None else self.now / self.base
        value = ratio if self.relative else self.now
        met = "not measured"
        if value is not None:
            well = value >= self.reach if self.more_is_better else value <= self.reach
            met = "met" if well else "missed"
        unit = " x" if self.relative else ""
        cells = (self.what, _shown(self.base), _shown(self.now), _shown(ratio))
        return f"| {' | '.join(cells)} | {self.reach:.3g}{unit} | {met} |"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def found(pattern: str, text: str) -> float | None:
    """The number of the pattern's last match."""
    numbers = re.findall(pattern, text)
    return float(numbers[-1]) if numbers else None


def commit_rows(text: str) -> Iterator[Row]:
    fresh = found(rf"(?m)^fresh: {NUMBER} s for each", text)
    for name, seconds, times in (("warm", 2.5, 10), ("by default", 1.5, 18)):
        now = found(rf"(?m)^{name}: {NUMBER} s for each", text)
        which = "one at a time" if name == "warm" else "by default"
        yield Row(f"a further commit, {which}, s; base: a fresh process", fresh, now, seconds)
        yield Row(f"the same, as a ratio, {which}", fresh, now, 1 / times, relative=True)


def first_rows(text: str) -> Iterator[Row]:
    line = re.search(rf"call to first verdict +{NUMBER} +{NUMBER}", text)
    base, now = (float(line[1]), float(line[2])) if line else (None, None)
    yield Row("from the call to the first verdict, s; base: without standby", base, now, 6)


def card_rows(text: str) -> Iterator[Row]:
    lines = re.findall(rf"^(local|dask) +(\d+) +{NUMBER} ", text, re.MULTILINE)
    seconds = {(engine, int(cards)): float(s) for engine, cards, s in lines}
    one = seconds.get(("local", 1))
    for cards, ratio in ((2, 0.53), (4, 0.29), (8, 0.16)):
        now = seconds.get(("local", cards))
        yield Row(f"{cards} cards, s; base: 1 card", one, now, ratio, relative=True)
    for cards in sorted({cards for _, cards in seconds}):
        base, now = seconds.get(("local", cards)), seconds.get(("dask", cards))
        yield Row(f"Dask on {cards}, s; base: local engine", base, now, 1.1, relative=True)


def engine_rows(now_file: Path, before_file: Path) -> Iterator[Row]:
    now, before = _rates(now_file), _rates(before_file)
    for model, ratio in SMALL.items():
        base, ours = _best(before, model, OURS), _best(now, model, OURS)
        what = f"{model}, ktok/s; base: the earlier engine"
        yield Row(what, base, ours, ratio, relative=True, more_is_better=True)
    for model, peer, ratio in (
        ("esm2_t6_8M_UR50D", EFFICIENT, 4.0),
        (BIG, VIRNUCPRO, 2.2),
        (HUGE, VIRNUCPRO, 1.65),
    ):
        base, ours = _best(now, model, peer), _best(now, model, OURS)
        what = f"{model}, ktok/s; base: {peer}"
        yield Row(what, base, ours, ratio, relative=True, more_is_better=True)


def _rates(path: Path) -> dict[tuple[str, str], float]:
    """Thousands of tokens a second by model and variant."""
    if not path.is_file():
        return {}
    rows = json.loads(path.read_text())["rows"]
    return {
        (one["model"], one["variant"]): one["ktok_per_s"] for one in rows if "mfu_percent" in one
    }


def _best(rates: dict[tuple[str, str], float], model: str, begins: str) -> float | None:
    some = [rate for (of, name), rate in rates.items() if of == model and name.startswith(begins)]
    return max(some, default=None)


def demo_rows(out: Path) -> Iterator[Row]:
    """The sample's 16 commits on two cores, its models and packages there."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        settings = dict.fromkeys(("XDG_CACHE_HOME", "XDG_DATA_HOME"), folder)
        command = [sys.executable, "-m", "virnucpro_monitor", "demo", "--no-open"]
        command += ["--db", f"sqlite:///{place / 'demo.db'}"]
        cores = sorted(os.sched_getaffinity(0))[:2]
        start, before = time.monotonic(), os.times()
        with (out / "demo.txt").open("w") as output:
            code = subprocess.run(
                ["taskset", "-c", ",".join(map(str, cores)), *command],
                env={**os.environ, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        seconds, after = time.monotonic() - start, os.times()
    cpu_s = sum(after[2:4]) - sum(before[2:4])
    name = "demo, 16 commits of esm2_t6_demo, 2 cores, s; base: its CPU s"
    yield Row(name, cpu_s, None if code else seconds, 20)


def memory_rows(text: str) -> Iterator[Row]:
    at = text.find("{")
    told, _ = json.JSONDecoder().raw_decode(text[at:]) if at >= 0 else ({}, 0)
    before = told.get("peak_before_bytes")
    for run in told.get("runs", [{"outcome": "passed"}]):
        now = None if before is None else (run["peak_bytes"] - before) / 1e9
        what = f"memory beyond the model, 1,000 sequences of 3B width, {run['outcome']}, GB"
        yield Row(what, None, now, 0.44)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    steps = ("commits", "first", "cards", "engine", "demo", "memory")
    parser.add_argument("--only", nargs="+", choices=steps, default=list(steps))
    parser.add_argument("--target", help="a checkout of VirNucPro")
    parser.add_argument("--package", default="virnucpro")
    parser.add_argument("--commits", nargs="+", default=[])
    parser.add_argument("--limit", type=int, default=6)
    parser.add_argument("--cards", nargs="+", default=["1", "2", "4"])
    parser.add_argument("--cards-limit", type=int, default=40, help="commits on the cards")
    parser.add_argument("--peers", nargs="+", default=[])
    parser.add_argument("--engine-before", type=Path)
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    target = ["--target", str(options.target), "--package", options.package, "--commits"]
    target += options.commits
    few = ["--limit", str(options.limit)]
    on_card = ["--model", BIG, "--device", "cuda:0", "--dtype", "float16"]

    def bench(name: str, *arguments: str, cwd: Path | None = None, into: str = "") -> str:
        path = out / f"{into or name}.txt"
        with path.open("w") as output:
            command = [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments]
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, check=False)
        return path.read_text()

    def engine() -> Iterator[Row]:
        models = [*SMALL, BIG, HUGE]
        peers = ["--peers", *options.peers] if options.peers else []
        now, before = out / "engine.json", out / "engine-before.json"
        if options.engine_before:
            some = ["--models", *SMALL, "--only", OURS, "--json", str(before)]
            bench("packed_engine", *some, cwd=options.engine_before, into="engine-before")
        every = ["--only", OURS, VIRNUCPRO, EFFICIENT, "--json", str(now), *peers]
        bench("packed_engine", "--models", *models, *every, into="engine")
        yield from engine_rows(now, before)

    def memory() -> Iterator[Row]:
        with tempfile.TemporaryDirectory() as folder:
            yield from memory_rows(bench("validation_memory", "--folder", folder, into="memory"))

    profiled = [*target, *few, *on_card, "--benchmark", "proteome", "--rounds", "1"]
    scaled = [*target, "--limit", str(options.cards_limit), "--repeat", "1", "--with-errors"]
    rows: dict[str, Callable[[], Iterator[Row]]] = {
        "commits": lambda: commit_rows(bench("commit_cost", *target, *few, into="commits")),
        "first": lambda: first_rows(bench("commit_profile", *profiled, into="first")),
        "cards": lambda: card_rows(
            bench("scaling", *scaled, "--cards", *options.cards, into="cards")
        ),
        "engine": engine,
        "demo": lambda: demo_rows(out),
        "memory": memory,
    }
    print("| what | base | now | now / base | to reach | |\n|---|--:|--:|--:|--:|---|")
    for name in options.only:
        if name in ("commits", "first", "cards") and not (options.target and options.commits):
            print(f"| {name}: needs --target and --commits | - | - | - | - | not measured |")
            continue
        for row in rows[name]():
            print(row.text(), flush=True)


if __name__ == "__main__":
    main()
