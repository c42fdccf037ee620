"""The file that says where alerts go: addresses with their secrets, mode 0600, and rules.

dashboard = "https://monitor.example.org"
silent_after = "26h"
max_behind = 50
zone = "Europe/Berlin"

[channels.team]
url = "mailtos://user:password@mail.example.org?to=team@example.org"
targets = ["virnucpro"]
kinds = ["broken", "mended", "silent", "heard"]
quiet = "22:00-07:00"
urgent = ["silent"]
max_per_hour = 6
digest = "08:30"
title = "{target}: {verdict}"
"""

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.host.times import local_zone
from virnucpro_monitor.records import AlertKind, ChannelRules
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.user_folders import user_folder

EXAMPLE = """\
# Where virnucpro-monitor sends its alerts. Addresses hold secrets: keep this file to yourself
# (chmod 600). Forms of addresses: https://github.com/caronc/apprise/wiki
# dashboard = "https://monitor.example.org"    # links in the messages lead there
silent_after = "26h"    # without a result or a good start: the runner is taken for dead
max_behind = 50         # commits that may wait
# zone = "Europe/Berlin"    # whose clock the quiet hours go by; this machine's if not given

# [channels.team]
# url = "mailtos://user:password@mail.example.org?to=team@example.org"
# targets = ["virnucpro"]    # all targets if not given
# kinds = ["broken", "mended", "moved", "environment", "silent", "heard"]    # all if not given
# quiet = "22:00-07:00"      # kept until then, and sent together
# urgent = ["silent"]        # sent in the quiet hours too
# max_per_hour = 6           # what comes beyond is sent together
# digest = "08:30"           # everything once a day, together
# title = "{target}: {verdict}"    # also {kind}, {commit}, {author}
"""
_TIMES = {"m": 60, "h": 3600, "d": 86400}
_TOP = ("dashboard", "silent_after", "max_behind", "zone", "channels")
_CHANNEL = ("url", "targets", "kinds", "quiet", "urgent", "max_per_hour", "digest", "title")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A place that alerts go to.

    Attributes:
        url: its address for Apprise; a secret.
    """

    rules: ChannelRules
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertFile:
    """What the file says.

    Attributes:
        dashboard: address of the dashboard, empty where none is given.
        silent_after, max_behind: what is expected of a runner; None: not looked at.
    """

    path: Path
    dashboard: str = ""
    silent_after: timedelta | None = timedelta(hours=26)
    max_behind: int | None = 50
    channels: tuple[Channel, ...] = ()


def alert_path(settings: Settings) -> Path:
    """Where the file is, or would be."""
    if settings.alerts_file != Path():
        return settings.alerts_file.expanduser()
    return user_folder("XDG_CONFIG_HOME", ".config") / "alerts.toml"


def read_alert_file(path: Path) -> AlertFile | None:
    """What the file says; None where there is none.

    Raises:
        ConfigurationError: others may read it, it is no TOML, or something in it is wrong. The
            sentence never holds an address.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigurationError(
                    f"The alert file {path} holds secrets and others may read it (mode {mode:o}): "
                    f"chmod 600 {path}"
                )
            found = tomllib.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        # A parser's own words may quote the line.
        what = error.strerror if isinstance(error, OSError) else _place(error)
        raise ConfigurationError(f"The alert file {path} cannot be read: {what}.") from None
    return _Reader(path).read(found)


def _place(error: Exception) -> str:
    match = re.search(r"line \d+, column \d+", str(error))
    return f"it is not TOML at {match[0]}" if match else "it is not TOML"


