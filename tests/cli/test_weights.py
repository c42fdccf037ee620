"""`weights list/synthesize`, through the real parser."""

import json
from pathlib import Path

import pytest
import torch

from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.models.weights import checkpoint_digest, load_checkpoint, resolve_weights
from virnucpro_monitor.validation.tokens import encode

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
    assert made["digest"] == checkpoint_digest(Path(made["path"]))
    assert run_command(["weights", "list", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[MODEL]["synthetic"] == [made["path"]]
    assert rows[MODEL]["official"] is None
    assert (rows[MODEL]["num_layers"], rows[MODEL]["embed_dim"]) == (6, 320)
    assert len(rows) == 7
    assert run_command(["weights", "list"]) == 0
    printed = capsys.readouterr().out
    assert f"synthetic  {made['path']}" in printed
    assert printed.count("official   not here, downloaded when first used") == 6
    assert printed.count("official   none, this is the demo's encoder") == 1


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


def test_converted_weights_keep_their_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["weights", "synthesize", MODEL]) == 0
    digest = capsys.readouterr().out.strip()
    given = "synthetic"
    for name, wanted in (("folder", "hugging-face"), ("8M.safetensors", "esm-efficient")):
        output = tmp_path / name
        told = ["weights", "convert", str(output), "--to", wanted, "--model", MODEL]
        assert run_command([*told, "--weights", given]) == 0
        assert capsys.readouterr().out.strip() == digest
        given = str(output)  # the next is made from this one
    assert run_command(["weights", "convert", "x", "--to", "onnx", "--weights", "synthetic"]) == 1
    assert "'onnx' is no format: use one of hugging-face" in capsys.readouterr().err


def test_weights_of_another_family_are_a_folder_that_its_adapter_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    from tests.runner.test_adapters import request
    from virnucpro_monitor.runner.loading import load_subject

    folders = [tmp_path / name for name in ("one", "again", "other")]
    digests = []
    for folder, seed in zip(folders, ("3", "3", "4"), strict=True):
        told = ["weights", "synthesize", MODEL, "--family", "prott5", "--seed", seed]
        assert run_command([*told, "--output", str(folder)]) == 0
        digests.append(capsys.readouterr().out.strip())
    assert digests[0] == digests[1] != digests[2]
    found = resolve_weights(MODEL, str(folders[0]), cache_folder=tmp_path)
    assert (found.digest, found.source) == (digests[0], "one")
    first, second = (
        load_subject("hf-t5", request(tmp_path, model_name=MODEL, checkpoint=one, token_budget=99))
        for one in (found.path, folders[2])
    )
    rows = [one.embed_unpacked_layers(encode("MKTAYIAK"), [6])[6] for one in (first, second)]
    assert rows[0].shape == (10, 320)
    assert not torch.equal(*rows)
    # Nothing that runs ESM-2 takes them for ESM-2's.
    with pytest.raises(WeightsError, match="another model than ESM-2, which only an adapter of"):
        load_checkpoint(MODEL, found.path)
    assert run_command(["weights", "synthesize", MODEL, "--family", "bert"]) == 1
    assert "'bert' is no family" in capsys.readouterr().err
