import json
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor.running import LAST_COMMIT, find_run_target, make_plan
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.validation.protocol import load_protocol


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
    assert "Stored pack: 1 commit " in capsys.readouterr().err
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


def test_a_package_without_the_interface_is_stored_with_a_warning(
    folder: str, database: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["targets", "add", "pack", folder, "--package", "other", *database]) == 0
    said = capsys.readouterr().err
    assert "Stored pack: 1 commit on its main branch." in said
    assert "cannot be measured as it is: " in said
    assert "'other' has no load_esm2_model" in said
    assert run_command(["targets", "add", "pack", folder, *database]) == 0
    assert "Warning" not in capsys.readouterr().err


def test_a_broken_target_of_the_settings_file_does_not_stop_another(
    folder: str,
    database: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "virnucpro-monitor.toml").write_text(
        f"[targets.broken]\nbranch = 3\n[targets.good]\nlocation = '{folder}'\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run_command(["targets", "check", "good", *database]) == 0
    assert run_command(["targets", "check", folder, *database]) == 0
    assert run_command(["targets", "list", *database]) == 0
    captured = capsys.readouterr()
    assert f"good  {folder}" in captured.out
    assert "Left out: [targets.broken] in virnucpro-monitor.toml lacks 'location'" in captured.err
    assert run_command(["targets", "check", "broken", *database]) == 1
    assert "[targets.broken] in virnucpro-monitor.toml lacks" in capsys.readouterr().err


def test_a_policy_is_set_shown_used_and_taken_back(
    folder: str, database: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def policy(*arguments: str, code: int = 0) -> str:
        assert run_command(["targets", "policy", "pack", *arguments, *database]) == code
        said = capsys.readouterr()
        return said.out + said.err

    def digest() -> str:
        settings = load_settings(db=database[1], cache_dir=tmp_path / "cache", device="cpu")
        target = find_run_target(settings, "pack")
        return make_plan(settings, target, [], LAST_COMMIT)[0].protocol.digest

    assert run_command(["targets", "add", "pack", folder, *database]) == 0
    capsys.readouterr()
    plain = digest()
    assert plain == load_protocol().digest
    assert "Every gate fails this target." in policy()
    assert "No reason is given" in policy("--inform", "mask", "--who", "Ada", code=1)
    assert "no policy may loosen" in policy("--inform", "seed", "--who", "A", "--why", "x", code=1)
    assert "give one of them" in policy("--inform", "mask", "--fail", "mask", code=1)
    said = policy("--inform", "mask", "--who", "Ada", "--why", "no masks are used")
    assert "the gate mask informs for pack" in said
    assert "mask informs, says Ada since 20" in said
    assert digest() != plain
    (rule,) = json.loads(policy("--json"))
    assert (rule["gate"], rule["who"], rule["why"]) == ("mask", "Ada", "no masks are used")
    assert "by Bob: no masks are used" in policy("--fail", "mask", "--who", "Bob")
    assert digest() == plain
    assert "No policy of pack lets the gate 'mask' inform." in policy("--fail", "mask", code=1)
    two = ("--inform", "mask", "--inform", "gain")
    assert "Nobody is named" in policy(*two, "--why", "x", "--who", "", code=1)
    assert "'gian' is not a gate" in policy(*two, "--inform", "gian", "--why", "x", code=1)
    assert json.loads(policy("--json"))[1:] == []
    policy(*two, "--why", "x", "--who", "Ada")
    standing = [rule["gate"] for rule in json.loads(policy("--json")) if not rule["withdrawn_at"]]
    assert standing == ["mask", "gain"]


def test_what_was_said_of_another_location_is_told_and_a_matrix_is_no_target(
    folder: str, database: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> tuple[int, str]:
        code = run_command(["targets", *arguments, *database])
        return code, capsys.readouterr().err

    other = TinyRepository(tmp_path / "other")
    other.commit(HEALTHY, "Add packed inference")
    assert command("add", "pack", folder)[0] == 0
    assert command("policy", "pack", "--inform", "leak", "--who", "Ada", "--why", "x")[0] == 0
    assert "only inform" not in command("add", "pack", folder)[1]
    said = command("add", "pack", str(other.folder))[1]
    assert f"pack was {folder}, and what was said of that one still holds: leak only inform" in said
    assert command("add", "two", folder, "--matrix", "six=1.16.0,1.17.0")[0] == 0
    code, said = command("policy", "two", "--inform", "leak", "--who", "Ada", "--why", "x")
    assert code == 1
    assert "means several environments: name one of two-six-1.16.0, two-six-1.17.0." in said
