"""How many small changes of the code no test notices.

    pip install 'mutmut>=3.8,<4'
    python -m tests.benchmarks.mutation                    # every part; hours on two cores
    python -m tests.benchmarks.mutation judging analysis --workers 4
    python -m tests.benchmarks.mutation monitor --sample 1000 --survivors survivors.txt

mutmut changes one operator, number, name or argument at a time in a copy of the repository and runs
the tests that reach the changed function. A part passes where at least 90 % of its mutants die; the
survivors are listed with the command that shows each.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LEAST_KILLED = 0.9
JUDGING = (
    "gates", "gate_records", "verdict", "verdict_records", "verdict_words", "culprit", "measures",
    "noise",
)  # fmt: skip
COMMANDS = (
    "compare", "db", "doctor", "incidents", "protocol", "regressions", "runs",
    "schedule", "selftest", "status", "targets", "validate", "weights",
)  # fmt: skip
PAGES = ("branches", "queries", "problems")
ALERTS = {
    "analysis/happenings", "analysis/environment_moves", "analysis/silence", "monitor/alerting",
}  # fmt: skip
"""Only tests with senders of their own may judge them: those that ask servers of this machine do
not end in a process that mutmut forked, and then every mutant counts as killed."""


def modules(room: str) -> list[str]:
    """A room's modules but those of the alerts."""
    names = sorted(path.stem for path in (ROOT / "virnucpro_monitor" / room).glob("*.py"))
    return [
        f"virnucpro_monitor/{room}/{name}.py" for name in names if f"{room}/{name}" not in ALERTS
    ]


PARTS = {
    "judging": (
        ["virnucpro_monitor/validation/gates.py", "virnucpro_monitor/validation/verdict.py"],
        [f"tests/validation/test_{name}.py" for name in JUDGING],
    ),
    "analysis": (modules("analysis"), ["tests/analysis"]),
    "monitor": (
        modules("monitor"),
        [
            "tests/monitor",
            *(f"tests/cli/test_{name}.py" for name in COMMANDS),
            *(f"tests/app/test_{name}.py" for name in PAGES),
            "tests/report/test_tables.py",
        ],
    ),
    "alerts": (
        sorted(f"virnucpro_monitor/{name}.py" for name in ALERTS),
        [
            "tests/analysis/test_environment_moves.py",
            "tests/analysis/test_happenings.py",
            "tests/analysis/test_silence.py",
            "tests/monitor/test_alerting.py",
        ],
    ),
}
"""{part: (what is changed, the tests that should notice)}

Each mutant gets the tests that reach its function, of those that take seconds. A test that
validates a whole commit reaches every gate: it would be run for every mutant.
"""
COPIED = ("app", "migrations", "tests", "README.md", "LICENSE", ".github", ".ci")
KILLED = {"killed", "timeout", "caught by type check"}
NOT_COUNTED = {"skipped", "not checked"}
NO_MUTANT = "none"
SETTINGS = """
[tool.mutmut]
source_paths = ["virnucpro_monitor"]
only_mutate = {changed}
also_copy = {copied}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-x", "-p", "no:cacheprovider"]
"""


def lay_out(folder: Path, part: str) -> None:
    """Copy what git tracks, with mutmut's settings for this part."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, tracked):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    changed, tests = PARTS[part]
    settings = SETTINGS.format(
        changed=json.dumps(changed), copied=json.dumps(list(COPIED)), tests=json.dumps(tests)
    )
    project = folder / "pyproject.toml"
    project.write_text(project.read_text() + settings)
    tomllib.loads(project.read_text())


def run_mutmut(folder: Path, *arguments: str) -> str:
    """Run mutmut in a laid out folder; what it lists."""
    command = [sys.executable, "-m", "mutmut", *arguments]
    listing = arguments[0] != "run"
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE if listing else None,
                          text=True, check=listing)  # fmt: skip
    return done.stdout or ""


def statuses(folder: Path) -> dict[str, str]:
    """{mutant: what became of it}"""
    lines = run_mutmut(folder, "results", "--all", "true").splitlines()
    pairs = (line.strip().rpartition(": ") for line in lines)
    return {mutant: status for mutant, colon, status in pairs if colon}


def run_part(
    part: str, workers: int, sample: int | None, seed: int
) -> tuple[Counter[str], list[str]]:
    """({status: mutants}, the survivors' differences)"""
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        folder = Path(name)
        lay_out(folder, part)
        chosen: list[str] = []
        if sample is not None:
            run_mutmut(folder, "run", "--max-children", "1", NO_MUTANT)  # makes and maps them all
            every = sorted(statuses(folder))
            chosen = random.Random(seed).sample(every, min(sample, len(every)))
        run_mutmut(folder, "run", "--max-children", str(workers), *chosen)
        found = statuses(folder)
        wanted = {mutant: found[mutant] for mutant in chosen or found}
        survivors = [
            f"{mutant} ({status})\n{run_mutmut(folder, 'show', mutant)}"
            for mutant, status in wanted.items()
            if status not in KILLED | NOT_COUNTED
        ]
    return Counter(wanted.values()), survivors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="by default all of them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sample", type=int, help="of each part only so many, drawn by chance")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing")
    parser.add_argument("--survivors", type=Path, help="where to write their differences")
    options = parser.parse_args()
    rows, texts, enough = [], [], True
    for part in options.parts or PARTS:
        counts, survivors = run_part(part, options.workers, options.sample, options.seed)
        total = sum(number for status, number in counts.items() if status not in NOT_COUNTED)
        killed = sum(counts[status] for status in KILLED)
        enough = enough and total > 0 and killed >= LEAST_KILLED * total
        rows.append(f"| {part} | {total} | {killed} | {100 * killed / max(1, total):.1f} % |")
        texts += survivors
    print("\n| part | mutants | killed | |\n|---|--:|--:|--:|\n" + "\n".join(rows))
    if options.survivors:
        options.survivors.write_text("\n".join(texts))
    sys.exit(0 if enough else 1)


if __name__ == "__main__":
    main()
