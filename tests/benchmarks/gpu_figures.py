"""Every figure of the README and of the pages beside this file that needs a GPU, anew, in one go.

    python -m tests.benchmarks.gpu_figures --out FOLDER --target VIRNUCPRO_CHECKOUT \
        --trained esm2_t6_8M_UR50D.pt --peers FOLDER_WITH_PACKAGES --before EARLIER_CHECKOUT
    python -m tests.benchmarks.gpu_figures --out FOLDER --only tests selftest --limit 300

Each step is a command that can be run by itself; its whole output goes to FOLDER/STEP.txt, and a
table of what came of each is printed last. Checks come first, as many at once as `--beside` says on
each card; what measures time comes after them, alone. A step that fails does not keep the others
from running; one whose checkout or weights are not given is left out and said so.
"""

import argparse
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BIG, SMALL = "esm2_t33_650M_UR50D", "esm2_t6_8M_UR50D"
SIZES = (BIG, "esm2_t36_3B_UR50D", SMALL, "esm2_t12_35M_UR50D", "esm2_t30_150M_UR50D")
HALF = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        name: of its file, and what `--only` begins.
        arguments: of the interpreter.
        alone: it measures time or takes every card, so nothing runs beside it.
    """

    name: str
    arguments: tuple[str, ...]
    alone: bool = False


def steps(options: argparse.Namespace) -> Iterator[Step]:
    """All steps that the given checkouts and weights allow."""
    out: Path = options.out

    def bench(name: str, *arguments: object) -> tuple[str, ...]:
        return ("-m", f"tests.benchmarks.{name}", *map(str, arguments))

    def check(size: str, dtype: str, weights: str, device: str) -> Iterator[Step]:
        """The self-test, and for the small model the healthy runs, of one set-up."""
        kind = "synthetic" if weights == "synthetic" else "trained"
        where = "cpu" if device == "cpu" else "card"
        name = f"{'8M' if size == SMALL else '650M'}-{dtype}-{kind}-{where}"
        setup = ("--device", device, "--model", size, "--weights", weights)
        workers = () if device == "cpu" else ("--workers", options.workers)
        words = ("selftest", *setup, "--dtype", dtype, "--each", *workers)
        yield Step(f"selftest-{name}", ("-m", "virnucpro_monitor", *words))
        if size == SMALL:
            some = (*setup, "--dtypes", dtype, "--no-selftest", "--out", out / f"{name}.json")
            few = ("--threads", 1, "--sequences", 4) if device == "cpu" else ()
            seeds = ("--runs", 10, "--seed", *range(20))
            yield Step(f"healthy-{name}", bench("yardstick", *some, *few, *seeds))

    for weights in ("synthetic", *options.trained):
        for dtype in HALF:
            yield from check(SMALL, dtype, weights, "cuda:0")
        yield from check(SMALL, "float32", weights, "cpu")
    for dtype in HALF:
        yield from check(BIG, dtype, "synthetic", "cuda:0")
    for weights in options.trained:
        needs = ("--weights", weights, "--runs", 20)
        yield Step("limits-card", bench("limits", *needs, "--device", "cuda:0", "--dtypes", *HALF))
        yield Step("limits-cpu", bench("limits", *needs, "--dtypes", "float32", *HALF))
    if options.target:
        history = ("--target", options.target, "--folder", out / "history")
        yield Step("history", bench("packed_history", *history))
    words = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *options.tests)
    yield Step("tests", words, alone=True)

    places = (*options.peers, *([options.target] if options.target else ()))
    peers = ("--peers", *places) if places else ()
    # The first of three rounds captures the small models' graphs; the median leaves it out.
    profiled = ("--rounds", 3, "--profile", "--backends", "triton", "flash-attn")
    sized = ("--models", *SIZES, "--json", out / "engine.json")
    yield Step("engine", bench("packed_engine", *peers, *profiled, *sized), alone=True)
    yield Step("accuracy", bench("engine_accuracy"), alone=True)
    if options.before:
        setup = ("--model", BIG, "--device", "cuda:0", "--dtype", "float16")
        some = (options.before, "--rounds", 3, "--benchmark", "proteome", *setup)
        yield Step("cost", bench("cost_ratio", *some), alone=True)
    only = ["memory"]
    target: tuple[object, ...] = ()
    if options.target:
        only += ["ready", "warm", "fresh", "first", "local", "dask"]
        target = ("--target", options.target, "--commits", *options.commits)
    if options.before:
        target += ("--before", options.before)
    some = ("--limit", 3, "--cards", *options.cards, "--cards-limit", options.cards_limit)
    words = ("--out", out / "targets", "--only", *only, *target, *some)
    yield Step("targets", bench("speed_targets", *words), alone=True)


def run(step: Step, out: Path, limit_s: float, card: str | None) -> str:
    """The step's row of the table."""
    started = time.monotonic()
    place = dict(os.environ) if card is None else {**os.environ, "CUDA_VISIBLE_DEVICES": card}
    path = out / f"{step.name}.txt"
    with path.open("w") as output:
        try:
            code: int | str = subprocess.run(
                [sys.executable, *step.arguments],
                env=place,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = "time limit"
    last = next((line for line in reversed(path.read_text().splitlines()) if line.strip()), "")
    row = f"| {step.name} | {code} | {time.monotonic() - started:.0f} s | {last[:110]} |"
    print(row, flush=True)
    return row


def run_beside(checks: list[Step], options: argparse.Namespace) -> list[str]:
    """The rows of the checks, `--beside` of them at once on each card."""
    waiting: queue.SimpleQueue[Step] = queue.SimpleQueue()
    for step in checks:
        waiting.put(step)
    rows: list[str] = []

    def lane(card: str) -> None:
        while True:
            try:
                step = waiting.get_nowait()
            except queue.Empty:
                return
            rows.append(run(step, options.out, options.limit, card))

    cards = [str(number) for number in range(int(max(options.cards, key=int)))]
    lanes = [threading.Thread(target=lane, args=(card,)) for card in cards * options.beside]
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""], help="steps whose name begins so")
    parser.add_argument("--limit", type=float, default=3600, metavar="SECONDS", help="of a step")
    parser.add_argument("--peers", nargs="+", default=[])
    parser.add_argument("--target", help="a checkout of VirNucPro")
    parser.add_argument("--commits", nargs="+", default=["ROOT..HEAD"])
    parser.add_argument("--trained", nargs="*", default=[], help="a checkpoint of trained weights")
    parser.add_argument("--before", help="a checkout of an earlier version, for the cost")
    parser.add_argument("--cards", nargs="+", default=["1"], help="counts of cards to compare")
    parser.add_argument("--cards-limit", type=int, default=40, help="commits on the cards")
    parser.add_argument("--workers", default="4", help="processes of one self-test on a card")
    parser.add_argument("--beside", type=int, default=1, help="checks at once on each card")
    parser.add_argument("--tests", nargs="+", default=[], help="arguments for pytest")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = [one for one in steps(options) if one.name.startswith(tuple(options.only))]
    rows = run_beside([one for one in chosen if not one.alone], options)
    rows += [run(one, options.out, options.limit, None) for one in chosen if one.alone]
    given = {"--target": options.target, "--trained": options.trained, "--before": options.before}
    for name in [name for name, value in given.items() if not value]:
        print(f"Left out: the steps that need {name}.")
    print("\n| step | exit code | | last line |\n|---|---|---|---|\n" + "\n".join(rows))
    sys.exit(any("| 0 |" not in row for row in rows))


if __name__ == "__main__":
    main()
