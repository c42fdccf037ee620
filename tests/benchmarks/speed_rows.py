"""The rows of `speed_targets`, from what its steps have written into a folder.

A row has a figure only where its step came to its end, each of its commits has a verdict, and it
found what the others found; else it says why not.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.starts import Start, num_equal, read

BIG, HUGE = "esm2_t33_650M_UR50D", "esm2_t36_3B_UR50D"
SMALL = {"esm2_t6_8M_UR50D": 2.0, "esm2_t12_35M_UR50D": 1.6, "esm2_t30_150M_UR50D": 1.25}
OURS, VIRNUCPRO, EFFICIENT = "virnucpro-monitor", "VirNucPro HEAD", "esm-efficient"
CARDS = {2: 0.53, 4: 0.29, 8: 0.16}  # at most so much of one card's time
HEAD = "| what | base | now | now / base | to reach | |\n|---|--:|--:|--:|--:|---|"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        steps: whose outputs it is made of.
        base: what it is held against, measured in the same call; None where it was not.
        now: in the same unit; None where it was not measured.
        reach: the target, of `now` itself or, with `relative`, of `now` by `base`.
        fault: why there is no figure.
        no_base: why there is none of the base, where that is not the target.
    """

    steps: tuple[str, ...]
    what: str
    base: float | None
    now: float | None
    reach: float
    relative: bool = False
    more_is_better: bool = False
    fault: str = ""
    no_base: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.base or self.now is None else self.now / self.base

    @property
    def result(self) -> str:
        """ "met", "missed", or why neither can be said."""
        value = self.ratio if self.relative else self.now
        if self.fault or value is None:
            return self.fault or "not measured"
        well = value >= self.reach if self.more_is_better else value <= self.reach
        result = "met" if well else "missed"
        return f"{result}; base {self.no_base}" if self.no_base else result

    def text(self) -> str:
        unit = " x" if self.relative else ""
        figures = (None, None, None) if self.fault else (self.base, self.now, self.ratio)
        cells = [self.what, *map(_shown, figures), f"{self.reach:.3g}{unit}", self.result]
        return f"| {' | '.join(cells)} |"


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


