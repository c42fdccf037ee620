import stat
import tempfile
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.log_file import rotate
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor import running, scheduling
from virnucpro_monitor.settings import load_settings

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
    table: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduling, "count_gpus", lambda: 0)
    table.write_text("MAILTO=me\n0 1 * * * backup\n")
    assert run_command(["schedule", "install", "--every", "30m", *options]) == 0
    assert run_command(["schedule", "install", "--every", "2h", *options]) == 0
    lines = table.read_text().splitlines()
    assert lines[:2] == ["MAILTO=me", "0 1 * * * backup"]
    assert len(lines) == 3
    assert lines[2].startswith("0 */2 * * * env ")
    assert "it has no card, and the line says --device cuda:0" in capsys.readouterr().err
    assert run_command(["schedule", "install", "--every", "2h", *options, "--device", "cpu"]) == 0
    assert "no card" not in capsys.readouterr().err
    capsys.readouterr()
    assert run_command(["schedule", "status", *options]) == 0
    said = capsys.readouterr().out
    assert "(0 */2 * * *)" in said
    assert "last heard  never" in said
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
    assert " run --new --target tiny --benchmark reach --model esm2_t33_650M_UR50D " in line
    assert " --db sqlite:////" in line


def test_an_alert_file_brings_a_second_line_that_looks_after_the_first(
    table: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    alerts = tmp_path / "mine.toml"
    monkeypatch.setenv("VIRNUCPRO_MONITOR_ALERTS_FILE", str(alerts))
    assert run_command(["schedule", "install", *options]) == 0
    assert len(table.read_text().splitlines()) == 1
    assert "`virnucpro-monitor alerts init`" in capsys.readouterr().err
    assert run_command(["alerts", "init"]) == 0
    assert run_command(["schedule", "install", *options]) == 0
    run, look = table.read_text().splitlines()
    assert look.startswith("*/15 * * * * env ")
    assert f" VIRNUCPRO_MONITOR_ALERTS_FILE={alerts} " in look
    assert f" virnucpro_monitor alerts check --target tiny --db {options[-1]} --log " in look
    assert look.endswith("# virnucpro-monitor:tiny.alerts")
    assert run.endswith("# virnucpro-monitor:tiny")
    capsys.readouterr()
    assert run_command(["schedule", "print", "--systemd", *options]) == 0
    said = capsys.readouterr().out
    assert "virnucpro-monitor-tiny.alerts.timer" in said
    assert "OnCalendar=*:0/15" in said
    assert run_command(["schedule", "remove", *options]) == 0
    assert table.read_text() == ""


def test_what_the_settings_file_says_is_written_out(
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    # A short path: cron reads no more than 998 characters of a line.
    settings = tempfile.TemporaryDirectory(prefix="s")
    request.addfinalizer(settings.cleanup)
    folder = Path(settings.name)
    (folder / "virnucpro-monitor.toml").write_text(
        'device = "cpu"\ndtype = "float32"\ntoken_budget = 512\nbenchmark = ["seed", "proteome"]\n'
        "timeout_s = 600\nmemory_limit_gib = 12.5\nworkers = 1\n"
        'cache_dir = "kept"\nbackend = "sdpa"\nprotocol = "mine.json"\nweights = "mine.pt"\n'
        "network = true\nconfine = false\n"
    )
    monkeypatch.chdir(folder)
    capsys.readouterr()
    given = ["--dtype", "bfloat16", "--max-time", "50m", "--workers", "2"]
    assert run_command(["schedule", "print", *given, *options]) == 0
    line = capsys.readouterr().out
    assert (
        f" --benchmark seed --benchmark proteome --model esm2_t33_650M_UR50D"
        f" --weights {folder}/mine.pt --device cpu --dtype bfloat16 --backend sdpa"
        f" --token-budget 512 --protocol {folder}/mine.json --timeout 600.0"
        f" --memory-limit 12.5 --workers 2 --db {options[-1]} --max-time 3000s "
    ) in line
    assert f" VIRNUCPRO_MONITOR_CACHE_DIR={folder}/kept " in line
    assert " VIRNUCPRO_MONITOR_NETWORK=true " in line
    assert " VIRNUCPRO_MONITOR_CONFINE=false " in line


def test_the_builtin_target_is_scheduled_as_its_runner_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/none.db"
    assert run_command(["schedule", "print", "--db", url]) == 0
    assert " virnucpro_monitor run --new --benchmark reach " in capsys.readouterr().out


def test_the_status_is_of_the_only_stored_target_where_none_is_named(
    table: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["schedule", "install", "--every", "2h", *options]) == 0
    database = options[2:]
    capsys.readouterr()
    assert run_command(["schedule", "status", *database]) == 0
    said = capsys.readouterr().out
    assert "(0 */2 * * *)" in said
    assert "behind      1 commit\n" in said
    repository = table.parent.parent / "tiny"
    assert run_command(["targets", "add", "other", str(repository), *database]) == 0
    capsys.readouterr()
    assert run_command(["schedule", "status", *database]) == 1
    assert "choose by --target (other, tiny)" in capsys.readouterr().err


def test_systemd_units_are_printed(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_command(["schedule", "print", "--systemd", "--every", "1d", *options]) == 0
    said = capsys.readouterr().out
    assert "OnCalendar=*-*-* 03:00" in said
    assert "ExecStart=" in said


SECRET = "postgresql://mon:S3cr3t-%$ Pw@127.0.0.1:1/mon"


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the private settings of the target "builtin" go."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "virnucpro-monitor" / "schedules" / "builtin.toml"


@pytest.fixture
def unreached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stored targets be none, without a server to ask."""
    monkeypatch.setattr(running, "stored_targets", lambda _: [])


@pytest.mark.usefixtures("unreached")
@pytest.mark.parametrize("way", ["flag", "environment"])
@pytest.mark.parametrize("url", [SECRET, "postgresql://127.0.0.1:1/m?user=m&password=S3cr3t-x"])
def test_a_password_stands_in_a_private_file_alone(
    url: str,
    way: str,
    table: Path,
    private: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--db", url] if way == "flag" else []
    if way == "environment":
        monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", url)
    for command in (["print"], ["print", "--systemd"], ["install"]):
        assert run_command(["schedule", *command, *options]) == 0
        said = capsys.readouterr()
        assert "S3cr3t" not in said.out + said.err
        assert private.exists() is (command == ["install"])
    line = table.read_text()
    assert "S3cr3t" not in line
    assert f"VIRNUCPRO_MONITOR_SETTINGS={private}" in line
    assert "--db" not in line
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    # The scheduled start, in an environment like cron's, means the same database.
    monkeypatch.delenv("VIRNUCPRO_MONITOR_DB", raising=False)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_SETTINGS", str(private))
    assert load_settings().database_url == url
    monkeypatch.delenv("VIRNUCPRO_MONITOR_SETTINGS")
    assert run_command(["schedule", "remove", *options]) == 0
    assert not private.exists()


@pytest.mark.usefixtures("unreached")
def test_a_file_that_others_may_read_is_replaced_by_a_private_one(
    table: Path, private: Path
) -> None:
    private.parent.mkdir(parents=True)
    private.write_text("old")
    private.chmod(0o644)
    assert run_command(["schedule", "install", "--db", SECRET]) == 0
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert [path.name for path in private.parent.iterdir()] == ["builtin.toml"]


def test_a_flag_outranks_a_password_in_the_environment(
    options: list[str], private: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", SECRET)
    capsys.readouterr()
    assert run_command(["schedule", "print", *options]) == 0
    line = capsys.readouterr().out
    assert " --db sqlite:////" in line
    assert "VIRNUCPRO_MONITOR_DB" not in line
    assert "S3cr3t" not in line


def test_private_settings_that_have_gone_are_not_passed_over(
    private: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_SETTINGS", str(private))
    assert run_command(["runs", "list"]) == 1
    assert "cannot be read: run `virnucpro-monitor schedule install`" in capsys.readouterr().err


def test_a_repositorys_password_is_not_scheduled(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = ["--db", f"sqlite:///{tmp_path / 'none.db'}"]
    target = ["--target", "https://me:S3cr3t@example.org/a.git"]
    assert run_command(["schedule", "install", *target, *database]) == 1
    said = capsys.readouterr().err
    assert "targets add" in said
    assert "S3cr3t" not in said
    assert not table.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["print", "--every", "7m"], "is not an interval"),
        (["print", "--cron", "* * *"], "does not have cron's five fields"),
        (["print", "--cron", "0 1 * * *", "--systemd"], "takes --every"),
        (["print", "--cron", "5/15 * * * *"], "The minute '5/15' in '5/15 * * * *' cannot be read"),
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
