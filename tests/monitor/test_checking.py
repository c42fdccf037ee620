"""A change against its base: which commit that is, and what the verdict rests on."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from tests.store.builders import make_gate, make_report
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.monitor import running
from virnucpro_monitor.monitor.checking import (
    Check,
    CheckOptions,
    check_and_store,
    find_base,
    main_branch,
)
from virnucpro_monitor.records import Culprit, Outcome, RunReport, Target
from virnucpro_monitor.report.check import (
    MARKER,
    check_annotations,
    check_html,
    check_lines,
    check_markdown,
    check_sentence,
)
from virnucpro_monitor.runner.builtin import builtin_target
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.settings import Settings, load_settings
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.health_reader import load_heartbeats
from virnucpro_monitor.store.reader import load_commits, load_runs, load_targets

GOOD = (1.0, 1.0, 1.0)
BAD = (0.9, 1.0, 1.0)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    """main: root, left, later; change: root, left, one, two. HEAD is on change."""
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "root")
    repository.commit({"a": "1"}, "left")
    repository.git("branch", "-M", "main")
    repository.git("checkout", "--quiet", "-b", "change")
    repository.commit({"b": "1"}, "one")
    repository.commit({"b": "2"}, "two")
    repository.git("checkout", "--quiet", "main")
    repository.commit({"a": "2"}, "later")
    repository.git("checkout", "--quiet", "change")
    return repository


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        db=f"sqlite:///{tmp_path / 'monitor.db'}", cache_dir=tmp_path / "cache", device="cpu"
    )


Results = dict[str, tuple[float | None, ...]]


@pytest.fixture
def check(
    tiny: TinyRepository, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Check]:
    """Check the repository, with these similarities of a commit in place of measuring it."""

    def call(
        results: Results,
        *,
        failing: dict[str, tuple[str, ...]] | None = None,
        value: dict[str, float] | None = None,
        **options: object,
    ) -> Check:
        def measure(plan: RunPlan, **_: object) -> Iterator[RunReport]:
            for commit in plan.commits:
                similarities = results[commit.subject]
                names = (failing or {}).get(commit.subject, ())
                gates = tuple(
                    make_gate(
                        name, name not in names, (value or {}).get(commit.subject, 1.0), limit=2.0
                    )
                    for name in ("seed", "leak")
                )
                report = make_report(
                    similarities=similarities or GOOD,
                    target=plan.target,
                    commit=commit,
                    gates=gates,
                )
                if not similarities:
                    run = replace(
                        report.run, outcome=Outcome.ERROR, culprit=Culprit.NONE, figures=None
                    )
                    report = replace(report, run=run)
                yield report

        monkeypatch.setattr(running, "run_commits", measure)
        target = Target(name="tiny", location=str(tiny.folder))
        return check_and_store(settings, target, CheckOptions(**options))  # type: ignore[arg-type]

    return call


def test_the_base_is_where_the_change_left_its_branch(tiny: TinyRepository, tmp_path: Path) -> None:
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")

    def full(name: str) -> str:
        return tiny.git("rev-parse", name)

    assert find_base(repository, full("change"), "main") == full("main~1")
    assert find_base(repository, full("change"), "change~1") == full("change~1")
    # On the branch already: the commit before it.
    assert find_base(repository, full("main"), "main") == full("main~1")
    assert find_base(repository, full("main~2"), "main") is None
    with pytest.raises(RepositoryError, match="'nosuch' is not known"):
        find_base(repository, full("change"), "nosuch")
    tiny.git("checkout", "--quiet", "--orphan", "alone")
    tiny.git("commit", "--quiet", "--message", "alone")
    with pytest.raises(RepositoryError, match="no commit in common"):
        find_base(Repository.open(str(tiny.folder), tmp_path / "c"), full("alone"), "main")


def test_the_main_branch_is_called_by_its_own_name(tiny: TinyRepository, tmp_path: Path) -> None:
    opened = partial(Repository.open, cache_folder=tmp_path / "cache")
    assert main_branch(opened(str(tiny.folder))) == "main"
    tiny.git("branch", "--move", "main", "trunk")
    assert main_branch(opened(str(tiny.folder))) is None
    clone = tmp_path / "clone"
    tiny.git("checkout", "--quiet", "trunk")
    tiny.git("clone", "--quiet", str(tiny.folder), str(clone))
    assert main_branch(opened(str(clone))) == "origin/trunk"
    assert main_branch(opened(f"file://{tiny.folder}")) == "trunk"
    gone = clone / ".git/refs/remotes/origin/HEAD"
    gone.write_text("ref: refs/remotes/origin/gone\n")
    assert main_branch(opened(str(clone))) is None


def test_a_change_that_breaks_the_promise_fails(
    check: Callable[..., Check], settings: Settings, tiny: TinyRepository
) -> None:
    found = check({"left": GOOD, "two": BAD}, failing={"two": ("seed",)})
    assert found.base is not None
    assert (found.base.subject, found.head.subject) == ("left", "two")
    assert (found.outcome, found.exit_code) == ("failed", 2)
    lines = check_lines(found)
    assert len(lines) <= 10
    assert lines[0] == (
        f"Failed: {found.head.short} “two” by A. Author breaks the promise that "
        f"{found.base.short} keeps."
    )
    assert "  gates that fail: seed; at the base: none" in lines
    worst = "  worst error: 1 - cos 1.0e-1 (short_1); at the base: 1 - cos 0 (short_1)"
    assert worst in lines
    assert lines[-1].startswith(f"more:  virnucpro-monitor compare {found.base.short} ")
    assert check_markdown(found).startswith(MARKER)

    # Stored before anybody judged, on the branch that is watched, and no word of its runner.
    engine = open_engine(settings.database_url, read_only=True)
    assert {run.commit.subject for run in load_runs(engine)} == {"left", "two"}
    on_branch = {commit.subject: commit.on_branch for commit in load_commits(engine, "tiny")}
    assert on_branch == {"left": True, "later": True, "two": False}
    assert load_heartbeats(engine) == []
    engine.dispose()


def test_a_check_in_a_clone_ahead_of_its_origin_takes_nothing_off_the_watched_branch(
    check: Callable[..., Check], settings: Settings, tiny: TinyRepository
) -> None:
    origin = tiny.folder.parent / "origin"
    tiny.git("checkout", "--quiet", "main")
    tiny.git("clone", "--quiet", "--bare", str(tiny.folder), str(origin))
    tiny.git("remote", "add", "origin", str(origin))
    tiny.git("fetch", "--quiet", "origin")
    tiny.git("remote", "set-head", "origin", "main")
    tiny.commit({"a": "3"}, "not pushed")  # on main, which the target follows as HEAD
    found = check({"not pushed": BAD, "later": GOOD}, base="origin/main")
    assert found.base is not None
    assert (found.base.subject, found.head.subject) == ("later", "not pushed")
    engine = open_engine(settings.database_url, read_only=True)
    assert [one.branch for one in load_targets(engine)] == ["main"]
    on_branch = {commit.subject: commit.on_branch for commit in load_commits(engine, "tiny")}
    assert on_branch == {"later": True, "not pushed": True}
    # A change on a branch of its own stays off it, and the base is where it left origin's.
    tiny.git("checkout", "--quiet", "-b", "topic")
    tiny.commit({"b": "1"}, "topic")
    found = check({"later": GOOD, "topic": BAD})
    assert found.base is not None
    assert found.base.subject == "later"
    on_branch = {commit.subject: commit.on_branch for commit in load_commits(engine, "tiny")}
    assert on_branch == {"later": True, "not pushed": True, "topic": False}
    engine.dispose()


def test_a_change_that_keeps_it_passes(check: Callable[..., Check]) -> None:
    found = check({"left": BAD, "two": GOOD}, failing={"left": ("seed",)})
    assert (found.outcome, found.exit_code) == ("passed", 0)
    assert check_sentence(found).endswith("keeps the promise.")
    assert len(check_lines(found)) <= 10


def test_what_failed_before_fails_unless_only_new_faults_count(
    check: Callable[..., Check],
) -> None:
    both: Results = {"left": BAD, "two": BAD}
    same = {"left": ("seed",), "two": ("seed",)}
    found = check(both, failing=same)
    assert found.exit_code == 2
    assert check_sentence(found).endswith("its base fails in the same way.")
    found = check(both, failing=same, only_new=True)
    assert found.exit_code == 0
    assert "breaks nothing that its base keeps" in check_sentence(found)
    found = check(both, failing={"left": ("seed",), "two": ("seed", "leak")}, only_new=True)
    assert found.exit_code == 2
    # The same gate, missed by more, is no new fault.
    found = check(both, failing=same, value={"left": 3.0, "two": 30.0}, only_new=True)
    assert found.exit_code == 0


def test_a_head_that_cannot_be_run_is_no_verdict(check: Callable[..., Check]) -> None:
    found = check({"left": GOOD, "two": ()})
    assert (found.outcome, found.exit_code) == ("error", 3)
    assert check_sentence(found).startswith("Not told: ")


def test_a_base_that_cannot_be_run_excuses_nothing(check: Callable[..., Check]) -> None:
    found = check({"left": (), "two": BAD}, failing={"two": ("seed",)}, only_new=True)
    assert found.exit_code == 2


def test_the_first_commit_stands_alone(check: Callable[..., Check]) -> None:
    found = check({"root": GOOD}, head="main~2")
    assert found.base is None
    assert found.exit_code == 0
    assert "base   none: it is the first commit" in check_lines(found)


def test_a_repository_without_a_usual_branch_needs_a_base(
    check: Callable[..., Check], tiny: TinyRepository
) -> None:
    tiny.git("branch", "-m", "main", "trunk")
    with pytest.raises(ConfigurationError, match="--base"):
        check({"two": GOOD})
    assert check({"left": GOOD, "two": GOOD}, base="trunk").exit_code == 0


def test_the_builtin_target_has_no_changes_to_check(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="check needs a repository"):
        check_and_store(settings, builtin_target())


class Turns(dict[str, list[tuple[float | None, ...]]]):
    """What each further measurement of a commit gives."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).pop(0)


