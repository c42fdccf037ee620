"""What a name means, asked at both doors, in a real repository."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app import data
from tests.app.conftest import PageRunner, shown_html
from tests.cli.reading_history import make_database
from tests.monitor.conftest import CommandLine
from tests.store.builders import TARGET, make_commit, make_report
from virnucpro_monitor.errors import AmbiguousRevision, NotFoundError
from virnucpro_monitor.records import Commit
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.writer import Writer


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> list[Commit]:
    """Six commits of a real repository, `v1` at the third, `main` and HEAD at the last."""
    folder = tmp_path / "real"
    folder.mkdir()
    real_url, commits = make_database(folder)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", real_url)
    return commits


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("v1", 2),
        ("sample:v1", 2),
        ("main", 5),
        ("HEAD", 5),
        ("HEAD~1", 4),
        ("{full}", 1),
        ("{short}", 1),
    ],
)
def test_a_name_means_one_commit_at_both_doors(
    name: str, place: int, history: list[Commit], command: CommandLine
) -> None:
    name = name.format(full=history[1].hash, short=history[1].hash[:8])
    expected = history[place].hash
    assert command("compare", name, "main")["base"] == expected
    assert [found.commit.hash for found in data.find_commits(name, "sample")] == [expected]
    assert [found.commit.hash for found in data.find_commits(name, None)] == [expected]
    assert data.find_commit(name, "sample").hash == expected


def test_a_commit_that_was_not_measured_is_told_with_its_remedy(
    history: list[Commit], tmp_path: Path, refused: Callable[..., str], run_page: PageRunner
) -> None:
    repository = tmp_path / "real" / "repository"
    subprocess.run(
        ["git", "-C", str(repository), "-c", "user.name=A", "-c", "user.email=a@example.org",
         "commit", "--quiet", "--allow-empty", "-m", "Not measured"], check=True,
    )  # fmt: skip
    tip = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    told = refused("compare", history[0].hash, "main")
    assert "which has not been validated" in told
    assert f"--commit {tip[:10]}" in told
    with pytest.raises(NotFoundError, match="has not been validated"):
        data.find_commit("main", "sample")
    url = f"sqlite:///{tmp_path / 'real' / 'monitor.db'}"
    page = shown_html(run_page("compare", url, base=history[0].hash, head="main", target="sample"))
    assert "has not been validated" in page


def test_digits_of_two_commits_are_ambiguous_at_both_doors(
    url: str, store: Callable[..., list[int]], refused: Callable[..., str], run_page: PageRunner
) -> None:
    store(make_report(16), make_report(17))
    shared = make_commit(16).hash[:3]
    assert make_commit(17).hash.startswith(shared)
    told = refused("compare", shared, make_commit(17).hash)
    assert "fits 2 commits of sample: give more digits" in told
    with pytest.raises(AmbiguousRevision, match="give more digits"):
        data.find_commit(shared, "sample")
    page = shown_html(run_page("compare", url, base=shared, head=make_commit(17).hash))
    assert "2 commits fit the base" in page
    for number in (16, 17):
        assert make_commit(number).hash[:10] in page


def test_a_branch_is_found_without_its_repository(
    store: Callable[..., list[int]], command: CommandLine
) -> None:
    store(make_report(0), make_report(1))
    newest = make_commit(1).hash
    for name in ("main", "HEAD"):
        assert command("compare", make_commit(0).hash, name)["head"] == newest
        assert [found.commit.hash for found in data.find_commits(name, "sample")] == [newest]


def test_a_target_without_runs_stops_no_command_of_another(
    url: str, store: Callable[..., list[int]], command: CommandLine
) -> None:
    store(make_report(0), make_report(1))
    engine = open_engine(url)
    Writer(engine).save_target(replace(TARGET, name="noif"))
    engine.dispose()
    found = command("compare", make_commit(0).hash[:6], "HEAD")
    assert (found["target"], found["head"]) == ("sample", make_commit(1).hash)


def test_a_name_that_no_target_knows_is_one_sentence(
    url: str, store: Callable[..., list[int]], refused: Callable[..., str]
) -> None:
    other = replace(TARGET, name="other")
    store(make_report(0), make_report(0, target=other))
    assert "'nosuch' is no commit of any target" in refused("compare", "nosuch", "HEAD")
    assert "choose by --target (other, sample)" in refused("compare", make_commit(0).hash, "HEAD")
