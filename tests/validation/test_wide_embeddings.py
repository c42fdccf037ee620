"""Embeddings as wide as the 3B model's are validated in bounded memory."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED_BYTES = 2 * 1000**3


@pytest.mark.slow
def test_1000_sequences_of_3b_width_need_at_most_2_gb(tmp_path: Path) -> None:
    """The whole process, Python and torch included, oracle and traces too."""
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.benchmarks.validation_memory",
            "--folder", tmp_path, "--plain-heap",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    shutil.rmtree(tmp_path)  # the oracle's gigabytes are not left behind
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["sequences"], found["width"]) == (1000, 2560)
    # What streams past is larger than what may be held: nothing keeps it all.
    assert found["oracle_bytes"] > 1.5 * ALLOWED_BYTES
    healthy, broken = found["runs"]
    assert (healthy["outcome"], healthy["traced"]) == ("passed", 0)
    assert (broken["outcome"], broken["traced"]) == ("failed", 2)
    assert healthy["peak_bytes"] <= broken["peak_bytes"] < ALLOWED_BYTES
