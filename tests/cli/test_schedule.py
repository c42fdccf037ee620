import stat
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.log_file import rotate
from virnucpro_monitor.cli.main import run_command

# Stands in for crontab: keeps the table in a file beside itself.
_CRONTAB = """#!/bin/sh
table="$(dirname "$0")/table"
if [ "$1" = "-l" ]; then
    [ -f "$table" ] && exec cat "$table"
    echo "no crontab for tester" >&2
    exit 1
fi
exec cat > "$table"
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "programs"
    programs.mkdir()
    crontab = programs / "crontab"
    crontab.write_text(_CRONTAB)
    crontab.chmod(crontab.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return programs / "table"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY)
    database = ["--db", f"sqlite:///{tmp_path / 'monitor.db'}"]
    assert run_command(["targets", "add", "tiny", str(repository.folder), *database]) == 0
    return ["--target", "tiny", *database]


def test_install_replaces_only_its_own_line(
    table: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    table.write_text("MAILTO=me\n0 1 * * * backup\n")
    assert run_command(["schedule", "install", "--every", "30m", *options]) == 0
    assert run_command(["schedule", "install", "--every", "2h", *options]) == 0
    lines = table.read_text().splitlines()
    assert lines[:2] == ["MAILTO=me", "0 1 * * * backup"]
    assert len(lines) == 3
    assert lines[2].startswith("0 */2 * * * env ")
    capsys.readouterr()
    assert run_command(["schedule", "status", *options]) == 0
    said = capsys.readouterr().out
    assert "(0 */2 * * *)" in said
    assert "last run    never" in said
    assert run_command(["schedule", "remove", *options]) == 0
    assert table.read_text() == "MAILTO=me\n0 1 * * * backup\n"
    assert run_command(["schedule", "remove", *options]) == 0
    assert "Nothing is scheduled for tiny" in capsys.readouterr().err


def test_print_gives_what_install_writes(
    table: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_command(["schedule", "print", "--cron", "5 4 * * *", *options]) == 0
    line = capsys.readouterr().out
    assert not table.exists()
    assert run_command(["schedule", "install", "--cron", "5 4 * * *", *options]) == 0
    assert table.read_text() == line
    assert " run --target tiny --new --model esm2_t33_650M_UR50D --weights official " in line
    assert " --db sqlite:////" in line


def test_what_the_settings_file_says_is_written_out(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "virnucpro-monitor.toml").write_text(
        'device = "cpu"\ndtype = "float32"\ntoken_budget = 512\nbenchmark = ["seed", "proteome"]\n'
        "timeout_s = 600\nmemory_limit_gib = 12.5\nworkers = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert run_command(["schedule", "print", "--dtype", "bfloat16", *options]) == 0
    line = capsys.readouterr().out
    assert " --device cpu --dtype bfloat16 --token-budget 512 --timeout 600.0" in line
    assert " --memory-limit 12.5 --workers 1 " in line
    assert " --benchmark seed --benchmark proteome " in line


def test_systemd_units_are_printed(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_command(["schedule", "print", "--systemd", "--every", "1d", *options]) == 0
    said = capsys.readouterr().out
    assert "OnCalendar=*-*-* 03:00" in said
    assert "ExecStart=" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["print", "--every", "7m"], "is not an interval"),
        (["print", "--cron", "* * *"], "does not have cron's five fields"),
        (["print", "--cron", "0 1 * * *", "--systemd"], "takes --every"),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run_command(["schedule", *arguments, *options]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert sentence in lines[0]


def test_a_long_log_is_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    for number in range(6):
        log.write_text(str(number) * 10)
        rotate(log, max_bytes=10, kept=3)
    assert not log.exists()
    kept = {path.name: path.read_text()[0] for path in tmp_path.iterdir()}
    assert kept == {"run.log.1": "5", "run.log.2": "4", "run.log.3": "3"}
    log.write_text("short")
    rotate(log, max_bytes=10, kept=3)
    assert log.exists()
