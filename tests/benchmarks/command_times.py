"""What a command takes as its user sees it: the first verdict of `run`, and the whole `demo`.

    python -m tests.benchmarks.command_times first --before EARLIER_CHECKOUT --target PATH \
        --package NAME --commits A..B
    python -m tests.benchmarks.command_times demo --before EARLIER_CHECKOUT

The earlier checkout's own command runs right before this one's, with packages as they are here.
"first" is from the start of the interpreter to the line of the last commit's verdict, with an empty
database and `--cache` made ready: `--ready` runs it once for that and times nothing. "demo" begins
in an empty home, on two cores: its processes are bound to them, and are told that there are no
more.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.starts import VERDICTS, add_arguments, choose

HERE = Path(__file__).resolve().parents[2]
TWO_CORES = "import os\nos.cpu_count = lambda: 2\n"


@dataclass(frozen=True, slots=True)
class Took:
    """What one command took.

    Attributes:
        side: "before" or "now".
        seconds: None where the command did not do what it is timed for.
        cpu_s: of the command and all of its processes; None where it was not awaited.
        said: the line that counts, or the last one.
    """

    side: str
    seconds: float | None
    cpu_s: float | None
    said: str


def first_verdict(side: str, checkout: Path, cache: Path, options: argparse.Namespace) -> Took:
    """From the command to its first verdict."""
    chosen = choose(options, cache)
    commit = chosen.commits[-1].hash
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "virnucpro_monitor", "run"),
            *("--target", chosen.target.location, "--commit", commit),
            *("--package", str(chosen.target.package)),
            *("--model", options.model, "--weights", options.weights),
            *("--device", options.device, "--dtype", options.dtype),
            *("--benchmark", options.benchmark, "--token-budget", str(chosen.token_budget)),
            *("--db", f"sqlite:///{folder}/runs.db"),
        ]
        settings = {"VIRNUCPRO_MONITOR_CACHE_DIR": str(cache)}
        seconds, said = None, ""
        start = time.monotonic()
        with subprocess.Popen(
            command,
            env=_environment(checkout, settings),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                now = time.monotonic() - start
                print(f"{side} {now:6.2f} s: {line.rstrip()[:150]}", flush=True)
                words = line.split()
                if seconds is None:
                    said = line.strip()[:150]
                if len(words) > 1 and commit.startswith(words[0]) and words[1] in VERDICTS:
                    seconds = now
    return Took(side, seconds, None, said)


def whole_demo(side: str, checkout: Path) -> Took:
    """The sample's 16 commits on two cores."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    pinned = ["taskset", "-c", cores] if shutil.which("taskset") else []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sitecustomize.py").write_text(TWO_CORES)
        settings = dict.fromkeys(("XDG_CACHE_HOME", "XDG_DATA_HOME"), folder)
        command = [sys.executable, "-m", "virnucpro_monitor", "demo", "--no-open"]
        start, before = time.monotonic(), os.times()
        done = subprocess.run(
            [*pinned, *command, "--db", f"sqlite:///{folder}/demo.db"],
            env=_environment(checkout, settings, folder),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds, after = time.monotonic() - start, os.times()
    print(done.stdout, flush=True)
    said = re.findall(r"(?m)^16 commits: .*", done.stdout)
    cpu_s = sum(after[2:4]) - sum(before[2:4])
    if done.returncode or not said:
        lines = done.stdout.strip().splitlines() or [""]
        return Took(side, None, cpu_s, f"exit code {done.returncode}: {lines[-1][:150]}")
    return Took(side, seconds, cpu_s, said[-1].partition(";")[0])


def _environment(checkout: Path, settings: dict[str, str], *more: str) -> dict[str, str]:
    places = (*more, str(checkout), os.environ.get("PYTHONPATH", ""))
    paths = os.pathsep.join(filter(None, places))
    return {**os.environ, "PYTHONUNBUFFERED": "1", **settings, "PYTHONPATH": paths}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("first", "demo"))
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--ready", action="store_true", help="make the caches ready, time nothing")
    add_arguments(parser, limit=1)
    options = parser.parse_args()
    sides = {"now": HERE}
    if options.before:
        sides = {"before": options.before.resolve(), **sides}
    if options.ready:
        sides.pop("now" if options.before else "", None)
    with tempfile.TemporaryDirectory() as folder:
        cache = (options.cache or Path(folder)).resolve()
        for side, checkout in sides.items():
            if options.what == "demo":
                took = whole_demo(side, checkout)
            else:
                own = cache / "before" if side == "before" else cache
                took = first_verdict(side, checkout, own, options)
            shown = "no figure" if took.seconds is None else f"{took.seconds:.2f} s"
            print(f"{options.what}, {side}: {shown} ({took.said})", flush=True)
            if options.json and not options.ready:
                with options.json.open("a") as file:
                    file.write(json.dumps(asdict(took)) + "\n")


if __name__ == "__main__":
    main()
