"""A start as a function: what it stores, streams and says, and whose last word it is."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from tests.store.builders import make_commit, make_report
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.errors import ConfigurationError, ProtocolError, RepositoryError
from virnucpro_monitor.monitor import running
from virnucpro_monitor.monitor.running import (
    Listener,
    RunOptions,
    RunOutcome,
    make_plan,
    run_and_store,
    stream_runs,
)
from virnucpro_monitor.records import Commit, Heartbeat, Outcome, Run, Target
from virnucpro_monitor.settings import Settings, load_settings
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.health_reader import load_heartbeats
from virnucpro_monitor.store.reader import load_commits, load_runs


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "Add packed inference")
    repository.commit({"a": "b"})
    return repository


@pytest.fixture
def target(tiny: TinyRepository) -> Target:
    return Target(name="tiny", location=str(tiny.folder))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        db=f"sqlite:///{tmp_path / 'monitor.db'}", cache_dir=tmp_path / "cache", device="cpu"
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits pass without being measured."""

    def pass_all(plan: running.RunPlan, **_: object) -> Iterator[object]:
        for commit in plan.commits:
            yield make_report(target=plan.target, commit=commit)

    monkeypatch.setattr(running, "run_commits", pass_all)


def stored(settings: Settings) -> tuple[list[Run], list[Heartbeat]]:
    engine = open_engine(settings.database_url, read_only=True)
    try:
        return load_runs(engine), load_heartbeats(engine)
    finally:
        engine.dispose()


@pytest.mark.usefixtures("measured")
def test_runs_are_streamed_as_they_are_stored(
    settings: Settings, target: Target, tiny: TinyRepository
) -> None:
    said: list[str] = []
    told: list[Run] = []
    listener = Listener(on_message=said.append, on_run=told.append)
    stream = stream_runs(settings, target, RunOptions(everything=True), listener)
    first = next(stream)
    assert [run.id for run in stored(settings)[0]] == [first.id]
    stream.close()
    assert [run.id for run in stored(settings)[0]] == [first.id]  # what was stored stays
    assert first.commit.hash == tiny.git("rev-list", "--max-parents=0", "HEAD")
    assert told == [first]
    assert said[0].startswith("Created the database sqlite:///")

    outcome = run_and_store(settings, target, RunOptions(everything=True))
    assert [run.commit.hash for run in outcome.runs] == tiny.git(
        "rev-list", "--reverse", "HEAD"
    ).split()
    assert (outcome.exit_code, outcome.summary) == (0, "2 passed.")


@pytest.mark.usefixtures("measured")
def test_only_the_targets_runner_has_a_last_word(settings: Settings, target: Target) -> None:
    run_and_store(settings, target, RunOptions(revisions=["HEAD"]))
    assert stored(settings)[1] == []
    said: list[str] = []
    run_and_store(settings, target, RunOptions(new=True), Listener(on_message=said.append))
    assert len(said) == 1
    assert said[0].endswith("Its whole history, 2 commits: --all")
    (beat,) = stored(settings)[1]
    assert (beat.state, beat.message, beat.exit_code) == ("finished", "1 passed.", 0)
    with pytest.raises(RepositoryError, match="'nosuch' is not known"):
        run_and_store(settings, target, RunOptions(revisions=["nosuch"]))
    assert stored(settings)[1] == [beat]


