"""`benchmark list/show/add`, through the real parser."""

import json
from pathlib import Path

import pytest

from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.data.benchmarks import load_benchmark


@pytest.fixture(autouse=True)
def own_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "mine.fasta"
    path.write_text(">a\nMKT\n>b\nVLSP\n")
    return path


def test_list_shows_the_released_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["benchmark", "list"]) == 0
    printed = capsys.readouterr().out
    for name in ("boundaries", "proteome", "seed"):
        assert name in printed
    assert run_command(["benchmark", "list", "--json"]) == 0
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert listed["seed"]["num_sequences"] == 11
    assert listed["seed"]["max_length"] == 400
    assert listed["proteome"]["digest"] == load_benchmark("proteome").digest


def test_show_prints_the_digest_and_the_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    digest = load_benchmark("seed").digest
    assert run_command(["benchmark", "show", "seed"]) == 0
    printed = capsys.readouterr().out
    assert digest in printed
    assert "VLSPADKTNV" in printed
    assert run_command(["benchmark", "show", "seed@1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["digest"] == digest
    assert shown["sequences"][0] == {"id": "short1", "residues": "MKTAYIAK"}


def test_add_freezes_a_file_and_a_changed_one_as_a_new_version(
    fasta: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["benchmark", "add", str(fasta), "--name", "mine", "--description", "two peptides"]
    assert run_command([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert "Froze 2 sequences as mine@1" in captured.err
    assert json.loads(captured.out)["description"] == "two peptides"
    assert run_command(arguments) == 0
    assert "mine@1 holds exactly these sequences already" in capsys.readouterr().err
    fasta.write_text(">a\nMKT\n")
    assert run_command(arguments) == 0
    assert "Froze 1 sequence as mine@2" in capsys.readouterr().err
    assert [load_benchmark(name).version for name in ("mine", "mine@1")] == [2, 1]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b">a\nMKT\n>a\nMK\n", "line 3: the id 'a' was already used"),
        (b">a\n>b\nMKT\n", "line 1: sequence 'a' is empty"),
        (b">a\nMK7\n", "line 2, column 3: '7' is not a residue"),
        (b"\x89PNG\r\n\x1a\n", "is not text: line 1 holds the byte 0x89"),
    ],
)
def test_bad_fasta_is_one_sentence_and_exit_code_1(
    fasta: Path, capsys: pytest.CaptureFixture[str], content: bytes, sentence: str
) -> None:
    fasta.write_bytes(content)
    assert run_command(["benchmark", "add", str(fasta), "--name", "mine"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_an_unknown_set_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["benchmark", "show", "absent"]) == 1
    assert "There is no benchmark set 'absent'" in capsys.readouterr().err
