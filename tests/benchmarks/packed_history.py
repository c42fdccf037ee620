"""VirNucPro's commits of its packed path, run, and what the commands then say of them.

    python -m tests.benchmarks.packed_history --target PATH --folder FOLDER [--limit 5]

Prints what `run` printed, how many runs had each outcome and reason, `regressions`, and `compare`
over the commits that changed how accurate the packed side is: 3a8594a (the missing 0.88 rescale),
d4b6197 (away from FP32) and 525297a (back), found by their messages, since a checkout
may be a rewritten one. FOLDER keeps the database and what was computed.
"""

import argparse
import collections
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PATHS = (
    "virnucpro/models/esm2_flash.py",
    "virnucpro/models/packed_attention.py",
    "virnucpro/data/collators.py",
    "virnucpro/data/packing.py",
)
TURNS = (
    "apply token dropout rescaling in packed",
    "match standard ESM-2 precision in packed",
    "revert RoPE to FP32",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, help="a checkout of VirNucPro")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="only the last of the commits")
    parser.add_argument("--model", default="esm2_t33_650M_UR50D")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--benchmark", default="reach")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    place = {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_DATA_HOME": str(folder / "data")}
    place["VIRNUCPRO_MONITOR_DB"] = f"sqlite:///{folder / 'history.db'}"

    def git(*arguments: str) -> list[str]:
        command = ["git", "-C", options.target, "log", "--format=%h", *arguments]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return found.stdout.split()

    def product(*arguments: str) -> str:
        print(f"\n$ virnucpro-monitor {' '.join(arguments[:3])}", flush=True)
        return subprocess.run(
            [sys.executable, "-m", "virnucpro_monitor", *arguments],
            env={**os.environ, **place},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout

    commits = git("--reverse", "--", *PATHS)[-(options.limit or 0) :]
    print(product("targets", "add", "history", options.target, "--package", "virnucpro"))
    asked = [word for commit in commits for word in ("--commit", commit)]
    setup = ["--model", options.model, "--weights", "synthetic", "--device", options.device]
    setup += ["--dtype", options.dtype, "--benchmark", options.benchmark]
    started = time.monotonic()
    print(product("run", "--target", "history", *setup, "--order", "newest", *asked))
    print(f"{len(commits)} commits in {time.monotonic() - started:.1f} s")
    runs = json.loads(product("runs", "list", "--target", "history", "--json"))
    for field in ("outcome", "reason"):
        counted = collections.Counter(str(one[field])[:200] for one in runs)
        for text, count in counted.most_common():
            print(f"{count:4d}  {text}")
    print(product("regressions", "--target", "history"))
    turns = [git("--grep", words)[0] for words in TURNS]
    at = commits.index(turns[0]) if turns[0] in commits else 0
    for base, head in zip([commits[max(0, at - 1)], *turns], turns, strict=False):
        print(product("compare", base, head, "--target", "history"))
    return 0 if runs else 1


if __name__ == "__main__":
    sys.exit(main())
