"""Options that several commands share, those of the settings among them, and how to print."""

import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from virnucpro_monitor.errors import LockedError
from virnucpro_monitor.records import to_json
from virnucpro_monitor.secrecy import masked
from virnucpro_monitor.settings import SETTINGS, is_terminal, load_settings

_TIME = re.compile(r"(\d+(?:\.\d*)?)\s*(s|m|h|d)?")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


def parse_time(text: str) -> float:
    """Seconds of "90s", "30m", "2h" or "1d"; a number alone is seconds.

    Raises:
        typer.BadParameter: it is none of that.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time: write 90s, 30m, 2h or 1d.")
    return float(match[1]) * _UNIT_S[match[2]]


def time_option(*names: str, help: str) -> Any:
    return typer.Option(*names, metavar="TIME", parser=parse_time, help=help, show_default=False)


def setting_option(name: str, default: str | None = None) -> Any:
    """The option of a setting, made from the table of settings.

    Args:
        default: the command's own, in words; otherwise the setting's.
    """
    setting = SETTINGS[name]
    about = setting.about
    shown = default if default is not None else setting.default_text
    return typer.Option(
        about.flag,
        metavar=about.metavar,
        help=f"{about.help}: {about.flag_form or about.form}. "
        f"[env: {setting.variable}; default: {shown}]",
        show_default=False,
        parser=parse_time if about.metavar == "TIME" else None,
    )


_OPTION_TYPES: dict[str, Any] = {
    "benchmark": list[str] | None,
    "token_budget": int | None,
    "timeout_s": float | None,
    "memory_limit_gib": float | None,
    "workers": int | None,
}


def takes(
    *names: str, defaults: dict[str, Any] | None = None, shown: dict[str, str] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of these settings, in place of its parameter `settings`.

    Args:
        defaults: the command's own, for what neither flag nor environment nor file sets.
        shown: the same in words, where the value itself does not tell all.
    """
    own_defaults = defaults or {}
    words = {name: str(value) for name, value in own_defaults.items()} | (shown or {})

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        parameters = list(signature.parameters.values())
        place = [one.name for one in parameters].index("settings")
        parameters[place : place + 1] = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    _OPTION_TYPES.get(name, str | None), setting_option(name, words.get(name))
                ],
            )
            for name in names
        ]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]

        @functools.wraps(command)
        def with_settings(**given: Any) -> Any:
            flags = {name: given.pop(name) for name in names}
            # A list that was not given is empty, and nothing else that counts as false is left out.
            flags = {name: None if value == [] else value for name, value in flags.items()}
            return command(settings=load_settings(defaults=own_defaults, **flags), **given)

        with_settings.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=parameters
        )
        with_settings.__annotations__ = {one.name: one.annotation for one in parameters}
        return with_settings

    return decorate


DatabaseOption = Annotated[str | None, setting_option("db")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON to standard output and nothing else there.")
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", metavar="NAME|PATH", help="A target's name, or a git repository."),
]
PackageOption = Annotated[
    str | None,
    typer.Option("--package", metavar="NAME", help="Import root of the target's package."),
]
MaxTimeOption = Annotated[
    float | None,
    time_option("--max-time", help="Leave what has not begun by then for the next start."),
]
WaitOption = Annotated[
    float | None, time_option("--wait", help="Wait this long for another runner. [default: 0s]")
]
GpuWaitOption = Annotated[
    float | None, time_option("--gpu-wait", help="Wait this long for a busy GPU. [default: 10m]")
]
RetryErrorsOption = Annotated[
    bool, typer.Option("--retry-errors", help="Measure commits again that could not be run.")
]
DEFAULT_GPU_WAIT_S = 600.0


@contextmanager
def advising_to_wait() -> Iterator[None]:
    """Name `--wait`, in a command that has it, where another runner is at work."""
    try:
        yield
    except LockedError as error:
        raise LockedError(f"{error} Or wait for it, as in --wait 30m.") from error


@contextmanager
def progress_line() -> Iterator[Callable[[str, int, int], None]]:
    """What draws (what, done, total) over one line of a terminal, and nothing elsewhere."""
    drawn = is_terminal()

    def show(what: str, done: int, total: int) -> None:
        if drawn:
            typer.echo(f"\r\x1b[K{what} {done}/{total}", nl=False, err=True)

    try:
        yield show
    finally:
        if drawn:
            typer.echo("\r\x1b[K", nl=False, err=True)


def print_json(value: Any) -> None:
    """Write records or plain values to standard output as JSON. NaN is refused."""
    typer.echo(json.dumps(to_json(value), indent=2, allow_nan=False))


def say(message: str) -> None:
    """Write a line for a person, to standard error; passwords are masked."""
    typer.echo(masked(message), err=True)