def test_a_flaky_head_is_measured_again_before_it_fails(
    check: Callable[..., Check], settings: Settings
) -> None:
    found = check(Turns(left=[GOOD], two=[BAD, GOOD]))
    (result,) = found.results
    assert (found.exit_code, result.is_flaky, result.attempts) == (3, True, ("failed", "passed"))
    assert check_sentence(found).endswith(
        "“two” by A. Author is flaky, the same code failed 1 of 2 times."
    )
    assert "  flaky: the same code failed 1 of 2 times" in check_lines(found)
    assert check_annotations(found)[0].startswith("::warning title=packed = unpacked::Not told")
    # Both attempts are stored.
    engine = open_engine(settings.database_url, read_only=True)
    assert len(load_runs(engine, all_attempts=True)) == 3
    engine.dispose()


def test_a_head_that_fails_twice_fails_and_is_believed_from_then_on(
    check: Callable[..., Check],
) -> None:
    failing = {"two": ("seed",)}
    found = check(Turns(left=[GOOD], two=[BAD, BAD]), failing=failing)
    assert (found.exit_code, found.results[0].attempts) == (2, ("failed", "failed"))
    once = check(Turns(left=[GOOD], two=[BAD]), failing=failing, confirm=0)
    assert once.exit_code == 2
    again = check(Turns(left=[GOOD], two=[BAD]), failing=failing)
    assert again.exit_code == 2, "three attempts agree: it is not measured another time"


def test_a_verdict_is_annotated_and_a_page_of_its_own(check: Callable[..., Check]) -> None:
    found = check({"left": GOOD, "two": BAD}, failing={"two": ("seed", "leak")})
    first, *gates = check_annotations(found)
    assert first == f"::error title=packed = unpacked::{check_sentence(found)}"
    assert gates == [
        "::error title=seed@1%3A gate seed::seed@1: gate seed",
        "::error title=seed@1%3A gate leak::seed@1: gate leak",
    ]
    page = check_html(found)
    assert "breaks the promise that" in page
    assert "short_1" in page
    assert not re.findall(r"(?:src|href)=|<script", page), "it needs nothing else"
    alone = check({"root": BAD}, head="main~2")
    assert "short_1" in check_html(alone)
