"""One empty database per test, on SQLite always and on PostgreSQL under its marker."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from tests.ports import free_port
from virnucpro_monitor.store.anchors import Anchors
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.models import Base
from virnucpro_monitor.store.writer import Writer


def _find_program(name: str) -> str:
    found = shutil.which(name) or max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found)


class PostgresServer:
    """A PostgreSQL server of our own, on a free port; while entered, it runs.

    Attributes:
        url: without a database.
        data: its folder, from entering on.
    """

    def __init__(self) -> None:
        # The server refuses to run as root.
        self._owner = "postgres" if os.geteuid() == 0 else None
        self._port = free_port()
        self.url = f"postgresql://monitor@127.0.0.1:{self._port}"

    def __enter__(self) -> "PostgresServer":
        self._folder = Path(tempfile.mkdtemp(prefix="virnucpro-monitor-postgres-"))
        if self._owner:
            os.chown(self._folder, pwd.getpwnam(self._owner).pw_uid, -1)
        self.data = data = self._folder / "data"
        self._control = [_find_program("pg_ctl"), "-D", str(data), "-w"]
        try:
            make = [_find_program("initdb"), "-D", str(data), "-E", "UTF8"]
            self._run([*make, "-U", "monitor", "-A", "trust"])
            self.start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if (self._folder / "data" / "postmaster.pid").exists():
                self.stop()
        finally:
            shutil.rmtree(self._folder)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= "
        options += "-c fsync=off"
        log = str(self._folder / "log")
        self._run([*self._control, "-o", options, "-l", log, "start"])

    def stop(self) -> None:
        """End it as a crash would."""
        self._run([*self._control, "-m", "immediate", "stop"])

    def execute(self, statement: str) -> None:
        run_on_server(f"{self.url}/postgres", statement)

    def _run(self, command: list[str]) -> None:
        subprocess.run(
            command, user=self._owner, cwd=self._folder, check=True, stdout=subprocess.DEVNULL
        )


@pytest.fixture(autouse=True)
def tables_made_once() -> None:
    """The migrations make every database here."""


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server that all tests share; URL without a database."""
    with PostgresServer() as server:
        yield server.url


def run_on_server(url: str, statement: str) -> None:
    engine = create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_database_url(postgres_url: str) -> str:
    """A database with our tables; what a test stores there is deleted after it."""
    run_on_server(f"{postgres_url}/postgres", "CREATE DATABASE monitor")
    create_database(f"{postgres_url}/monitor")
    return f"{postgres_url}/monitor"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "monitor.db"
    create_database(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_url(
    request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path
) -> Iterator[str]:
    if request.param == "sqlite":
        path = tmp_path / "monitor.db"
        shutil.copy(sqlite_template, path)
        yield f"sqlite:///{path}"
        return
    url = request.getfixturevalue("postgres_database_url")
    yield url
    tables = ", ".join(Base.metadata.tables)
    run_on_server(url, f"TRUNCATE {tables} RESTART IDENTITY")
    Anchors(url).forget()


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "monitor.db")
    return f"sqlite:///{tmp_path / 'monitor.db'}"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def writer(engine: Engine) -> Writer:
    return Writer(engine)
