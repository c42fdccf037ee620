"""Detectors of change points on the same synthetic histories, in one run.

    python -m venv detectors && detectors/bin/pip install ruptures asv signal-processing-algorithms
    detectors/bin/python -m tests.benchmarks.change_detectors

Ours (`analysis.change_points`), asv's step detector (`asv.step_detect`) with its own significance
filter at a factor of the least effect, and E-divisive with permutation tests (Matteson and James
2014) as in MongoDB's `signal_processing_algorithms`. All see log10 errors with noise of 0.05
decades, and report changes of at least the same least effect.

A history is read commit by commit, as a monitor does. A *false alarm* is a place, reported at any
commit, that is more than `NEAR` commits from any change and from any place reported before; *delay*
is how many commits a detector needs after a step until it reports one there; a burst is *found*
where a place inside it or beside it is reported on the whole history.
"""

import argparse
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.analysis.histories import figures, run
from virnucpro_monitor.analysis.change_points import (
    MIN_EFFECT_DECADES,
    find_changes,
)
from virnucpro_monitor.analysis.movements import Figure, follow_figure
from virnucpro_monitor.records import Run

SIGMA = 0.05
LENGTH = 300
NEAR = 5
MAX_DELAY = 40
WATCHED = 100

Detector = Callable[[Sequence[float]], list[int]]


def ours(values: Sequence[float]) -> list[int]:
    found = find_changes(values).points
    return [place for one in found for place in {one.place, one.end}]


def asv(values: Sequence[float]) -> list[int]:
    from asv.step_detect import detect_steps

    steps = detect_steps(list(values))
    return [
        after[0]
        for before, after in itertools.pairwise(steps)
        if abs(after[2] - before[2]) >= MIN_EFFECT_DECADES
    ]


def e_divisive(values: Sequence[float]) -> list[int]:
    import numpy as np
    from signal_processing_algorithms.energy_statistics.energy_statistics import e_divisive

    found = e_divisive(np.asarray(values), pvalue=0.05, permutations=100)
    places = sorted(int(place) for place in found)
    bounds = [0, *places, len(values)]
    levels = [statistics.fmean(values[a:b]) for a, b in itertools.pairwise(bounds)]
    return [
        place
        for number, place in enumerate(places)
        if abs(levels[number + 1] - levels[number]) >= MIN_EFFECT_DECADES
    ]


DETECTORS: dict[str, Detector] = {"ours": ours, "asv": asv, "E-divisive": e_divisive}


def noise(generator: random.Random, number: int) -> list[float]:
    return [generator.gauss(-5.0, SIGMA) for _ in range(number)]


def heavy(generator: random.Random, number: int) -> list[float]:
    """Student's t with three degrees of freedom."""

    def deviate() -> float:
        spread = sum(generator.gauss(0, 1) ** 2 for _ in range(3)) / 3
        return generator.gauss(0, 1) / math.sqrt(spread)

    return [-5.0 + SIGMA * deviate() for _ in range(number)]


def false_alarms(detector: Detector, values: Sequence[float], true: Sequence[int] = ()) -> int:
    """Places reported while the last `WATCHED` commits came in, each once."""
    known = list(true)
    alarms = 0
    for length in range(len(values) - WATCHED, len(values) + 1):
        for place in detector(values[:length]):
            if all(abs(place - one) > NEAR for one in known):
                known.append(place)
                alarms += 1
    return alarms


