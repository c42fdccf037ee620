"""Settings of a scheduled start that nobody else may read: one file, mode 0600."""

import json
from collections.abc import Mapping
from pathlib import Path

from virnucpro_monitor.disks import write_private
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.user_folders import user_folder


def private_settings_path(name: str) -> Path:
    """Where the private settings of a target's schedule are kept."""
    return user_folder("XDG_CONFIG_HOME", ".config") / "schedules" / f"{name}.toml"


def write_private_settings(path: Path, values: Mapping[str, str]) -> None:
    """Write settings as TOML, readable by this user alone from the first byte on.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    lines = ["# Written by `virnucpro-monitor schedule install`; it holds a password."]
    lines += [f"{name} = {_quoted(value)}" for name, value in values.items()]
    try:
        write_private(path, "\n".join(lines) + "\n")
    except OSError as error:
        raise ConfigurationError(
            f"The private settings cannot be written to {path}: {error.strerror}."
        ) from error


def remove_private_settings(path: Path) -> None:
    """Delete the file, where there is one.

    Raises:
        ConfigurationError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be deleted: {error.strerror}.") from error


def _quoted(text: str) -> str:
    """A TOML string: JSON's, but for DEL, which TOML does not take as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
