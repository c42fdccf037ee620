"""Fixtures that several rooms share, and the rule on skips.

A test marked `gpu`, `browser` or `postgres` is skipped where the machine lacks what it needs. With
`CI` set in the environment such a skip fails the session (all but `gpu`, which a CI machine cannot
have).
"""

import os

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Before PyTorch is imported: processes that each take every core slow each other down.
    _CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    _SHARE = max(1, (_CORES or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ.setdefault("OMP_NUM_THREADS", str(_SHARE))

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from sqlalchemy import URL

from virnucpro_monitor.heap import keep_freed_memory

keep_freed_memory()
CHROMIUM = "/usr/bin/chromium"
_EMPTY_DATABASE: list[bytes] = []  # one, once this process has made it
hypothesis.settings.register_profile("busy", deadline=None)  # a machine may be busy with others
hypothesis.settings.load_profile("busy")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_postgres() -> bool:
    return bool(shutil.which("initdb") or list(Path("/usr/lib/postgresql").glob("*/bin/initdb")))


NEEDS = {
    "gpu": (_has_cuda, "needs a CUDA device"),
    "browser": (lambda: Path(CHROMIUM).exists(), "needs Chromium"),
    "postgres": (_has_postgres, "needs PostgreSQL's server programs"),
}


def _long_ones_first(items: list[pytest.Item], num_processes: int) -> list[pytest.Item]:
    """An order in which no process is left with a long test when the others have nothing to do.

    `--dist worksteal` cuts the tests into one piece for each process. Each piece begins with long
    ones, those of one module in one piece: they share what takes long to make.
    """
    short = [item for item in items if item.get_closest_marker("slow") is None]
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    dealt = list(modules.values())
    order: list[pytest.Item] = []
    for number in range(num_processes):
        size = (len(items) - len(order)) // (num_processes - number)
        piece = [item for module in dealt[number::num_processes] for item in module]
        num_short = max(0, size - len(piece))
        order += piece + short[:num_short]
        del short[:num_short]
    return order + short


@pytest.hookimpl(trylast=True)  # of what is chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = _long_ones_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    for marker, (is_there, reason) in NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not is_there():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


class _SkipsFail:
    """Turn a skip outside `gpu` into a failed session."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and "gpu" not in report.keywords:
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for nodeid in self.skipped:
            terminalreporter.write_line(f"SKIPPED, which fails in CI: {nodeid}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI"):
        config.pluginmanager.register(_SkipsFail())


@pytest.fixture(autouse=True, scope="session")
def private_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep every test away from the user's own data, cache, crontab and settings."""
    folder = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("VIRNUCPRO_MONITOR_")]:
        patch.delenv(name)
    patch.setenv("XDG_DATA_HOME", str(folder / "data"))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for role in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{role}_NAME", "A Tester")
        patch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")
    yield folder
    patch.undo()


@pytest.fixture(autouse=True)
def tables_made_once() -> Iterator[None]:
    """Let an empty SQLite file get its tables by copying a file that the migrations made.

    Making them takes 0.07 s each time. The store's own tests let the migrations run.
    """
    from virnucpro_monitor.store import engine

    migrate = engine._migrate

    def copy_or_migrate(url: URL) -> None:
        file = Path(url.database or "") if url.drivername.startswith("sqlite") else None
        if file is None or file.stat().st_size:
            migrate(url)
        elif _EMPTY_DATABASE:
            file.write_bytes(_EMPTY_DATABASE[0])
        else:
            migrate(url)
            assert not Path(f"{file}-wal").exists()  # else the file alone is not all of it
            _EMPTY_DATABASE.append(file.read_bytes())

    engine._migrate = copy_or_migrate
    yield
    engine._migrate = migrate


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that one process of the test session fills and all of them read."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder of its own in it
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def demo_database_url(private_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that the real `demo` made: its commits were all validated on the CPU."""

    def make(folder: Path) -> None:
        url = f"sqlite:///{folder / 'demo.db'}"
        finished = subprocess.run(
            [sys.executable, "-m", "virnucpro_monitor", "demo", "--no-open", "--db", url],
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr

    return f"sqlite:///{made_once(tmp_path_factory, 'demo', make) / 'demo.db'}"


@pytest.fixture(scope="session")
def _shared_pool() -> Iterator[object]:
    from tests.workers import SharedPool

    pool = SharedPool()
    yield pool
    pool.end()


@pytest.fixture
def shared_workers(_shared_pool: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every plan that asks for the usual worker pool use the same one."""
    from tests.workers import choose_pool
    from virnucpro_monitor.monitor import starting
    from virnucpro_monitor.runner import workers

    for place in (starting, workers):  # where one is made, and not where the class stands
        monkeypatch.setattr(place, "WorkerPool", functools.partial(choose_pool, _shared_pool))


@pytest.fixture(scope="session")
def quick_protocol_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.protocols import write_quick_protocol

    return write_quick_protocol(tmp_path_factory.mktemp("protocol"))


@pytest.fixture
def quick_probes(quick_protocol_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands validate with few probes: for tests of what is done with a verdict.

    All gates judge; the probes themselves have their own tests.
    """
    monkeypatch.setenv("VIRNUCPRO_MONITOR_PROTOCOL", str(quick_protocol_file))
