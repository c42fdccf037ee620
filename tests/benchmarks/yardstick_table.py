"""The self-test's changes as one table, from what `selftest --each` printed in several set-ups.

    python -m tests.benchmarks.yardstick_table FOLDER/selftest-*.txt

Each row is a change, each column a file, by the clearest gate's value over its limit. "Killed by"
and "looks like" are those of the first file. Files are as `gpu_figures` names them.
"""

import argparse
import re
import sys
from pathlib import Path

LINE = re.compile(r"^\d+/\d+ (?P<name>.+?): (?P<what>[^;:]+); (?P<gates>[^;]+); (?P<margin>[^;]+)")
SEED = "seed"


def read(path: Path) -> dict[str, tuple[str, str, str, str]]:
    """{change: what became of it, gates, margin, signature} of one file's lines."""
    rows = {}
    for line in path.read_text().splitlines():
        if found := LINE.match(line):
            margin = found["margin"].removesuffix(" x the limit")
            signature = line[found.end() :].strip("; ")
            rows[found["name"]] = (found["what"], found["gates"], margin, signature)
    return rows


def cell(row: tuple[str, str, str, str] | None) -> str:
    """Its margin where a gate noticed, else what became of it and how near it came."""
    if row is None:
        return "-"
    what, _, margin, _ = row
    kind, _, side = what.partition(", ")
    if kind == "killed":
        return margin if side in ("packed", "") else f"{margin} ({side})"
    return what if kind == "not reached" else f"{what}, {margin}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    columns = [read(path) for path in options.files]
    first = columns[0]
    names = [path.stem.removeprefix("selftest-") for path in options.files]
    print(f"| injected | killed by | looks like | {' | '.join(names)} |")
    print(f"|---|---|---|{'--:|' * len(names)}")
    order = [name for name in first if not name.startswith("healthy")]
    for name in order:
        _, gates, _, signature = first[name]
        words = [f"**{one}**" if one == SEED else one for one in gates.split(", ")]
        by = "" if gates == "no gate" else ", ".join(words)
        cells = [name, by, signature, *(cell(column.get(name)) for column in columns)]
        print(f"| {' | '.join(cells)} |")
    for column, label in zip(columns, names, strict=True):
        missing = [name for name in order if name not in column]
        if missing:
            print(f"{label} lacks {len(missing)} changes, as {missing[0]}", file=sys.stderr)
    return 0 if order else 1


if __name__ == "__main__":
    sys.exit(main())