def write_example(path: Path) -> None:
    """Write a file to fill in, mode 0600.

    Raises:
        ConfigurationError: there is one already, or it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} exists already: edit it.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(EXAMPLE)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, found: Mapping[str, Any]) -> AlertFile:
        self._check_names(found, _TOP, "")
        zone = self._zone(found.get("zone"))
        tables = self._typed(found.get("channels", {}), dict, "channels", "tables [channels.NAME]")
        default = AlertFile(path=self._path)
        after = found.get("silent_after")
        behind = found.get("max_behind", default.max_behind)
        if type(behind) is not int or behind < 0:
            raise self._wrong("max_behind", "a whole number of commits")
        return AlertFile(
            path=self._path,
            dashboard=self._text(found, "dashboard").rstrip("/"),
            silent_after=default.silent_after if after is None else self._age(after),
            max_behind=behind,
            channels=tuple(self._channel(name, table, zone) for name, table in tables.items()),
        )

    def _channel(self, name: str, table: object, zone: tzinfo) -> Channel:
        place = f"channels.{name}"
        values = self._typed(table, dict, place, "a table")
        self._check_names(values, _CHANNEL, f" of {place}")
        url = self._text(values, "url", place)
        if not url:
            raise self._wrong(f"{place}.url", "an address of Apprise's form")
        limit = values.get("max_per_hour")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise self._wrong(f"{place}.max_per_hour", "a whole number, at least 1")
        quiet = self._text(values, "quiet", place)
        digest = self._text(values, "digest", place)
        rules = ChannelRules(
            name=name,
            targets=frozenset(self._names(values, "targets", place)),
            kinds=self._kinds(values, "kinds", place),
            quiet=self._hours(quiet, f"{place}.quiet") if quiet else None,
            urgent=self._kinds(values, "urgent", place),
            max_per_hour=limit,
            digest=self._clock(digest, f"{place}.digest") if digest else None,
            zone=zone,
            title=self._text(values, "title", place),
        )
        return Channel(rules=rules, url=url)

    def _wrong(self, name: str, form: str) -> ConfigurationError:
        return ConfigurationError(f"{name} in {self._path} is not right: it takes {form}.")

    def _check_names(self, found: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
        for name in found:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                advice = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}."
                raise ConfigurationError(f"{self._path} has no {name!r}{place}: {advice}")

    def _typed(self, value: object, kind: type, name: str, form: str) -> Any:
        if not isinstance(value, kind):
            raise self._wrong(name, form)
        return value

    def _text(self, values: Mapping[str, Any], name: str, place: str = "") -> str:
        full = f"{place}.{name}" if place else name
        return str(self._typed(values.get(name, ""), str, full, "a text in quotes"))

    def _names(self, values: Mapping[str, Any], name: str, place: str) -> list[str]:
        found = self._typed(values.get(name, []), list, f"{place}.{name}", "a list of names")
        return [str(self._typed(one, str, f"{place}.{name}", "a list of names")) for one in found]

    def _kinds(self, values: Mapping[str, Any], name: str, place: str) -> frozenset[AlertKind]:
        try:
            return frozenset(AlertKind(one) for one in self._names(values, name, place))
        except ValueError:
            form = f"a list of {', '.join(AlertKind)}"
            raise self._wrong(f"{place}.{name}", form) from None

    def _age(self, value: object) -> timedelta:
        match = re.fullmatch(r"(\d+)(m|h|d)", value) if isinstance(value, str) else None
        if match is None:
            raise self._wrong("silent_after", "a time such as 90m, 26h or 3d")
        return timedelta(seconds=int(match[1]) * _TIMES[match[2]])

    def _clock(self, value: str, name: str) -> time:
        try:
            return time.fromisoformat(value.strip())
        except ValueError:
            raise self._wrong(name, "a time of the day such as 08:30") from None

    def _hours(self, value: str, name: str) -> tuple[time, time]:
        start, dash, end = value.partition("-")
        if not dash:
            raise self._wrong(name, "two times of the day such as 22:00-07:00")
        return self._clock(start, name), self._clock(end, name)

    def _zone(self, value: object) -> tzinfo:
        if value is None:
            return local_zone()
        try:
            return ZoneInfo(self._typed(value, str, "zone", "a name such as Europe/Berlin"))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise self._wrong("zone", "a name such as Europe/Berlin") from None
