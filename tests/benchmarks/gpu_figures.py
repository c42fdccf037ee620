"""Every figure of the README and of the pages beside this file that needs a GPU, anew, in one go.

    python -m tests.benchmarks.gpu_figures --out FOLDER --peers FOLDER_WITH_PACKAGES \
        --target VIRNUCPRO_CHECKOUT
    python -m tests.benchmarks.gpu_figures --out FOLDER --only tests selftest --limit 300

Each step is a command that can be run by itself; its whole output goes to FOLDER/STEP.txt, and a
table of what came of each is printed last. A step that fails does not keep the others from running.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

BIG, SMALL = "esm2_t33_650M_UR50D", "esm2_t6_8M_UR50D"
SIZES = (BIG, "esm2_t36_3B_UR50D", SMALL, "esm2_t12_35M_UR50D", "esm2_t30_150M_UR50D")


def steps(options: argparse.Namespace) -> dict[str, list[str]]:
    """{name: arguments of the interpreter}"""
    product = ["-m", "virnucpro_monitor"]
    peers = ["--peers", *options.peers] if options.peers else []
    found = {
        "tests": ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *options.tests],
        "engine": [
            *["-m", "tests.benchmarks.packed_engine", *peers, "--rounds", "2", "--profile"],
            *["--backends", "triton", "flash-attn", "--models", *SIZES],
            *["--json", str(options.out / "engine.json")],
        ],
        "accuracy": ["-m", "tests.benchmarks.engine_accuracy"],
    }
    for model, dtype in ((BIG, "float16"), (BIG, "bfloat16"), (SMALL, "float16")):
        size = "650M" if model == BIG else "8M"
        found[f"selftest-{size}-{dtype}"] = [
            *[*product, "selftest", "--device", "cuda:0", "--model", model],
            *["--dtype", dtype, "--weights", "synthetic"],
        ]
        found[f"healthy-{size}-{dtype}"] = [
            *["-m", "tests.benchmarks.yardstick", "--model", model, "--dtypes", dtype],
            *["--no-selftest", "--out", str(options.out / f"healthy-{size}-{dtype}.json")],
        ]
    if options.target:
        found["commits"] = [
            *["-m", "tests.benchmarks.commit_cost", "--target", options.target],
            *["--package", "virnucpro", "--commits", options.commits, "--limit", "20"],
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[""], help="steps whose name begins so")
    parser.add_argument("--limit", type=float, default=3600, metavar="SECONDS", help="of a step")
    parser.add_argument("--peers", nargs="+", default=[])
    parser.add_argument("--target", help="a checkout of VirNucPro")
    parser.add_argument("--commits", default="ROOT..HEAD")
    parser.add_argument("--tests", nargs="+", default=[], help="folders of the tests to run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, arguments in steps(options).items():
        if not name.startswith(tuple(options.only)):
            continue
        started = time.monotonic()
        with (options.out / f"{name}.txt").open("w") as output:
            try:
                code: int | str = subprocess.run(
                    [sys.executable, *arguments],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=options.limit,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = "time limit"
        lines = (options.out / f"{name}.txt").read_text().splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        rows.append(f"| {name} | {code} | {time.monotonic() - started:.0f} s | {last[:110]} |")
        print(rows[-1], flush=True)
    print("\n| step | exit code | | last line |\n|---|---|---|---|\n" + "\n".join(rows))
    sys.exit(any("| 0 |" not in row for row in rows))


if __name__ == "__main__":
    main()
