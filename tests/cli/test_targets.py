import json
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.main import run_command


@pytest.fixture
def database(tmp_path: Path) -> list[str]:
    return ["--db", f"sqlite:///{tmp_path / 'monitor.db'}"]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "Add packed inference")
    return str(repository.folder)


def test_a_target_is_added_changed_listed_checked_and_removed(
    folder: str, database: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["targets", "list", *database]) == 0
    assert "No targets yet" in capsys.readouterr().err
    assert run_command(["targets", "add", "pack", folder, *database]) == 0
    assert "Stored pack: 1 commits" in capsys.readouterr().err
    more = ["--package", "tinytarget", "--paths", "tinytarget", "--paths", "*.toml"]
    assert run_command(["targets", "add", "pack", folder, *more, *database]) == 0
    capsys.readouterr()
    assert run_command(["targets", "list", "--json", *database]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["paths"] == ["tinytarget", "*.toml"]
    assert run_command(["targets", "list", *database]) == 0
    assert "pack" in capsys.readouterr().out

    assert run_command(["targets", "check", "pack", *database]) == 1
    assert "The path '*.toml' covers no file" in capsys.readouterr().err
    assert run_command(["targets", "add", "pack", folder, *database]) == 0
    assert run_command(["targets", "check", "pack", *database]) == 0
    said = capsys.readouterr().out
    assert "tinytarget.models.esm2_flash.load_esm2_model" in said
    assert "Add packed inference" in said

    assert run_command(["targets", "remove", "pack", *database]) == 1
    assert "say so by --yes" in capsys.readouterr().err
    assert run_command(["targets", "remove", "pack", "--yes", *database]) == 0
    assert run_command(["targets", "remove", "pack", "--yes", *database]) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "a b", "{folder}"], "not a target name"),
        (["add", "builtin", "{folder}"], "stands for this package's own model"),
        (["add", "a", "/nowhere"], "There is no repository at"),
        (["add", "a", "https://localhost:1/x.git"], "cannot be reached"),
        (["add", "a", "{folder}", "--branch", "gone"], "Revision 'gone' is not known"),
        (["check", "{folder}", "--package", "other"], "'other' has no load_esm2_model"),
        (["check", "{folder}", "--commit", "nope"], "Revision 'nope' is not known"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: str,
    database: list[str],
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [argument.replace("{folder}", folder) for argument in arguments]
    assert run_command(["targets", *given, *database]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert sentence in lines[0]


def test_the_builtin_target_can_be_looked_at(
    database: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["targets", "check", "builtin", *database]) == 0
    assert "as it is installed" in capsys.readouterr().out
