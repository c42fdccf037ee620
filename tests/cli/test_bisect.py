import json
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, MODEL_FILE, PADDED_WITH_CLS, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.notes_reader import load_bisections
from virnucpro_monitor.store.reader import load_runs

pytestmark = pytest.mark.usefixtures("quick_probes", "shared_workers")

CPU = ("--model", "esm2_t6_demo", "--weights", "synthetic", "--device", "cpu")
HEALTHY_MODEL = HEALTHY[MODEL_FILE]
CRASHING = "raise RuntimeError('boom')\n" + PADDED_WITH_CLS


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    fasta = tmp_path / "bisected.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n")
    run_command(["benchmark", "add", str(fasta), "--name", "bisected"])
    return [
        "--target", str(tmp_path / "tiny"), *CPU, "--dtype", "float32",
        "--benchmark", "bisected", "--db", f"sqlite:///{tmp_path / 'monitor.db'}",
    ]  # fmt: skip


def test_the_guilty_commit_and_the_mending_one_are_named(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TinyRepository(tmp_path / "tiny")
    good = tiny.commit(HEALTHY)
    guilty = tiny.commit({MODEL_FILE: PADDED_WITH_CLS}, "Pad with zeros")
    bad = tiny.commit({"notes.txt": "x"})
    mending = tiny.commit({MODEL_FILE: HEALTHY_MODEL}, "Pad with pads")
    last = tiny.commit({"notes.txt": "y"})
    capsys.readouterr()

    assert run_command(["bisect", good, bad, *arguments]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{guilty} is the first bad commit\ncommit {guilty}\nAuthor: ")
    assert "    Pad with zeros" in said

    assert run_command(["bisect", last, bad, "--gate", "oracle", "--json", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first_bad"] == mending
    assert f"{mending} is the first good commit" in found["conclusion"]
    assert [step["verdict"] for step in found["steps"][:2]] == ["good", "bad"]
    assert found["steps"][1]["reused"]  # stored by the search before

    assert run_command(["bisect", good, bad, "--db", arguments[-1]]) == 0  # as measured before
    assert capsys.readouterr().out.startswith(f"{guilty} is the first bad commit")

    engine = open_engine(arguments[-1], read_only=True)
    searches = load_bisections(engine, "tiny")
    runs = {run.commit.hash for run in load_runs(engine)}
    engine.dispose()
    assert {search.first_bad for search in searches} == {guilty, mending}
    assert all(search.finished_at for search in searches)
    assert runs >= {good, bad, guilty}


def test_commits_that_cannot_run_leave_several_suspects(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TinyRepository(tmp_path / "tiny")
    good = tiny.commit(HEALTHY)
    crashing = tiny.commit({MODEL_FILE: CRASHING})
    bad = tiny.commit({MODEL_FILE: PADDED_WITH_CLS})
    capsys.readouterr()
    assert run_command(["bisect", good, bad, *arguments]) == 3
    said = capsys.readouterr().out
    assert said == (
        "Only commits that cannot run are left. The first bad commit could be any of:\n"
        f"{crashing}\n{bad}\n"
    )


def test_ends_that_are_not_what_they_are_called_are_refused(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TinyRepository(tmp_path / "tiny")
    one = tiny.commit(HEALTHY)
    other = tiny.commit({"notes.txt": "x"})
    capsys.readouterr()
    assert run_command(["bisect", one, one, *arguments]) == 1
    assert "the same commit" in capsys.readouterr().err
    assert run_command(["bisect", one, other, *arguments]) == 1
    assert f"{other[:10]}, given as BAD, is good, not bad," in capsys.readouterr().err
    assert run_command(["bisect", one, other, "--gate", "nothing", *arguments]) == 1
    assert "cannot be judged by the gate nothing" in capsys.readouterr().err
