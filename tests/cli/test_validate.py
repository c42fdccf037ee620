"""`validate FASTA`: one verdict, right exit codes, JSON on standard output alone."""

import copy
import json
import os
import re
from pathlib import Path

import pytest
import torch

from tests.protocols import worst_of_side
from virnucpro_monitor.cli import validate
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.models import esm2_flash
from virnucpro_monitor.monitor import validating
from virnucpro_monitor.records import Verdict, from_json
from virnucpro_monitor.validation.protocol import load_protocol

MODEL = ["--model", "esm2_t6_8M_UR50D", "--weights", "synthetic", "--device", "cpu"]
FASTA = ">one\nMKTAYIAKQRQISFVKSHFSRQ\n>two\nMVLSPADKTNVKAAWGKV\n>three\nDERKH\n"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "proteins.fasta"
    path.write_text(FASTA)
    return path


def test_json_holds_the_whole_verdict(fasta: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["validate", str(fasta), *MODEL, "--dtype", "float32", "--json"]) == 0
    verdict = from_json(Verdict, json.loads(capsys.readouterr().out))
    assert verdict.outcome == "passed"
    assert [s.sequence_id for s in verdict.sequences] == ["one", "two", "three"]
    assert {"leak", "oracle", "seed"} <= {gate.name for gate in verdict.gates}
    assert verdict.documents["probes"]["leak"]["value"] == 0.0


def test_a_person_reads_what_is_wrong(
    fasta: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = esm2_flash.ESM2WithFlashAttention._embed
    packed = esm2_flash.ESM2WithFlashAttention.forward_packed

    def forgetful(self, *arguments, **named):
        monkeypatch.setattr(type(self), "_embed", lambda self, *given: embed(self, *given) / 0.88)
        try:
            return packed(self, *arguments, **named)
        finally:
            monkeypatch.setattr(type(self), "_embed", embed)

    monkeypatch.setattr(esm2_flash.ESM2WithFlashAttention, "forward_packed", forgetful)
    assert run_command(["validate", str(fasta), *MODEL, "--dtype", "float32"]) == 2
    text = " ".join(capsys.readouterr().out.split())
    assert "FAILED: Packed is the wrong side" in text
    assert "looks like a missing 0.88 token-dropout rescale" in text
    assert "0 of 3 sequences agree" in text
    assert "failed gates: seed, gain, residue, oracle, ceiling, probes, embedding." in text
    # What failed stands before what holds, with the amount allowed beside what was found.
    assert text.index("embedding FAILED packed") < text.index("coverage passed")
    limit = load_protocol().content["limits"]["float32, esm2_t6_8M_UR50D"]["ceiling"]
    told = re.search(r"to FP32 \(relative L2\): above (\S+) in 3 of 3 sequences", text)
    assert told is not None
    # The run's own noise, which depends on the number of threads, may make it a little lower.
    assert 0.5 * limit < float(told[1]) <= float(f"{limit:.1e}")
    assert "A sequence's embedding changes with its neighbours' residues by 0; it must be" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        (">a\nMKT\n>a\nMKT\n", "a"),
        (">a\nMK1T\n", "line 2"),
    ],
)
def test_bad_files_are_refused_before_a_model_is_loaded(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    message: str,
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("loaded a model")

    monkeypatch.setattr(validating, "validate_builtin", refuse)
    path = tmp_path / "bad.fasta"
    path.write_text(content)
    assert run_command(["validate", str(path), *MODEL]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "float64"], "'float64' is not a dtype: use one of float32"),
        (["--protocol", "99"], "no protocol '99'"),
        (["--device", "cuda:7"], "cuda"),
        (["--model", "esm2_t7_9M"], "esm2_t7_9M"),
    ],
)
def test_what_cannot_run_is_one_sentence(
    fasta: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run_command(["validate", str(fasta), *MODEL, "--dtype", "float32", *options]) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_a_card_that_is_not_there_is_told_before_weights_are_fetched(
    fasta: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(validating, "resolve_weights")
    assert run_command(["validate", str(fasta), "--device", "cuda:0"]) == 1
    said = capsys.readouterr().err
    assert "There is no cuda:0: PyTorch sees 0 CUDA devices here; use --device cpu," in said


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_cards_are_counted_as_for_a_run_unless_it_is_said_how(
    fasta: Path, monkeypatch: pytest.MonkeyPatch, order: str | None
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order or "")
    if order is None:
        monkeypatch.delenv("CUDA_DEVICE_ORDER")
    orders: list[str | None] = []

    def is_available() -> bool:
        orders.append(os.environ.get("CUDA_DEVICE_ORDER"))
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    assert run_command(["validate", str(fasta), "--device", "cuda:1"]) == 1
    assert orders == [order or "PCI_BUS_ID"]


def test_a_protocol_tighter_than_the_noise_is_refused_with_the_numbers(
    fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = copy.deepcopy(dict(load_protocol().content))
    content["version"] = "mine"
    own = "float32, esm2_t6_8M_UR50D"
    content["limits"][own]["baseline"] = 1e-9
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(content))
    arguments = ["validate", str(fasta), *MODEL, "--dtype", "float32", "--protocol", str(mine)]
    assert run_command(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Protocol mine is tighter than the noise" in captured.err
    assert "its baseline gate allows 1.0e-09 in float32" in captured.err
    assert f"healthy runs have had up to {worst_of_side(content, own):.1e}" in captured.err


@pytest.mark.parametrize(
    ("similarity", "text"),
    [(None, "none"), (0.99, "0.99000"), (1 - 1e-9, "1 - 1.0e-09"), (1.0, "exactly 1")],
)
def test_a_similarity_near_one_keeps_its_digits(similarity: float | None, text: str) -> None:
    assert validate.similarity_text(similarity) == text