def measure_delay(detector: Detector, values: Sequence[float], place: int) -> int:
    for delay in range(1, MAX_DELAY + 1):
        found = detector(values[: place + delay])
        if any(abs(one - place) <= NEAR for one in found):
            return delay
    return MAX_DELAY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--histories", type=int, default=10, help="of each kind")
    number = parser.parse_args().histories
    print(f"{number} histories of {LENGTH} commits of each kind, noise {SIGMA} decades")
    heads = (
        "detector",
        "false alarms / 1,000 commits: no change",
        "0.3 steps",
        "heavy tails",
        "alarms / drift",
        "delay of a 0.3 step: median (worst)",
        "bursts of 1 to 10 found",
        "drifts found",
    )
    print(f"| {' | '.join(heads)} |")
    print("|" + "---|" * len(heads))
    for name, detector in DETECTORS.items():
        start = time.perf_counter()
        print("| " + " | ".join([name, *measure(detector, number)]) + " |", flush=True)
        print(f"  {name}: {time.perf_counter() - start:.1f} s")
    for name in ("ours", "asv"):
        values = noise(random.Random(1), 10_000)
        start = time.process_time()
        DETECTORS[name](values)
        print(f"10,000 points, {name}: {time.process_time() - start:.2f} s of CPU")
    for steps in (0, 1, 20):
        runs = make_runs(10_000, steps)
        start = time.process_time()
        moved = sum(len(follow_figure(runs, figure).movements) for figure in Figure)
        taken = time.process_time() - start
        print(f"10,000 runs, all nine figures, {steps} steps each: {moved} found, {taken:.2f} s")


def make_runs(number: int, steps: int) -> list[Run]:
    """Passed runs whose nine figures all have noise, and as many steps of 0.3 decades and back."""
    generator = random.Random(steps)
    runs = []
    for place in range(number):
        up = 0.3 * ((place * (steps + 1) // number) % 2)

        def figure(level: float, up: float = up) -> float:
            return 10 ** (level + up + generator.gauss(0.0, SIGMA))

        found = figures(
            1.0 - figure(-5.0),
            p01_similarity=1.0 - figure(-5.5),
            median_similarity=1.0 - figure(-6.0),
            max_packed_relative_l2=figure(-3.0),
            max_unpacked_relative_l2=figure(-3.0),
            packed_s=figure(0.0),
            unpacked_s=figure(0.5) * figure(0.0),
        )
        one = run(place, figures=found, duration_s=figure(1.5))
        gain = replace(one.gates[0], name="gain", value=figure(-4.0))
        runs.append(replace(one, gates=(gain,)))
    return runs


def measure(detector: Detector, number: int) -> list[str]:
    alarms = {}
    for kind, make in (("none", noise), ("heavy", heavy)):
        histories = [make(random.Random(f"{kind} {seed}"), LENGTH) for seed in range(number)]
        alarms[kind] = sum(false_alarms(detector, values) for values in histories)
    alarms["steps"], delays = 0, []
    alarms["drift"], drifts = 0, 0
    for seed in range(number):
        generator = random.Random(f"step {seed}")
        place = generator.randrange(100, 200)
        values = noise(generator, LENGTH)
        sign = generator.choice((1, -1))
        values = [value + 0.3 * sign * (n >= place) for n, value in enumerate(values)]
        alarms["steps"] += false_alarms(detector, values, [place])
        delays.append(measure_delay(detector, values, place))
        start, end = 100, 200  # 0.6 decades over 100 commits: each within noise
        values = noise(random.Random(f"drift {seed}"), LENGTH)
        values = [v + 0.006 * min(max(n - start, 0), end - start) for n, v in enumerate(values)]
        found = detector(values)
        alarms["drift"] += sum(not start - 2 * NEAR <= one <= end + 2 * NEAR for one in found)
        drifts += bool(found)
    found_bursts, bursts = 0, 0
    for length in range(1, 11):
        for seed in range(number):
            generator = random.Random(f"burst {length} {seed}")
            values = noise(generator, LENGTH)
            place = generator.randrange(50, 250)
            for n in range(place, place + length):
                values[n] += 1.0
            bursts += 1
            found_bursts += any(place - 1 <= one <= place + length for one in detector(values))
    per_1000 = {kind: 1000 * count / (number * WATCHED) for kind, count in alarms.items()}
    return [
        *(f"{per_1000[kind]:.2f}" for kind in ("none", "steps", "heavy")),
        f"{alarms['drift'] / max(1, drifts):.1f}",
        f"{statistics.median(delays):g} ({max(delays)})",
        f"{found_bursts} of {bursts}",
        f"{drifts} of {number}",
    ]


if __name__ == "__main__":
    main()
