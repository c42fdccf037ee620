"""The command line: `virnucpro-monitor …`.

Exit codes: 0 everything passed; 1 usage or environment; 2 equivalence failed somewhere; 3 something
could not be run (2 wins over 3); 130 interrupted.
"""

import os
import sys
import traceback
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from virnucpro_monitor import __version__
from virnucpro_monitor.cli import (
    adapter,
    alerts,
    benchmark,
    bisect,
    bisections,
    check,
    compare,
    dashboard,
    db,
    demo,
    doctor,
    export,
    incidents,
    protocol,
    publish,
    regressions,
    run,
    runs,
    schedule,
    selftest,
    status,
    targets,
    validate,
    weights,
)
from virnucpro_monitor.disks import explain
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.secrecy import masked

app = typer.Typer(
    name="virnucpro-monitor",
    help="Watch, commit by commit, that packed ESM-2 inference equals unpacked inference.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command_module in (
    demo,
    run,
    check,
    validate,
    dashboard,
    runs,
    compare,
    regressions,
    incidents,
    alerts,
    export,
    publish,
    bisect,
    bisections,
    benchmark,
    targets,
    adapter,
    weights,
    schedule,
    status,
    selftest,
    protocol,
    doctor,
    db,
):
    command_module.register(app)


@dataclass(slots=True)
class Invocation:
    """What the options before the command say of the whole call."""

    debug: bool = False


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def global_options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    context.obj.debug = debug


def run_command(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error becomes one sentence.

    `--debug` may stand anywhere among the arguments.
    """
    called = Invocation()
    first_debug = sorted(arguments, key=lambda argument: argument != "--debug")
    try:
        result: Any = app(
            args=first_debug, prog_name=app.info.name, standalone_mode=False, obj=called
        )
    except typer.TyperException as error:
        # Usage errors: Typer's own exit code 2 means "equivalence failed" here.
        return _complain(error.format_message(), called, code=1)
    except MonitorError as error:
        return _complain(str(error), called, code=error.exit_code)
    except typer.Abort:
        return _complain("Stopped.", called, code=130)
    except KeyboardInterrupt:
        return _complain("Interrupted; what was stored so far is kept.", called, code=130)
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`): nothing left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of a file of ours, whichever it was
        sentence = explain(error)
        return _complain(f"{sentence[0].upper()}{sentence[1:]}", called, code=1)
    except Exception as error:
        message = f"Unexpected {type(error).__name__}: {error} (--debug shows where)."
        return _complain(message, called, code=1)
    return result if isinstance(result, int) else 0


def _complain(message: str, called: Invocation, *, code: int) -> int:
    """Print what went wrong, with `--debug` where, and return the exit code."""
    if called.debug:
        typer.echo(masked(traceback.format_exc()), err=True, nl=False)
    typer.echo(f"virnucpro-monitor: {masked(message)}", err=True)
    return code


def main() -> None:
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
