"""The README keeps its word: its commands exist, its pictures are there, its links resolve."""

import re
from pathlib import Path

import pytest

from virnucpro_monitor.cli.main import app, run_command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> set[str]:
    named = {str(command.name) for command in app.registered_commands}
    return named | {str(group.name) for group in app.registered_groups}


def test_every_command_is_in_the_readme() -> None:
    missing = {name for name in commands() if f"virnucpro-monitor {name}" not in README}
    assert not missing


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"virnucpro-monitor ((?:[a-z]+ ?){1,2})", README)))
)
def test_each_command_that_the_readme_names_exists(line: str) -> None:
    words = line.split()
    assert words[0] in commands()
    groups = {str(group.name) for group in app.registered_groups}
    wanted = words if words[0] in groups else words[:1]
    assert run_command([*wanted, "--help"]) == 0


def test_its_pictures_and_files_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_its_two_commands_are_single_lines_that_do_the_set_up() -> None:
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert len(lines) == 2
    assert "virnucpro-monitor demo" in lines[0]
    assert "pytest" in lines[1]
