"""When a schedule starts: cron's five fields as Debian's cron reads them, or an interval."""

import re
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

from virnucpro_monitor.errors import ConfigurationError

LOCAL_TIME = Path("/etc/localtime")  # cron's own zone, whatever TZ says here
_EVERY = re.compile(r"^(\d+)(m|h|d)$")
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS = "sun|mon|tue|wed|thu|fri|sat"
_NAMES = ("", "", "", f"|{_MONTHS}", f"|{_DAYS}")


def every(text: str) -> tuple[str, str]:
    """(cron fields, systemd calendar) for "15m", "2h" or "1d".

    Raises:
        ConfigurationError: not of that form, or it does not divide an hour or a day evenly.
    """
    match = _EVERY.match(text)
    number = int(match[1]) if match else 0
    unit = match[2] if match else ""
    if unit == "m" and number and 60 % number == 0:
        return ("0 * * * *", "*:00") if number == 60 else (f"*/{number} * * * *", f"*:0/{number}")
    if unit == "h" and number and 24 % number == 0:
        if number == 24:
            return "0 0 * * *", "*-*-* 00:00"
        if number == 1:
            return every("60m")
        return f"0 */{number} * * *", f"0/{number}:00"
    if unit == "d" and number == 1:
        return "0 3 * * *", "*-*-* 03:00"
    raise ConfigurationError(
        f"{text!r} is not an interval: use minutes that divide an hour (15m), hours that divide a "
        f"day (2h), or 1d; or give cron's five fields by --cron."
    )


def check_cron(cron: str) -> str:
    """Return cron's five fields, divided by single spaces.

    What Debian's cron refuses is refused (5/15), and so is what it takes and understands otherwise
    than it reads: 10-5 is never, 1#2 every Monday.

    Raises:
        ConfigurationError: a field cannot be read; it is named.
    """
    fields = cron.split()
    if len(fields) != 5:
        raise ConfigurationError(f"{cron!r} does not have cron's five fields.")
    for field, name, names in zip(fields, _FIELDS, _NAMES, strict=True):
        value = rf"(?:\d{{1,2}}{names})"
        for part in field.split(","):
            if not re.fullmatch(rf"{value}|(?:\*|{value}-{value})(?:/\d{{1,3}})?", part, re.I):
                raise ConfigurationError(
                    f"The {name} {part!r} in {cron!r} cannot be read: cron takes *, numbers, "
                    f"ranges (1-5), lists (1,3) and steps of * or a range (*/15)."
                )
    checked = " ".join(fields)
    next_start(checked, datetime.now(UTC))
    return checked


def next_start(cron: str, after: datetime) -> datetime:
    """The first minute after `after` at which cron starts a line with these five fields.

    Args:
        after: with a zone that knows its summer time (see `local_zone`), where that matters.

    Raises:
        ConfigurationError: the fields cannot be read, or name no day at all.
    """
    from cronsim import CronSim, CronSimError

    # A step of a range that is one value: cronsim would go on to the field's end.
    plain = re.sub(r"\b(\w+)-\1/\d+", r"\1", cron)
    try:
        for moment in CronSim(plain, after):
            # Of an hour that comes twice the first is meant, which may have been before `after`.
            if moment.timestamp() > after.timestamp():
                return moment
    except CronSimError as error:
        if str(error) == "Bad day-of-month":
            raise ConfigurationError(
                f"The cron fields {cron!r} name no day, or a day of the month that is not within "
                f"1 to 31."
            ) from error
        raise ConfigurationError(f"{cron!r} cannot be read by cron ({error}).") from error
    raise ConfigurationError(f"The cron fields {cron!r} name no day.")


def local_zone() -> tzinfo:
    """The zone that this machine's cron lives in."""
    try:
        with LOCAL_TIME.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC
