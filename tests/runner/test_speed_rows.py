"""The table of speed says what was measured, and never gives a figure for what was not."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.benchmarks import command_times, speed_targets
from tests.benchmarks.speed_rows import Outputs
from tests.benchmarks.starts import Start, append

COMMITS = ("a" * 40, "b" * 40, "c" * 40)
WARM = Start(
    side="warm",
    seconds=17.4,
    at=(10.6, 14.0, 17.0),
    commits=COMMITS,
    outcomes=("failed",) * 3,
    found=("1", "2", "3"),
)
FRESH = replace(WARM, side="fresh", at=(31.0, 64.0), commits=COMMITS[1:], outcomes=("failed",) * 2,
                found=("2", "3"))  # fmt: skip
ONE = replace(WARM, side="local 1", seconds=18.0)
TWO = replace(WARM, side="local 2", seconds=9.0)
DASK = replace(WARM, side="dask 2", seconds=9.9)
STARTS = (WARM, FRESH, ONE, TWO, DASK)
# As packed_engine wrote them on an H200.
RATES: dict[str, list[tuple[str, str, float, float]]] = {
    "engine-before": [
        ("esm2_t6_8M_UR50D", "virnucpro-monitor, triton", 4264.1, 10.5),
        ("esm2_t6_8M_UR50D", "virnucpro-monitor, flash-attn", 4356.0, 10.8),
    ],
    "engine-small": [
        ("esm2_t6_8M_UR50D", "esm-efficient packed", 1473.5, 3.6),
        ("esm2_t6_8M_UR50D", "virnucpro-monitor, triton", 9937.2, 24.5),
        ("esm2_t6_8M_UR50D", "virnucpro-monitor, flash-attn", 7804.5, 19.2),
    ],
    "engine-650M": [("esm2_t33_650M_UR50D", "virnucpro-monitor, triton", 361.7, 67.2)],
}
DEMO = {"side": "now", "seconds": None, "cpu_s": 3.0, "said": "exit code 1: no room"}
MEMORY = {
    "sequences": 1000,
    "peak_before_bytes": 260_000_000,
    "runs": [{"outcome": "passed", "peak_bytes": 620_000_000}],
}


def write(folder: Path, starts: tuple[Start, ...] = STARTS) -> None:
    for one in starts:
        append(folder / "starts.jsonl", one)
    for step, rates in RATES.items():
        rows: list[dict[str, Any]] = [
            {"model": m, "variant": v, "ktok_per_s": rate, "mfu_percent": {"burst": share}}
            for m, v, rate, share in rates
        ]
        if step == "engine-650M":
            no_peer = {"model": rows[0]["model"], "variant": "VirNucPro HEAD forward_packed"}
            rows.append({**no_peer, "error": "ModuleNotFoundError: no virnucpro"})
        (folder / f"{step}.json").write_text(json.dumps({"rows": rows}))
    (folder / "demo.jsonl").write_text(json.dumps(DEMO))
    (folder / "memory.txt").write_text(f"a line before\n{json.dumps(MEMORY, indent=1)}\n")


def results(folder: Path, why: dict[str, str] | None = None) -> dict[str, str]:
    """The cells behind each row's name."""
    rows = [row.text() for row in Outputs(folder, why or {}, (1, 2, 4)).rows()]
    assert all(row.count("|") == 7 for row in rows)
    return {row[2:].partition(" | ")[0]: row[2:-2].partition(" | ")[2] for row in rows}


