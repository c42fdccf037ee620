"""The page of all commands, made from the commands themselves.

python -m virnucpro_monitor.cli.manual > virnucpro_monitor/cli/COMMANDS.md
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

import typer.main

HEAD = """\
# Every command

Made from the commands themselves (`python -m virnucpro_monitor.cli.manual`); a test holds it.
Options that are settings can also stand in the environment or in `virnucpro-monitor.toml`, as the
[README](../../README.md#settings) lists them.
"""


def commands_markdown() -> str:
    """The page, ending with a line break."""
    from virnucpro_monitor.cli.main import app

    parts = [HEAD]
    for words, command in _commands(typer.main.get_command(app), ()):
        parts.append("\n".join(_section(words, command)))
    return "\n".join(parts)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with the words that call it, in the order of `--help`."""
    own = getattr(command, "commands", None)
    if own is None:
        yield words, command
        return
    for name, one in own.items():
        yield from _commands(one, (*words, name))


def _section(words: tuple[str, ...], command: Any) -> Iterator[str]:
    name = " ".join(words)
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    call = " ".join(["virnucpro-monitor", name, *(_argument(one) for one in arguments)])
    yield f"## {name}"
    yield f"\n`{call}{' [OPTIONS]' if options else ''}`\n"
    yield _plain(command.help or "")
    rows = [(f"`{_cell(_name(one))}`", one.help or "") for one in arguments]
    context = command.make_context(name, [], resilient_parsing=True)
    # As --help says it, with what it adds: default, range, whether it must be given.
    rows += [(_option(one), one.get_help_record(context)[1]) for one in options if one.help]
    rows = [(left, text) for left, text in rows if text]
    if rows:
        yield "\n| | |\n|---|---|"
        yield from (f"| {left} | {_cell(_plain(text))} |" for left, text in rows)
    yield ""


def _argument(one: Any) -> str:
    name = _name(one) + ("…" if one.nargs != 1 else "")
    return name if one.required else f"[{name}]"


def _name(one: Any) -> str:
    return str(one.metavar or one.name.upper())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _option(one: Any) -> str:
    takes = "" if one.is_flag else f" {one.metavar or one.name.upper()}"
    return _cell(f"`{', '.join((*one.opts, *one.secondary_opts))}{takes}`")


def _plain(text: str) -> str:
    """Paragraphs on one line each."""
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))


if __name__ == "__main__":
    sys.stdout.write(commands_markdown())
