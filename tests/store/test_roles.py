"""PostgreSQL's roles on a real server: what each may do, and what it may not."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from tests.store.builders import make_report
from tests.store.conftest import run_on_server
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import ConfigurationError, StoreError
from virnucpro_monitor.records import Acknowledgement
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.connection import reading, writing
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.notes_reader import load_acknowledgements
from virnucpro_monitor.store.roles import KINDS, make_roles
from virnucpro_monitor.store.writer import Writer

NAMES = tuple(f"tried_{kind}" for kind in KINDS)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with one run, the roles, and a user of each: `a_reader` and so on."""
    url = request.getfixturevalue("postgres_database_url")
    engine = open_engine(url)
    Writer(engine).save_run(make_report())
    engine.dispose()
    assert make_roles(url, prefix="tried").names == NAMES
    assert len(make_roles(url, prefix="tried").names) == 3  # again, over what is there
    for kind, name in zip(KINDS, NAMES, strict=True):
        run_on_server(url, f"CREATE ROLE a_{kind} LOGIN IN ROLE {name}")
    yield url
    for kind, name in zip(KINDS, NAMES, strict=True):
        run_on_server(url, f"DROP OWNED BY {name}")
        run_on_server(url, f"DROP ROLE a_{kind}, {name}")
    run_on_server(url, "TRUNCATE targets, benchmark_sets, acknowledgements CASCADE")


@pytest.mark.postgres
def test_each_role_may_do_its_own_and_no_more(url: str) -> None:
    note = Acknowledgement(
        incident="abc", who="alice", why="seen", created_at=make_report().run.started_at
    )
    acts = {
        "read": lambda engine: reader.load_runs(engine),
        "acknowledge": lambda engine: Writer(engine).acknowledge(note),
        "withdraw": lambda engine: Writer(engine).withdraw_acknowledgements("abc", "alice"),
        "store": lambda engine: Writer(engine).save_run(make_report(1)),
        "lease": lambda engine: Writer(engine).acquire_lease("run", "host:1", 1.0),
        "delete": lambda engine: Writer(engine).delete_target(make_report().target.name),
        "alter": lambda engine: _send(engine, "ALTER TABLE runs ADD COLUMN more integer"),
        "create": lambda engine: _send(engine, "CREATE TABLE own (id integer)"),
        "empty": lambda engine: _send(engine, "TRUNCATE runs CASCADE"),
        "other revision": lambda engine: _send(engine, "UPDATE alembic_version SET version_num=''"),
    }
    allowed: dict[str, list[str]] = {}
    refusals: list[str] = []
    for kind in KINDS:
        engine = open_engine(url.replace("monitor@", f"a_{kind}@"))
        allowed[kind] = []
        for name, act in acts.items():
            try:
                act(engine)
            except StoreError as error:
                refusals.append(str(error))
            else:
                allowed[kind].append(name)
        engine.dispose()
    assert all("permission denied" in one or "must be owner" in one for one in refusals)
    notes = ["read", "acknowledge", "withdraw"]
    assert allowed == {
        "reader": ["read"],
        "acknowledger": notes,
        "writer": [*notes, "store", "lease", "delete"],
    }


def _send(engine: object, statement: str) -> None:
    with writing(engine) as connection:  # type: ignore[arg-type]
        connection.execute(text(statement))


@pytest.mark.postgres
def test_the_sql_is_shown_before_it_is_done(
    postgres_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["db", "roles", "--prefix", "shown", "--db", postgres_database_url]) == 0
    shown = capsys.readouterr().out
    assert "CREATE ROLE shown_reader NOLOGIN;" in shown
    engine = open_engine(postgres_database_url)
    with reading(engine) as connection:
        asked = text("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'shown%'")
        assert connection.execute(asked).scalar_one() == 0
    assert not load_acknowledgements(engine)
    engine.dispose()


def test_a_file_has_no_roles(sqlite_url: str) -> None:
    with pytest.raises(ConfigurationError, match="has no users"):
        make_roles(sqlite_url)
