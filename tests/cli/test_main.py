import subprocess
import sys
import time

import pytest

from virnucpro_monitor import __version__
from virnucpro_monitor.cli import main as cli
from virnucpro_monitor.cli import validate
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.monitor.starting import begun_early, workers_ahead
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.settings import Settings


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["run", "--nonsense"], ["validate"]])
def test_a_usage_error_exits_with_1_and_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run_command(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("virnucpro-monitor: ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_is_one_sentence_and_debug_shows_where_it_arose(
    place: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class OddError(MonitorError):
        exit_code = 7

    def fail(*_: object, **__: object) -> None:
        raise OddError("There is none: add one.")

    monkeypatch.setattr(validate, "read_benchmark", fail)
    arguments = ["validate", "some.fasta"]
    assert cli.run_command(arguments) == 7
    assert capsys.readouterr().err == "virnucpro-monitor: There is none: add one.\n"
    arguments.insert(place, "--debug")
    assert cli.run_command(arguments) == 7
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "virnucpro-monitor: There is none: add one."


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "run",
        "check",
        "validate",
        "dashboard",
        "runs",
        "compare",
        "regressions",
        "incidents",
        "bisect",
        "benchmark",
        "targets",
        "weights",
        "schedule",
        "status",
        "selftest",
        "protocol",
        "doctor",
        "db",
    ],
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command([command, "--help"]) == 0
    assert f"virnucpro-monitor {command}" in capsys.readouterr().out


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys; from virnucpro_monitor.cli.main import run_command; run_command(['--help']);"
        "heavy = {'torch', 'streamlit', 'pandas', 'sqlalchemy', 'alembic', 'plotly'};"
        "heavy & set(sys.modules) and sys.exit(str(heavy & set(sys.modules)));"
        "import virnucpro_monitor.monitor.bisecting, virnucpro_monitor.monitor.trying;"
        "sys.exit('torch, for a run' if 'torch' in sys.modules else 0)"  # its workers load it
    )
    start = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert time.perf_counter() - start < 10


def test_python_m_reaches_the_same_program() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "virnucpro_monitor", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.strip() == __version__


def test_what_measures_begins_to_start_before_the_command_line_is_imported() -> None:
    code = (
        "import sys, virnucpro_monitor.cli.start as s;"
        "print({'typer', 'pydantic', 'torch'} & set(sys.modules))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.stdout == "set()\n", finished.stderr


@pytest.mark.parametrize(
    ("line", "engine", "starts"),
    [
        ("--debug run --all", None, True),
        ("run --all", "dask", False),
        ("check --engine dask", None, False),
        ("run --help", None, False),
        ("runs show 1", None, False),
        ("", None, False),
    ],
)
def test_only_a_command_that_measures_here_begins_early(
    monkeypatch: pytest.MonkeyPatch, line: str, engine: str | None, starts: bool
) -> None:
    started: list[WorkerPool] = []
    monkeypatch.setattr(WorkerPool, "start", lambda pool: started.append(pool))
    if engine:
        monkeypatch.setenv("VIRNUCPRO_MONITOR_ENGINE", engine)
    else:
        monkeypatch.delenv("VIRNUCPRO_MONITOR_ENGINE", raising=False)
    with begun_early(line.split()):
        early = list(started)
        assert len(early) == starts
        with workers_ahead(Settings()) as pool:
            assert [pool] == early or not starts
        with workers_ahead(Settings()) as another:  # it serves once
            assert another not in early