def test_each_row_stands_beside_its_base(tmp_path: Path) -> None:
    write(tmp_path)
    why = {"local 4": "no time left (about 30 s, 4 s are left)"}
    rows = results(tmp_path, why)
    fresh = "base: a fresh process, through the target's own loader"
    assert {name: rows[name] for name in list(rows)[:9]} == {
        f"one more commit, one at a time, s; {fresh}": "32.00 | 3.20 | 0.10 | 2.5 | missed",
        "one more commit, one at a time, the same as a ratio (10 x less)":
            "32.00 | 3.20 | 0.10 | 0.1 x | met",
        f"one more commit by default, s; {fresh}": "32.00 | 3.20 | 0.10 | 1.5 | missed",
        "one more commit by default, the same as a ratio (18 x less)":
            "32.00 | 3.20 | 0.10 | 0.0556 x | missed",
        "one more commit, one at a time, the median, s; base: the same":
            "32.00 | 3.20 | 0.10 | 2.5 | missed",
        "by default, the start included, s for each commit; base: the same":
            "32.00 | 5.67 | 0.18 | 1.5 | missed",
        "3 commits on 2 cards, start included, s; base: 1 card":
            "18.00 | 9.00 | 0.50 | 0.53 x | met",
        "3 commits on 4 cards, start included, s; base: 1 card":
            f"- | - | - | 0.29 x | not measured: {why['local 4']}",
        "from the command to the first verdict, s; base: an earlier version's":
            "- | - | - | 6 | no figure: it was not asked for",
    }  # fmt: skip
    assert rows["the same by Dask, 2 cards, s; base: the local engine"].endswith("1.1 x | met")
    assert "nothing of dask 1" in rows["the same by Dask, 1 card, s; base: the local engine"]
    small = "8M, packed, thousand tokens/s; base"
    assert rows[f"{small}: an earlier version"] == "4,356 | 9,937 | 2.28 | 2 x | met"
    assert rows[f"{small}: esm-efficient"] == "1,474 | 9,937 | 6.74 | 4 x | met"
    large = rows["650M, packed, thousand tokens/s; base: VirNucPro HEAD"]
    assert large == (
        "- | - | - | 2.2 x | not measured: VirNucPro HEAD: ModuleNotFoundError: no virnucpro"
    )
    share = rows["650M, packed, % of the largest product's rate in a burst"]
    assert share == "- | 67.20 | - | 70 | missed"
    (demo,) = (cells for name, cells in rows.items() if name.startswith("demo"))
    assert demo == "- | - | - | 20 | no figure: exit code 1: no room"
    (memory,) = (cells for name, cells in rows.items() if name.startswith("memory"))
    assert memory == "0.62 | 0.36 | 0.58 | 0.44 | met"


def test_no_figure_for_errors_or_for_other_findings(tmp_path: Path) -> None:
    broken = replace(ONE, outcomes=("failed", "error", "failed"))
    other = replace(WARM, found=("1", "2", "4"))
    write(tmp_path, (other, FRESH, broken, TWO))
    agreement = Outputs(tmp_path, {}, (1, 2)).agreement()
    assert agreement.endswith(
        "local 1 to the last bit: warm: 2 of 3, fresh: 2 of 2, local 2: 3 of 3."
    )
    rows = list(results(tmp_path).values())
    assert rows[0] == "- | - | - | 2.5 | no figure: the findings of 1 of 2 commits differ"
    without = "no figure: 1 of 3 commits of local 1 have no verdict"
    assert rows[3] == f"- | - | - | 1.5 | {without}"
    assert rows[6] == f"- | - | - | 0.53 x | {without}"


@pytest.mark.parametrize("outcome", ["failed", "error"])
def test_a_first_verdict_is_timed_by_its_line_and_an_error_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    package = tmp_path / "virnucpro_monitor"
    package.mkdir()
    (package / "__init__.py").touch()
    line = f"{COMMITS[0][:10]}  {outcome}  seed  worst similarity 0.9"
    (package / "__main__.py").write_text(f"print('Created the database.')\nprint({line!r})\n")
    repository = SimpleNamespace(location=str(tmp_path), package="pack")
    commit = SimpleNamespace(hash=COMMITS[0])
    chosen = SimpleNamespace(target=repository, commits=[commit], token_budget=512)
    monkeypatch.setattr(command_times, "choose", lambda *_: chosen)
    options = argparse.Namespace(
        model="m", weights="synthetic", device="cpu", dtype="float32", benchmark="seed"
    )
    took = command_times.first_verdict("before", tmp_path, tmp_path, options)
    assert took.said == line
    assert (took.seconds is None) is (outcome == "error")


def test_what_no_time_is_left_for_is_said_and_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--out", str(tmp_path), "--cpu", "--within", "0", "--cards", "1", "2")
    monkeypatch.setattr(sys, "argv", ["speed_targets", *words])
    speed_targets.main()
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) > 12
    results = {row["result"].partition(" (")[0] for row in rows}
    needs = "not measured: needs --engine-before"
    assert results == {"not measured: no time left", needs}
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out
    assert not list(tmp_path.glob("*.txt"))
