"""`weights list/synthesize`, through the real parser."""

import hashlib
import json
from pathlib import Path

import pytest

from virnucpro_monitor.cli.main import run_command

MODEL = "esm2_t6_8M_UR50D"


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_synthesized_weights_are_listed_with_their_digest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["weights", "synthesize", MODEL, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["digest"] == hashlib.sha256(Path(made["path"]).read_bytes()).hexdigest()
    assert run_command(["weights", "list", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[MODEL]["synthetic"] == [made["path"]]
    assert rows[MODEL]["official"] is None
    assert (rows[MODEL]["num_layers"], rows[MODEL]["embed_dim"]) == (6, 320)
    assert len(rows) == 6
    assert run_command(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    assert f"synthetic  {made['path']}" in printed
    assert "official   not here, downloaded when first used" in printed


def test_a_seed_decides_the_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for number, seed in enumerate(("0", "0", "1")):
        output = tmp_path / str(number) / f"{MODEL}.pt"
        arguments = ["weights", "synthesize", MODEL, "--seed", seed, "--output", str(output)]
        assert run_command(arguments) == 0
        digests.append(capsys.readouterr().out.strip())
    assert digests[0] == digests[1] != digests[2]


def test_an_unknown_model_and_an_unwritable_place_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["weights", "synthesize", "esm3"]) == 1
    assert "esm3" in capsys.readouterr().err
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    output = in_the_way / f"{MODEL}.pt"
    assert run_command(["weights", "synthesize", MODEL, "--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert "cannot be written" in error
    assert error.count("\n") == 1
