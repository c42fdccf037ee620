"""A real cron daemon fires the line that `schedule install` writes."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.host.schedule import read_crontab, write_crontab

CRON = shutil.which("cron") or "/usr/sbin/cron"
OTHER_LINE = "0 0 1 1 * true # somebody else's line\n"
WAIT_S = 300


@pytest.fixture
def crontab() -> Iterator[None]:
    """A crontab with a line of somebody else's; the user's own comes back afterwards."""
    before = read_crontab()
    write_crontab(OTHER_LINE)
    yield
    if before:
        write_crontab(before)
    else:
        subprocess.run(["crontab", "-r"], check=True)


@pytest.fixture
def daemon() -> Iterator[None]:
    """Debian's cron in the foreground, or the daemon that is running already."""
    process = subprocess.Popen([CRON, "-f"], stderr=subprocess.DEVNULL)
    # cron compares its tables by the second: what changes within the second of the last change
    # it has read, it never reads.
    time.sleep(1.1)
    yield
    process.terminate()
    process.wait()


@pytest.mark.slow
@pytest.mark.usefixtures("crontab", "daemon", "quick_probes")
def test_cron_fires_the_installed_line(
    tmp_path: Path, private_folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = TinyRepository(tmp_path / "watched")
    head = repository.commit(HEALTHY)
    database = tmp_path / "monitor.db"
    url = ("--db", f"sqlite:///{database}")
    assert run_command(["targets", "add", "watched", str(repository.folder), *url]) == 0
    install = [
        "schedule", "install", "--target", "watched", "--cron", "* * * * *",
        "--model", "esm2_t6_demo", "--weights", "synthetic", "--device", "cpu",
        "--dtype", "float32", "--benchmark", "seed", *url,
    ]  # fmt: skip
    assert run_command(install) == 0
    assert read_crontab().startswith(OTHER_LINE)
    end = time.monotonic() + WAIT_S
    text = ""
    while head[:10] not in text and time.monotonic() < end:
        time.sleep(1)
        capsys.readouterr()
        run_command(["runs", "list", "--json", *url])
        text = capsys.readouterr().out
    log = private_folders / "data" / "virnucpro-monitor" / "logs" / "watched.log"
    assert '"outcome": "passed"' in text, log.read_text() if log.exists() else "no log"
    assert head[:10] in log.read_text()

    assert run_command(["schedule", "status", "--target", "watched", *url]) == 0
    status = capsys.readouterr().out
    assert "next run" in status
    assert "behind      0 commits" in status
    assert run_command(["schedule", "remove", "--target", "watched", *url]) == 0
    assert read_crontab() == OTHER_LINE
