import shlex
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.host.schedule import (
    Job,
    crontab_line,
    every,
    find_line,
    next_start,
    parse_cron,
    systemd_units,
    with_line,
)


def job(**fields: object) -> Job:
    values: dict[str, object] = {
        "name": "pack",
        "arguments": ("run", "--new", "--db", "sqlite:////data/100%.db"),
        "log": Path("/data/my logs/pack.log"),
        "cron": "*/5 * * * *",
        "calendar": "*:0/5",
        "environment": {"PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "1"},
    }
    return Job(**(values | fields))  # type: ignore[arg-type]


def test_the_line_is_read_by_cron_and_a_shell_as_meant() -> None:
    line = crontab_line(job())
    assert line.startswith("*/5 * * * * env PATH=/usr/bin CUDA_VISIBLE_DEVICES=1 /")
    command = line.split(" ", 5)[5]
    # cron turns an unescaped % into a line break, and \% into %.
    assert "%" not in command.replace("\\%", "")
    words = shlex.split(command.replace("\\%", "%"), comments=True)
    assert words[-3:] == [">>", "/data/my logs/pack.log", "2>&1"]
    assert "sqlite:////data/100%.db" in words
    assert words[words.index("-m") + 1] == "virnucpro_monitor"


def test_a_line_that_cron_would_cut_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="998"):
        crontab_line(job(environment={"PATH": "/x" * 600}))
    with pytest.raises(ConfigurationError, match="line break"):
        crontab_line(job(environment={"PATH": "a\nb"}))


def test_only_its_own_line_is_replaced_or_removed() -> None:
    others = "# mine\nMAILTO=me\n0 1 * * * backup %x\n*/5 * * * * x # virnucpro-monitor:pack2"
    line = crontab_line(job())
    table = with_line(others, "pack", line)
    assert table == f"{others}\n{line}\n"
    changed = crontab_line(job(cron="0 * * * *"))
    assert with_line(table, "pack", changed) == f"{others}\n{changed}\n"
    assert with_line(table, "pack", None) == f"{others}\n"
    assert find_line(table, "pack") == line
    assert find_line(others, "pack") is None


def test_an_untouched_table_stays_byte_for_byte() -> None:
    table = "# no line end at the end\n0 1 * * * x"
    assert with_line(table, "pack", None) == table


@pytest.mark.parametrize(
    ("text", "cron", "calendar"),
    [
        ("15m", "*/15 * * * *", "*:0/15"),
        ("60m", "0 * * * *", "*:00"),
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


@pytest.mark.parametrize(
    "cron", ["* * * *", "60 * * * *", "x * * * *", "*/0 * * * *", "5-1 * * * *"]
)
def test_bad_cron_fields_are_named(cron: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_cron(cron)
    with pytest.raises(ConfigurationError, match="name no day"):
        next_start("0 0 31 2 *", datetime(2026, 1, 1))


def test_systemd_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    units = systemd_units(job())
    assert set(units) == {"virnucpro-monitor-pack.service", "virnucpro-monitor-pack.timer"}
    service = units["virnucpro-monitor-pack.service"]
    assert '"sqlite:////data/100%%.db"' in service
    assert "SuccessExitStatus=2 3" in service
    assert "OnCalendar=*:0/5" in units["virnucpro-monitor-pack.timer"]
    with pytest.raises(ConfigurationError, match="takes --every"):
        systemd_units(job(calendar=None))
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in units)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "virnucpro" not in done.stderr, done.stderr
