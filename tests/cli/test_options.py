"""Options of the commands that act: made from one table, alike, and the only ones advised."""

import ast
import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from virnucpro_monitor.cli.main import app
from virnucpro_monitor.cli.options import parse_time
from virnucpro_monitor.settings import RUN_SETTINGS, SETTINGS

PACKAGE = Path(__file__).parents[2] / "virnucpro_monitor"
COMMANDS = get_command(app)
# Of git and pip, in advice that names their commands.
OPTION = r"(?<![\w-])--[a-z][a-z-]+"
# Of git, pip and Dask's worker.
# Of git, pip and Dask.
FOREIGN = {
    "--unshallow", "--no-build-isolation", "--force-reinstall", "--user", "--resources",
    "--no-deps", "--format",
}  # fmt: skip


def options_of(*names: str) -> dict[str, typer.core.TyperOption]:
    command = COMMANDS
    for name in names:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {flag: one for one in command.params for flag in one.opts if flag.startswith("--")}


@pytest.mark.parametrize(
    "command", [("run",), ("bisect",), ("check",), ("schedule", "print"), ("schedule", "install")]
)
def test_what_starts_a_run_takes_what_run_takes(command: tuple[str, ...]) -> None:
    options = options_of(*command)
    for name in RUN_SETTINGS:
        option = options[SETTINGS[name].about.flag]
        assert f"env: {SETTINGS[name].variable}" in (option.help or "")
    assert "--max-time" in options


def test_each_time_of_a_command_has_the_same_form() -> None:
    for command in (("run",), ("bisect",), ("check",), ("schedule", "print")):
        times = {flag for flag, one in options_of(*command).items() if one.metavar == "TIME"}
        assert {"--timeout", "--max-time"} <= times
        assert not [flag for flag in options_of(*command) if "minutes" in flag]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (" 5 m ", 300), ("0", 0)],
)
def test_a_time_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", "5x", "m", "1e9", "1m30s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time: write 90s, 30m, 2h or 1d"):
        parse_time(text)


def advised(path: Path) -> set[str]:
    """The long options that a module's prose names."""
    tree = ast.parse(path.read_text())
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = set()
    for node in ast.walk(tree):
        if node in docs:
            continue
        parts = []
        if isinstance(node, ast.JoinedStr):
            parts = [one.value for one in node.values if isinstance(one, ast.Constant)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = [node.value]
        # What a target is stored by says itself whose option it is.
        text = "".join(parts)
        for command in re.findall(r"`virnucpro-monitor targets add [^`]*`", text):
            assert set(re.findall(OPTION, command)) <= options_of("targets", "add").keys()
            text = text.replace(command, "")
        if " " in text:
            found |= set(re.findall(OPTION, text))
    return found - FOREIGN


def test_no_error_of_an_act_advises_an_option_that_its_command_lacks() -> None:
    acts = ("running", "sink")
    paths = [*PACKAGE.glob("runner/*.py"), *(PACKAGE / f"monitor/{name}.py" for name in acts)]
    named = set().union(*(advised(path) for path in paths))
    assert {"--retry-errors", "--device"} <= named
    assert named <= options_of("run").keys()
    for command in ("bisect", "check"):
        assert named - {"--all"} <= options_of(command).keys()  # of a first `run --new` alone
    for command, module in (("bisect", "bisecting"), ("check", "checking")):
        assert advised(PACKAGE / f"monitor/{module}.py") <= options_of(command).keys()
    assert not advised(PACKAGE / "host/lock.py")  # every command may meet a lock
