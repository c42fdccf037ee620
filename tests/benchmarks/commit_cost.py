"""What one more commit costs: warm workers against a fresh process for each, side by side.

    python -m tests.benchmarks.commit_cost --target PATH --package NAME --commits A..B --limit 20 \
        --model esm2_t33_650M_UR50D --device cuda:0 --dtype float16 --benchmark proteome

All sides measure commits of the same machine and must find the same; one that cannot be judged ends
it with exit code 1, and so does one that comes out otherwise. "Fresh" starts an interpreter
for each commit and goes through the target's own loader (`--fresh-limit`: the last so many of the
commits); "warm" forks, maps the checkpoint and reuses the unpacked side where it is bit-identical;
both one commit at a time. "By default" is warm, with as many commits at once as the runner takes.
`--sides` without a name makes the caches ready and no more.
"""

import argparse
from dataclasses import replace
from typing import Any

from tests.benchmarks.starts import add_arguments, append, num_equal, opened, time_start

SIDES: dict[str, dict[str, Any]] = {
    "warm": {"workers": 1},
    "by default": {},
    "fresh": {"workers": 1, "fork": False, "warm": False, "reuse": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, limit=20)
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--fresh-limit", type=int)
    parser.add_argument("--no-probes", action="store_true")
    options = parser.parse_args()
    starts = {}
    with opened(options) as plan:
        for side in options.sides:
            limit = options.fresh_limit if side == "fresh" else None
            few = plan.commits[-limit:] if limit else plan.commits
            choice = replace(plan, commits=few, probes=not options.no_probes, **SIDES[side])
            starts[side] = one = time_start(choice, side)
            append(options.json, one)
            further = "" if one.further_s is None else f", {one.further_s:.2f} s after the first"
            print(f"{side}: {one.each_s:.2f} s for each of {len(one.at)} commits{further}")
    fresh = starts.pop("fresh", None)
    unequal = 0
    for side, one in starts.items():
        if fresh is not None:
            equal, both = num_equal(one, fresh)
            unequal += both - equal
            ratio = fresh.each_s / one.each_s
            print(f"{side}: ratio {ratio:.1f}, {equal} of {both} equal to fresh")
    if unequal:
        raise SystemExit(f"{unequal} commits came out otherwise than in a fresh process.")


if __name__ == "__main__":
    main()