@pytest.mark.usefixtures("measured")
def test_the_runners_own_failure_is_its_last_word(
    settings: Settings, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_and_store(settings, target)

    def fail(*_: object, **__: object) -> None:
        raise RepositoryError("The repository has gone: put it back.")

    monkeypatch.setattr(running, "run_commits", fail)
    with pytest.raises(RepositoryError):
        run_and_store(settings, target, RunOptions(new=True))
    (beat,) = stored(settings)[1]
    assert (beat.message, beat.exit_code) == ("The repository has gone: put it back.", 1)


def test_the_plan_has_what_settings_and_options_say(settings: Settings, target: Target) -> None:
    chosen = settings.model_copy(
        update={"workers": 3, "memory_limit_gib": 2.5, "timeout_s": 7.0, "protocol": "1"}
    )
    options = RunOptions(
        everything=True, order="newest", max_time_s=90.0, force=True, gpu_wait_s=5.0, probes=False
    )
    plan, selection = make_plan(chosen, target, [], options)
    assert (plan.workers, plan.memory_limit_gib, plan.timeout_s) == (3, 2.5, 7.0)
    assert (plan.order, plan.max_minutes, plan.gpu_wait_s) == ("newest", 1.5, 5.0)
    assert (plan.force, plan.retry_errors, plan.probes) == (True, False, False)
    assert plan.protocol.version == "1"
    assert selection.commits == selection.branch
    assert len(selection.commits) == 2


def test_a_first_new_start_names_the_way_to_the_whole_history(
    settings: Settings, target: Target
) -> None:
    _, selection = make_plan(settings, target, [], RunOptions(new=True))
    assert len(selection.commits) == 1
    assert selection.note.endswith("Its whole history, 2 commits: --all")


def test_commits_are_chosen_one_way() -> None:
    both = r"^Commits are named one by one, as new ones or as all of them: choose one way\.$"
    with pytest.raises(ConfigurationError, match=both):
        RunOptions(new=True, revisions=["HEAD"])
    with pytest.raises(ConfigurationError, match="wait_s is nan"):
        RunOptions(wait_s=float("nan"))


def test_a_failure_outranks_what_could_not_be_run() -> None:
    error, failed = (
        make_report(number, outcome=outcome).run
        for number, outcome in enumerate((Outcome.ERROR, Outcome.FAILED))
    )
    assert running.RunOutcome((error,), ()).exit_code == 3
    assert running.RunOutcome((error,), (failed,)).exit_code == 2
    again = make_report(1, outcome=Outcome.PASSED).run  # of the commit that failed before
    assert running.RunOutcome((again,), (failed,)).exit_code == 0


def test_a_start_that_measures_nothing_still_sees_the_branch(
    settings: Settings, target: Target, tiny: TinyRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle(
        plan: running.RunPlan, *, on_settled: Callable[[Run], None], **_: object
    ) -> Iterator[object]:
        for commit in plan.commits:
            on_settled(make_report(target=plan.target, commit=commit).run)
        yield from ()

    monkeypatch.setattr(running, "run_commits", settle)
    outcome = run_and_store(settings, target, RunOptions(everything=True))
    assert (outcome.runs, len(outcome.settled)) == ((), 2)
    engine = open_engine(settings.database_url, read_only=True)
    assert [commit.hash for commit in load_commits(engine, "tiny")] == tiny.git(
        "rev-list", "--reverse", "HEAD"
    ).split()
    engine.dispose()


def test_new_goes_by_runs_of_the_same_set_and_set_up(
    settings: Settings, target: Target, tiny: TinyRepository
) -> None:
    last = Commit(hash=tiny.git("rev-parse", "HEAD"))
    other_set = make_report(target=target, commit=last).run
    _, selection = make_plan(settings, target, [other_set], RunOptions(new=True))
    assert [commit.hash for commit in selection.commits] == [last.hash]
    digest = load_benchmark(settings.benchmark[0]).digest
    used = replace(other_set.configuration, model=settings.model, dtype=settings.dtype)
    same = replace(other_set, benchmark_digest=digest, configuration=used)
    assert make_plan(settings, target, [same], RunOptions(new=True))[1].commits == ()


def test_an_unknown_protocol_is_refused_before_anything_runs(
    settings: Settings, target: Target
) -> None:
    chosen = settings.model_copy(update={"protocol": "99"})
    with pytest.raises(ProtocolError, match="There is no protocol '99'"):
        run_and_store(chosen, target)


def test_a_start_that_saw_both_verdicts_of_a_commit_fails(
    settings: Settings, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(plan: running.RunPlan, **_: object) -> Iterator[object]:
        for similarities in ((0.9, 0.9, 0.9), (1.0, 1.0, 1.0)):
            yield make_report(similarities=similarities, target=plan.target, commit=plan.commits[0])

    monkeypatch.setattr(running, "run_commits", flip)
    outcome = run_and_store(settings, target)
    assert [run.outcome for run in outcome.runs] == [Outcome.FAILED, Outcome.PASSED]
    assert outcome.exit_code == 2
    short = outcome.runs[0].commit.short
    assert outcome.summary == f"1 passed. The same code both passed and failed: {short}."


def test_the_last_line_tells_what_skipped_and_known_commits_inherit() -> None:
    def skipped(number: int, inherited: Outcome) -> Run:
        run = make_report(commit=make_commit(number)).run
        return replace(run, outcome=Outcome.SKIPPED, inherited_outcome=inherited)

    runs = skipped(1, Outcome.FAILED), skipped(2, Outcome.PASSED), skipped(3, Outcome.FAILED)
    known = skipped(4, Outcome.ERROR), skipped(5, Outcome.PASSED)
    outcome = RunOutcome(runs=runs, settled=known)
    assert outcome.summary == (
        "2 skipped (inherits failed), 1 skipped, 2 known already (1 not passed)."
    )
    measured = [make_report(6, (0.9, 1.0, 1.0)).run, make_report(7).run]
    assert RunOutcome(runs=(*runs, *measured), settled=()).summary == (
        "1 passed, 1 failed, 2 skipped (inherits failed), 1 skipped."
    )
