import json
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor.sink import Sink, watched_part
from virnucpro_monitor.records import Commit, Target


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'monitor.db'}"


def test_how_far_behind_and_when_it_last_spoke(
    tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY)
    repository.commit({"a": "b"})
    target = Target(name="tiny", location=str(repository.folder))
    with Sink(database, target, say=print) as sink:
        sink.writer.save_target(target)
    capsys.readouterr()
    assert run_command(["status", "--db", database]) == 0
    said = capsys.readouterr().out
    assert "last heard  never" in said
    assert "behind      2 commits" in said
    with Sink(database, target, say=print, heartbeat=True) as sink:
        sink.end(3, "one could not be run")
    capsys.readouterr()
    assert run_command(["status", "--target", "tiny", "--json", "--db", database]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["last_exit_code"], one["last_state"]) == (3, "finished")
    assert one["commits_behind"] == 2
    assert run_command(["status", "--db", database]) == 0
    assert "just now, exit code 3" in capsys.readouterr().out


def test_a_repository_that_has_gone_is_told(
    tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(name="gone", location=str(tmp_path / "gone"))
    with Sink(database, target, say=print) as sink:
        sink.writer.save_target(target)
    capsys.readouterr()
    assert run_command(["status", "--db", database]) == 0
    assert "behind      unknown: There is no repository at" in capsys.readouterr().out


def test_a_missing_database_is_one_sentence(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["status", "--db", database]) == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_watched_part_begins_at_the_first_commit_of_interest() -> None:
    branch = tuple(Commit(hash=name) for name in "abcd")
    assert watched_part(branch, [Commit(hash="c"), Commit(hash="x")]) == branch[2:]
    assert watched_part(branch, []) == ()


def test_what_a_runner_said_last_moves_no_cursor(
    tmp_path: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(name="tiny", location=str(tmp_path / "\x1b[2Jgone"))
    with Sink(database, target, say=print, heartbeat=True) as sink:
        sink.writer.save_target(target)
        sink.end(1, "\x1b]0;title\x07 \x9b31m \u202e postgresql://u:S3cr3t@h/d\r")
    capsys.readouterr()
    assert run_command(["status", "--db", database]) == 0
    said = capsys.readouterr().out
    assert not set(said) & set("\x1b\x07\x9b\u202e\r")
    assert "␛]0;title␇" in said
    assert "S3cr3t" not in said
