import re
import shlex
import subprocess
from pathlib import Path

import pytest

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.host.schedule import (
    Job,
    crontab_line,
    find_line,
    with_line,
)
from virnucpro_monitor.host.systemd import systemd_units


def job(**fields: object) -> Job:
    values: dict[str, object] = {
        "name": "pack",
        "arguments": ("run", "--new", "--db", "sqlite:////data/100%.db"),
        "log": Path("/data/my logs/pack.log"),
        "cron": "*/5 * * * *",
        "calendar": "*:0/5",
        "environment": {"PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "1"},
        "purpose": "Validate new commits of pack",
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


def test_systemd_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    units = systemd_units(job())
    assert set(units) == {"virnucpro-monitor-pack.service", "virnucpro-monitor-pack.timer"}
    service = units["virnucpro-monitor-pack.service"]
    assert '"sqlite:////data/100%%.db"' in service
    assert "SuccessExitStatus=2 3" in service
    assert "Delegate=pids" in service
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


@pytest.mark.parametrize("secret", ["pa$w", "pa%w", 'pa"w', "pa\\w", "pa w", "${HOME}", "a$$b"])
def test_systemd_reads_every_character_as_meant(secret: str, tmp_path: Path) -> None:
    """systemd itself, asked what it made of a unit: variables and the command's words."""
    units = systemd_units(job(environment={"SOME": secret}, arguments=("run", secret)))
    service = tmp_path / "virnucpro-monitor-pack.service"
    service.write_text(units[service.name])
    words = service.read_text().splitlines()
    environment = next(line for line in words if line.startswith("Environment="))
    command = next(line for line in words if line.startswith("ExecStart="))
    assert _unquoted(environment.removeprefix("Environment=")) == [f"SOME={secret}"]
    # In a command systemd also turns $$ into $, after the quotes.
    last = _unquoted(command.removeprefix("ExecStart="))
    assert last[last.index("run") + 1].replace("$$", "$") == secret


def _unquoted(text: str) -> list[str]:
    """Words as systemd.syntax(7) reads them: double quotes, C escapes, %% for %."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    return [re.sub(r"\\(.)", r"\1", word).replace("%%", "%") for word in words]
