from pathlib import Path

import pytest

from tests.store.builders import make_report
from tests.store.conftest import PostgresServer, postgres_database_url, postgres_url
from virnucpro_monitor.errors import LockedError
from virnucpro_monitor.monitor.sink import Sink, holding_locks
from virnucpro_monitor.records import Target
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.engine import create_database
from virnucpro_monitor.store.maintenance import check_database

__all__ = ["postgres_database_url", "postgres_url"]  # fixtures, by their import


def test_a_second_start_on_one_host_leaves_with_a_clear_line(tmp_path: Path) -> None:
    settings = load_settings(db=f"sqlite:///{tmp_path / 'a.db'}", cache_dir=tmp_path / "cache")
    target = Target(name="t", location="")
    with (
        Sink(settings.database_url, target, say=pytest.fail) as sink,
        holding_locks(settings, sink, wait_s=0.0, on_wait=pytest.fail),
    ):
        with (
            pytest.raises(LockedError, match="Another runner is at work here"),
            holding_locks(settings, sink, wait_s=0.0, on_wait=pytest.fail),
        ):
            pass
        other = Sink(settings.database_url, Target(name="other", location=""), say=pytest.fail)
        with holding_locks(settings, other, wait_s=0.0, on_wait=pytest.fail):
            pass  # another target has a lock of its own


def test_who_has_waited_for_a_first_start_knows_what_that_has_stored(tmp_path: Path) -> None:
    url, report = f"sqlite:///{tmp_path / 'a.db'}", make_report(0)
    with Sink(url, report.target, say=print) as waiting:
        assert waiting.known_runs() == []
        with Sink(url, report.target, say=print) as first:
            run_id = first.save(report)
        assert [run.id for run in waiting.known_runs()] == [run_id]


@pytest.mark.postgres
def test_hosts_that_share_a_server_exclude_each_other(
    postgres_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(name="shared", location="")
    settings = load_settings(db=postgres_database_url)
    # Two hosts have two data folders, so that their file locks don't meet.
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "a"))
    with (
        Sink(postgres_database_url, target, say=pytest.fail) as sink,
        holding_locks(settings, sink, wait_s=0.0, on_wait=pytest.fail),
        Sink(postgres_database_url, target, say=pytest.fail) as other,
    ):
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "b"))
        with (
            pytest.raises(LockedError, match="another host is at work on run shared"),
            holding_locks(settings, other, wait_s=0.0, on_wait=pytest.fail),
        ):
            pass
    with (
        Sink(postgres_database_url, target, say=pytest.fail) as other,
        holding_locks(settings, other, wait_s=0.0, on_wait=pytest.fail),
    ):
        assert other.writer.acquire_lease("run shared", "someone else", 1.0) is False


@pytest.mark.postgres
def test_a_result_outlives_its_database_and_is_stored_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    words: list[str] = []
    reports = [make_report(number) for number in range(4)]
    with PostgresServer() as server:
        server.execute("CREATE DATABASE monitor")
        url = f"{server.url}/monitor"
        create_database(url)
        with Sink(url, reports[0].target, say=words.append, heartbeat=True, patience_s=1) as sink:
            assert sink.save(reports[0]) == 1
            server.stop()
            assert sink.save(reports[1]) is None
            assert sink.save(reports[2]) is None
        assert sum("waits in a file until then" in word for word in words) == 2
        server.start()
        words.clear()
        with Sink(url, reports[0].target, say=words.append) as sink:
            known = [run.commit.hash for run in sink.known_runs()]
            assert known == [report.run.commit.hash for report in reports[:3]]
            assert sink.save(reports[3]) is not None
            assert len(sink.known_runs()) == 4
        assert words == ["The database is back: 2 waiting results were stored."]
        assert check_database(url).problems == ()
