"""The README keeps its word: its commands exist, its pictures are there, its links resolve."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from virnucpro_monitor.cli.main import app, run_command
from virnucpro_monitor.cli.manual import commands_markdown
from virnucpro_monitor.host.alert_file import EXAMPLE, read_alert_file
from virnucpro_monitor.records import GATES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PACKAGE = ROOT / "virnucpro_monitor"
PAGES = [
    ROOT / "README.md",
    ROOT / "app" / "README.md",
    PACKAGE / "cli" / "COMMANDS.md",
    PACKAGE / "report" / "ALERTS.md",
    PACKAGE / "report" / "CI.md",
    PACKAGE / "runner" / "CLUSTER.md",
    PACKAGE / "runner" / "TRUST.md",
    PACKAGE / "validation" / "GATES.md",
]
MANUAL = "\n".join(page.read_text() for page in PAGES)


def commands() -> set[str]:
    named = {str(command.name) for command in app.registered_commands}
    return named | {str(group.name) for group in app.registered_groups}


def test_every_command_is_in_the_readme() -> None:
    missing = {name for name in commands() if f"virnucpro-monitor {name}" not in README}
    assert not missing


@pytest.mark.parametrize(
    "line", sorted(set(re.findall(r"virnucpro-monitor ((?:[a-z]+ ?){1,2})", MANUAL)))
)
def test_each_command_that_the_readme_names_exists(line: str) -> None:
    words = line.split()
    assert words[0] in commands()
    groups = {str(group.name) for group in app.registered_groups}
    wanted = words if words[0] in groups else words[:1]
    assert run_command([*wanted, "--help"]) == 0


def test_its_pictures_files_and_headings_exist() -> None:
    for page in PAGES:
        found = re.findall(r"\]\(([^)]+)\)", page.read_text())
        local = [target.partition("#")[::2] for target in found if "://" not in target]
        for path, heading in local:
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page}: {path}"
            if heading:
                assert heading in headings(there), f"{page}: {path}#{heading}"
    assert all(str(page.relative_to(ROOT)) in README for page in PAGES[1:])


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


def test_the_page_of_all_commands_is_what_they_say() -> None:
    page = PACKAGE / "cli" / "COMMANDS.md"
    assert page.read_text() == commands_markdown(), (
        f"python -m virnucpro_monitor.cli.manual > {page.relative_to(ROOT)}"
    )


def test_each_gate_has_its_advice() -> None:
    rows = re.findall(r"^\| (\w+) \|", (PACKAGE / "validation" / "GATES.md").read_text(), re.M)
    assert rows == ["gate", *(gate.name for gate in GATES)]


def test_the_example_of_an_alert_file_can_be_read(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"```toml\n(.+?)```", (PACKAGE / "report" / "ALERTS.md").read_text(), re.S
    )
    for number, text in enumerate((example, re.sub(r"^# (?=[\[a-z])", "", EXAMPLE, flags=re.M))):
        path = tmp_path / f"{number}.toml"
        path.touch(0o600)
        path.write_text(text)
        file = read_alert_file(path)
        assert file is not None
        assert file.channels


def test_its_two_commands_are_single_lines_that_do_the_set_up() -> None:
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv ")]
    assert len(lines) == 2
    assert "virnucpro-monitor demo" in lines[0]
    assert "pytest" in lines[1]


def test_the_recipes_are_yaml_and_call_check_as_it_is() -> None:
    text = (PACKAGE / "report" / "CI.md").read_text()
    github, gitlab = (yaml.safe_load(one) for one in re.findall(r"```yaml\n(.+?)```", text, re.S))
    steps = github["jobs"]["equivalence"]["steps"]
    assert steps[0]["with"]["fetch-depth"] == 0, "the merge base must be there"
    called = [step["run"] for step in steps if "run" in step] + [gitlab["equivalence"]["script"]]
    checks = [shlex.split(line) for line in called if line.startswith("virnucpro-monitor check")]
    assert len(checks) == 2
    known = {
        option
        for one in typer.main.get_command(app).commands["check"].params  # type: ignore[attr-defined]
        for option in getattr(one, "opts", ())
    }
    for words in checks:
        assert {word for word in words if word.startswith("--")} <= known
    (artifact,) = gitlab["equivalence"]["artifacts"]["paths"]
    assert artifact in checks[1]
