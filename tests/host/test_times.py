import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.host import times
from virnucpro_monitor.host.times import check_cron, every, local_zone, next_start


@pytest.mark.parametrize(
    ("text", "cron", "calendar"),
    [
        ("15m", "*/15 * * * *", "*:0/15"),
        ("60m", "0 * * * *", "*:00"),
        ("1h", "0 * * * *", "*:00"),
        ("2h", "0 */2 * * *", "0/2:00"),
        ("24h", "0 0 * * *", "*-*-* 00:00"),
        ("1d", "0 3 * * *", "*-*-* 03:00"),
    ],
)
def test_intervals(text: str, cron: str, calendar: str) -> None:
    assert every(text) == (cron, calendar)
    subprocess.run(["systemd-analyze", "calendar", calendar], check=True, capture_output=True)


@pytest.mark.parametrize("text", ["7m", "5h", "2d", "0m", "soon", "-5m", ""])
def test_uneven_intervals_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an interval"):
        every(text)


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("*/15 * * * *", "2026-11-24T10:07:30", "2026-11-24T10:15"),
        ("0 3 * * *", "2026-11-24T03:00:00", "2026-11-25T03:00"),
        ("30 */6 * * *", "2026-11-24T18:31:00", "2026-11-25T00:30"),
        ("0 0 1 1 *", "2026-11-24T00:00:00", "2027-01-01T00:00"),
        ("0 9 * * 1-5", "2026-11-27T09:00:00", "2026-11-30T09:00"),
        ("0 9 * * 7", "2026-11-24T09:00:00", "2026-11-29T09:00"),
        ("0 0 13 * 5", "2026-11-24T00:00:00", "2026-11-27T00:00"),
        ("0 0 29 2 *", "2026-11-24T00:00:00", "2028-02-29T00:00"),
        ("5,10-12 * * * *", "2026-11-24T10:10:00", "2026-11-24T10:11"),
    ],
)
def test_the_next_start(cron: str, after: str, expected: str) -> None:
    assert next_start(cron, datetime.fromisoformat(after)) == datetime.fromisoformat(expected)


ACCEPTED = [
    "*/15 * * * *", "* * * * mon-fri", "* * * jan *", "* * * JAN-mar,Dec *", "* * * * 5-7",
    "05 * * * *", "1,2,3-5/2 * * * *", "* * * * mon,tue", "*/5,10 * * * *", "* * * * sun-sat",
    "1-1/15 * * * *", "*/59 * * * *", "1-10/20 * * * *", "* * * * 0-7/2", "* * * * mon-5",
    "0 0 29 2 *", "0 0 13 * fri",
]  # fmt: skip
REFUSED = [
    "5/15 * * * *", "* * * *", "* * * * * *", "", "60 * * * *", "x * * * *", "*/0 * * * *",
    "1,,2 * * * *", "1, * * * *", "5- * * * *", "* * * * 8", "* * 0 * *", "mon * * * *",
    "* * * * mon/2", "+5 * * * *", "* * * FEBRUARY *", "* * * * Monday", "-5 * * * *",
    "1-3/mon * * * *", "* * L * *", "* * ? * *", "~ * * * *", "99999999999 * * * *",
]  # fmt: skip
MISREAD = [  # cron takes them, and does something else than they say
    "10-5 * * * *", "* * * * 1#2", "*-5 * * * *", "*/5/2 * * * *", "*/1.5 * * * *",
    "1-5-7 * * * *", "4294967297 * * * *", "* * * * 6-0",
]  # fmt: skip


def cron_takes(fields: str, folder: Path) -> bool:
    """Whether Debian's own crontab reads the line (a dry run: nothing is installed)."""
    table = folder / "table"
    table.write_text(f"{fields} true\n")
    done = subprocess.run(["crontab", "-n", str(table)], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("cron", ACCEPTED)
def test_what_cron_reads_is_accepted(cron: str, tmp_path: Path) -> None:
    assert cron_takes(cron, tmp_path)
    assert check_cron(f" {cron}  ") == cron


@pytest.mark.parametrize("cron", REFUSED)
def test_what_cron_refuses_is_refused(cron: str, tmp_path: Path) -> None:
    if len(cron.split()) == 5:  # else a word of the command is taken for a field
        assert not cron_takes(cron, tmp_path)
    with pytest.raises(ConfigurationError):
        check_cron(cron)


@pytest.mark.parametrize("cron", MISREAD)
def test_what_cron_reads_otherwise_than_it_says_is_refused(cron: str, tmp_path: Path) -> None:
    assert cron_takes(cron, tmp_path)
    with pytest.raises(ConfigurationError):
        check_cron(cron)


def test_days_that_never_come_are_named() -> None:
    for cron in ("0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6 *"):
        with pytest.raises(ConfigurationError, match="name no day"):
            check_cron(cron)


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        # To summer time, 29 March 2026, 02:00 -> 03:00.
        ("0 3 * * *", "2026-03-28T23:30+01:00", "2026-03-29T03:00+02:00"),
        ("0 * * * *", "2026-03-29T01:00+01:00", "2026-03-29T03:00+02:00"),
        ("*/15 * * * *", "2026-03-29T01:46+01:00", "2026-03-29T03:00+02:00"),
        # cron makes up for a fixed time that the change has skipped, right after it.
        ("30 2 * * *", "2026-03-28T23:30+01:00", "2026-03-29T03:00+02:00"),
        ("0 3 * * *", "2026-03-29T03:00+02:00", "2026-03-30T03:00+02:00"),
        # From summer time, 25 October 2026, 03:00 -> 02:00.
        ("0 3 * * *", "2026-10-24T23:30+02:00", "2026-10-25T03:00+01:00"),
        ("30 2 * * *", "2026-10-24T23:30+02:00", "2026-10-25T02:30+02:00"),
        # A fixed time does not come twice, an hourly one does.
        ("30 2 * * *", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"),
        ("30 2 * * *", "2026-10-25T02:10+01:00", "2026-10-26T02:30+01:00"),
        ("0 * * * *", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"),
        ("*/30 * * * *", "2026-10-25T02:31+01:00", "2026-10-25T03:00+01:00"),
    ],
)
def test_the_next_start_over_a_change_of_summer_time(cron: str, after: str, expected: str) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    moment = next_start(cron, datetime.fromisoformat(after).astimezone(berlin))
    assert moment.isoformat(timespec="minutes") == expected


def test_the_zone_is_the_machines_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")  # of this process, not of cron
    monkeypatch.setattr(times, "LOCAL_TIME", Path(TZPATH[0]) / "Europe" / "Berlin")
    summer, winter = (datetime(2026, month, 1, tzinfo=local_zone()) for month in (7, 12))
    assert summer.utcoffset() == timedelta(hours=2)
    assert winter.utcoffset() == timedelta(hours=1)
    monkeypatch.setattr(times, "LOCAL_TIME", tmp_path / "none")
    assert local_zone() is UTC