class Outputs:
    """What the steps have left in a folder.

    Args:
        why: of each step that has no figures, why; of one that came to its end, nothing.
        cards: how many were to be compared.
    """

    def __init__(self, folder: Path, why: Mapping[str, str], cards: tuple[int, ...]) -> None:
        self._folder, self._why, self._cards = folder, why, cards
        self.starts = read(folder / "starts.jsonl")

    def rows(self) -> Iterator[Row]:
        """The whole table, in the order of the targets."""
        yield from self._commit_rows()
        yield from self._card_rows()
        yield from self._first_rows()
        yield from self._dask_rows()
        yield from self._engine_rows()
        yield from self._demo_rows()
        yield from self._memory_rows()

    def agreement(self) -> str:
        """How the findings of all starts agree with one of them, in one sentence."""
        sides = [side for side in ("local 1", "fresh", "warm") if side in self.starts]
        told = []
        for side, one in self.starts.items() if len(self.starts) > 1 and sides else ():
            equal, both = num_equal(one, self.starts[sides[0]])
            if side != sides[0] and both:
                told.append(f"{side}: {equal} of {both}")
        if not told:
            return "No two starts had a commit in common."
        return f"Findings equal to those of {sides[0]} to the last bit: {', '.join(told)}."

    def _missing(self, *steps: str) -> str:
        for step in steps:
            if self._why.get(step):
                return f"not measured: {self._why[step]}"
        return ""

    def _start_row(
        self,
        what: str,
        base: str,
        now: str,
        of: Callable[[Start], float | None],
        reach: float,
        *,
        of_base: Callable[[Start], float | None] = lambda one: one.each_s,
        relative: bool = False,
    ) -> Row:
        """A row of two starts, by the names of their sides, which are those of their steps."""
        one, other = self.starts.get(now), self.starts.get(base)
        of_other = self._why_no_figure(base)
        if of_other:
            other = None
        fault = self._why_no_figure(now) or (of_other if relative else "")
        if not fault and one is not None and other is not None:
            equal, both = num_equal(one, other)
            if equal < both:
                fault = f"no figure: the findings of {both - equal} of {both} commits differ"
        return Row(
            steps=(base, now),
            what=what,
            base=None if other is None else of_base(other),
            now=None if one is None else of(one),
            reach=reach,
            relative=relative,
            fault=fault,
            no_base=of_other,
        )

    def _why_no_figure(self, side: str) -> str:
        start = self.starts.get(side)
        if self._missing(side):
            return self._missing(side)
        if start is None:
            return f"not measured: nothing of {side}"
        if start.num_without_verdict:
            number = f"{start.num_without_verdict} of {len(start.at)}"
            return f"no figure: {number} commits of {side} have no verdict"
        return ""

    def _commit_rows(self) -> Iterator[Row]:
        def further(one: Start) -> float | None:
            return one.further_s

        for now, name, seconds, times in (
            ("warm", "one more commit, one at a time", 2.5, 10),
            ("local 1", "one more commit by default", 1.5, 18),
        ):
            what = f"{name}, s; base: a fresh process, through the target's own loader"
            yield self._start_row(what, "fresh", now, further, seconds)
            what = f"{name}, the same as a ratio ({times} x less)"
            yield self._start_row(what, "fresh", now, further, 1 / times, relative=True)
            if now == "warm":
                what = f"{name}, the median, s; base: the same"
                yield self._start_row(what, "fresh", now, lambda one: one.usual_further_s, seconds)
        what = "by default, the start included, s for each commit; base: the same"
        yield self._start_row(what, "fresh", "local 1", lambda one: one.each_s, 1.5)

    def _card_rows(self) -> Iterator[Row]:
        number = len(self.starts["local 1"].at) if "local 1" in self.starts else "all"
        for cards in self._cards:
            if cards > 1:
                yield self._start_row(
                    f"{number} commits on {cards} cards, start included, s; base: 1 card",
                    "local 1",
                    f"local {cards}",
                    lambda one: one.seconds,
                    CARDS.get(cards, 1 / cards),
                    of_base=lambda one: one.seconds,
                    relative=True,
                )

    def _dask_rows(self) -> Iterator[Row]:
        for cards in self._cards:
            yield self._start_row(
                f"the same by Dask, {_plural(cards)}, s; base: the local engine",
                f"local {cards}",
                f"dask {cards}",
                lambda one: one.seconds,
                1.1,
                of_base=lambda one: one.seconds,
                relative=True,
            )

    def _first_rows(self) -> Iterator[Row]:
        told = _lines(self._folder / "first.jsonl")
        base, now = (told.get(side, {}).get("seconds") for side in ("before", "now"))
        fault = self._missing("first")
        if not fault and now is None:
            fault = f"no figure: {_said(told, 'now')}"
        what = "from the command to the first verdict, s; base: an earlier version's"
        no_base = "" if base is not None else f"no figure: {_said(told, 'before')}"
        yield Row(("first",), what, base, now, 6, fault=fault, no_base=no_base)
        start = self.starts.get("local 1")
        what = f"from the call to the first of {len(start.at) if start else 'all'}, by default, s"
        row = self._start_row(what, "local 1", "local 1", lambda one: one.at[0], 6)
        yield Row(("local 1",), what, None, row.now, 6, fault=row.fault)

    def _engine_rows(self) -> Iterator[Row]:
        first = next(iter(SMALL))
        for model, base, reach, steps in (
            *(
                (one, OURS, reach, ("engine-before", "engine-small"))
                for one, reach in SMALL.items()
            ),
            (first, EFFICIENT, 4.0, ("engine-small",)),
            (BIG, VIRNUCPRO, 2.2, ("engine-650M",)),
            (HUGE, VIRNUCPRO, 1.65, ("engine-3B",)),
        ):
            fault = self._missing(*steps)
            of_base, why_base = self._rate(steps[0], model, base)
            now, why = self._rate(steps[-1], model, OURS)
            who = "an earlier version" if base == OURS else base
            yield Row(
                steps=steps,
                what=f"{model.split('_')[2]}, packed, thousand tokens/s; base: {who}",
                base=of_base,
                now=now,
                reach=reach,
                relative=True,
                more_is_better=True,
                fault=fault or why_base or why,
            )
        for model, step, reach in ((BIG, "engine-650M", 70), (HUGE, "engine-3B", 80)):
            share, why = self._rate(step, model, OURS, lambda row: row["mfu_percent"]["burst"])
            what = f"{model.split('_')[2]}, packed, % of the largest product's rate in a burst"
            fault = self._missing(step) or why
            yield Row((step,), what, None, share, reach, more_is_better=True, fault=fault)

    def _rate(
        self,
        step: str,
        model: str,
        package: str,
        of: Callable[[dict[str, Any]], float] = lambda row: row["ktok_per_s"],
    ) -> tuple[float | None, str]:
        """Thousands of tokens a second by the fastest of a package's backends, or why none."""
        path = self._folder / f"{step}.json"
        rows = json.loads(path.read_text())["rows"] if path.is_file() else []
        some = [r for r in rows if r["model"] == model and r["variant"].startswith(package)]
        rates = [of(row) for row in some if "error" not in row]
        if rates:
            return max(rates), ""
        if some:
            return None, f"not measured: {package}: {some[0]['error']}"
        there = (self._folder / f"{step}.txt").is_file()
        return None, f"not measured: {f'see {step}.txt' if there else f'nothing of {step}'}"

    def _demo_rows(self) -> Iterator[Row]:
        told = _lines(self._folder / "demo.jsonl")
        now = told.get("now", {})
        base, of_base = told.get("before", {}).get("seconds"), "an earlier version's, with 8M"
        if base is None:
            base, of_base = now.get("cpu_s"), "its seconds of the processor"
        fault = self._missing("demo")
        if not fault and now.get("seconds") is None:
            fault = f"no figure: {_said(told, 'now')}"
        what = f"demo, 16 commits of esm2_t6_demo, 2 cores, s; base: {of_base}"
        yield Row(("demo",), what, base, now.get("seconds"), 20, fault=fault)

    def _memory_rows(self) -> Iterator[Row]:
        path = self._folder / "memory.txt"
        text = path.read_text() if path.is_file() else ""
        found = re.search(r"\{.*\}", text, re.DOTALL)
        told = json.loads(found[0]) if found else {}
        fault = self._missing("memory") or ("" if told else "not measured: see memory.txt")
        for run in told.get("runs", [{"outcome": "passed"}]):
            now = (run["peak_bytes"] - told["peak_before_bytes"]) / 1e9 if told else None
            what = (
                f"memory beyond the model, {told.get('sequences', 1000):,} sequences of 3B width, "
                f"{run['outcome']}, GB; base: of the whole process"
            )
            whole = run["peak_bytes"] / 1e9 if told else None
            yield Row(("memory",), what, whole, now, 0.44, fault=fault)


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    """A JSON line of each side."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {told["side"]: told for told in map(json.loads, lines)}


def _said(told: Mapping[str, Mapping[str, Any]], side: str) -> str:
    return told[side]["said"] or "it said nothing" if side in told else "it was not asked for"


def _plural(cards: int) -> str:
    return "1 card" if cards == 1 else f"{cards} cards"
