"""What a start settles before anything is measured: its target, its commits and what is known."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from tests.store.builders import TARGET, make_report
from virnucpro_monitor.errors import ConfigurationError, DiskError, RepositoryError
from virnucpro_monitor.monitor import running
from virnucpro_monitor.monitor.checking import CheckOptions, check_and_store
from virnucpro_monitor.monitor.running import (
    Listener,
    RunOptions,
    RunOutcome,
    check_disks,
    find_run_target,
    find_run_targets,
    run_and_store,
    with_own_adapter,
)
from virnucpro_monitor.monitor.targets import look_at
from virnucpro_monitor.records import Commit, Outcome, Run, RunReport, Target
from virnucpro_monitor.runner import passwords
from virnucpro_monitor.runner.builtin import builtin_digest, builtin_target
from virnucpro_monitor.runner.matrix import with_environments
from virnucpro_monitor.runner.sources import open_source
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.reader import load_commits, load_runs, load_targets
from virnucpro_monitor.store.writer import Writer

OWN_ADAPTER = '[tool.virnucpro-monitor]\nadapter = "tools/monitor.py:make"\n'


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    """Two commits on main; a third on `own` names its adapter."""
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "Add packed inference")
    repository.git("branch", "-M", "main")
    repository.commit({"a": "1"}, "Change a")
    repository.git("checkout", "--quiet", "-b", "own")
    repository.commit({"pyproject.toml": OWN_ADAPTER}, "Name the adapter")
    repository.git("checkout", "--quiet", "main")
    return repository


@pytest.fixture
def target(tiny: TinyRepository) -> Target:
    return Target(name="tiny", location=str(tiny.folder), branch="main")


class Measured:
    """Stands for the measuring: every commit of a plan passes."""

    def __init__(self) -> None:
        self.plans: list[tuple[running.RunPlan, list[Run]]] = []

    def __call__(
        self, plan: running.RunPlan, *, known: Sequence[Run], **_: Any
    ) -> Iterator[RunReport]:
        self.plans.append((plan, list(known)))
        for commit in plan.commits:
            yield make_report(target=plan.target, commit=commit)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    stand_in = Measured()
    monkeypatch.setattr(running, "run_commits", stand_in)
    return stand_in


def test_the_builtin_target_is_measured_as_it_is_installed(
    settings: Settings, tmp_path: Path, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is installed without a repository, as from a wheel."""
    target = replace(builtin_target(), location=str(tmp_path))
    commit = Commit(hash=builtin_digest()[:40], subject="As installed")
    by_cache = {settings.cache_folder: commit}
    monkeypatch.setattr(running, "builtin_commit", by_cache.__getitem__)
    run_and_store(settings, target)
    run_and_store(settings, target, RunOptions(new=True))
    for options in (RunOptions(revisions=["HEAD"]), RunOptions(everything=True)):
        with pytest.raises(ConfigurationError, match="measured as it is installed: name a repo"):
            run_and_store(settings, target, options)
    planned = [(plan.repository, plan.commits) for plan, _ in measured.plans]
    assert planned == 2 * [(None, (commit,))]
    engine = open_engine(settings.database_url, read_only=True)
    (stored,) = load_commits(engine, "builtin")  # on the branch, too: it is all there is of it
    assert (stored.hash, stored.subject, stored.on_branch) == (commit.hash, "As installed", True)
    engine.dispose()


def test_a_first_start_takes_the_adapter_that_the_branch_names(
    settings: Settings, tiny: TinyRepository, target: Target, measured: Measured
) -> None:
    said: list[str] = []

    def start(name: str, **changes: Any) -> tuple[str, int]:
        said.clear()
        wanted = Target(**{"name": name, "location": str(tiny.folder), "branch": "own", **changes})
        run_and_store(settings, wanted, listener=Listener(on_message=said.append))
        engine = open_engine(settings.database_url, read_only=True)
        (stored,) = [one for one in load_targets(engine) if one.name == name]
        engine.dispose()
        sentence = f"{name} is loaded by tools/monitor.py:make, as its pyproject.toml says."
        assert measured.plans[-1][0].target.adapter == stored.adapter
        return stored.adapter, said.count(sentence)

    plain, named = "seed-interface", "tools/monitor.py:make"
    assert start("one") == (named, 1)
    assert start("one", adapter=named) == (named, 0)  # which is stored
    assert start("two", branch="main") == (plain, 0)  # its last commit names none
    assert start("three", adapter="hf-esm:way=mask") == ("hf-esm:way=mask", 0)
    assert start("four", adapter="seed-interface:oracle=none") == (f"{named}:oracle=none", 1)
    # It is looked at as it would be started.
    found = look_at(settings, Target(name="new", location=str(tiny.folder), branch="own"))
    assert found is not None
    assert (found.adapter, found.package) == (named, None)
    # What is stored without one was stored so on purpose.
    kept = Target(name="five", location=str(tiny.folder), branch="own")
    engine = open_engine(settings.database_url)
    Writer(engine).save_target(kept)
    engine.dispose()
    run_and_store(settings, kept)
    assert measured.plans[-1][0].target.adapter == plain


def test_an_adapter_of_this_machine_that_has_gone_is_no_commit_s_error(
    settings: Settings, target: Target, tmp_path: Path, measured: Measured
) -> None:
    there = tmp_path / "adapter.py"
    there.touch()
    own = replace(target, adapter=f"{there}:make")
    run_and_store(settings, own)
    there.unlink()
    with pytest.raises(ConfigurationError, match=r"loaded by .*adapter\.py, which is not there"):
        run_and_store(settings, own, RunOptions(everything=True))
    assert len(measured.plans) == 1


def test_an_installed_package_names_no_adapter(
    settings: Settings, tiny: TinyRepository, target: Target
) -> None:
    source = open_source(target, settings.cache_folder)
    package = Target(name="released", location="pypi:something", branch="own")
    assert with_own_adapter(package, source, pytest.fail) is package
    with pytest.raises(RepositoryError, match="nosuch"):
        with_own_adapter(Target(name="t", location="x", branch="nosuch"), source, pytest.fail)


def test_what_is_known_is_what_is_stored_of_this_target(
    settings: Settings, target: Target, measured: Measured
) -> None:
    create_database(settings.database_url)
    engine = open_engine(settings.database_url)
    Writer(engine).save_run(make_report(3, target=TARGET))
    run_and_store(settings, target, RunOptions(everything=True))
    run_and_store(settings, target, RunOptions(everything=True))
    stored = sorted(run.id or 0 for run in load_runs(engine, target="tiny", all_attempts=True))
    engine.dispose()
    assert len(stored) == 4  # two of each start
    assert [sorted(run.id or 0 for run in known) for _, known in measured.plans] == [
        [],
        stored[:2],
    ]
    assert {run.target for _, known in measured.plans for run in known} == {"tiny"}


@pytest.mark.parametrize(
    "options", [{"everything": True}, {"new": True}, {"revisions": ["main~1"]}]
)
def test_a_check_covers_two_commits_whatever_its_run_would_choose(
    options: dict[str, Any], settings: Settings, tiny: TinyRepository, target: Target,
    measured: Measured,
) -> None:  # fmt: skip
    choice = CheckOptions(head="own", base="main", run=RunOptions(**options, probes=False))
    found = check_and_store(settings, target, choice)
    assert found.base is not None
    covered = [tiny.git("rev-parse", name) for name in ("main", "own")]
    assert [found.base.hash, found.head.hash] == covered
    ((plan, _),) = measured.plans
    assert [commit.hash for commit in plan.commits] == covered
    assert plan.probes is False


def test_a_password_stored_with_an_address_goes_before_anything_is_found_by_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(passwords, "_remembered", {})
    create_database(settings.database_url)
    engine = open_engine(settings.database_url)
    plain = Target(name="plain", location="https://example.org/plain.git", package="p")
    secret = Target(name="secret", location="https://me:pa55@example.org/a.git", branch="dev")
    odd = Target(name="odd", location="https://example.org/a.git?private_token=pa55word")
    for one in (plain, secret, odd):
        Writer(engine).save_target(one)
    engine.dispose()
    assert find_run_target(settings, "plain") == plain
    assert passwords.password_file().exists()  # all that are stored are taken apart, each time
    for find in (find_run_target, lambda *given: find_run_targets(*given)[0]):
        found = find(settings, "secret")
        assert (found.location, found.branch) == ("https://me@example.org/a.git", "dev")
        # A secret elsewhere cannot be taken out: told where its repository is to be read.
        assert find(settings, "odd") == odd
    passwords._remembered.clear()  # the next start has it from the file
    assert passwords.password_of("https://me@example.org/a.git") == "pa55"
    assert passwords.password_of(plain.location) is None


def test_a_name_means_its_target_or_all_of_its_environments(settings: Settings) -> None:
    made = with_environments(Target(name="tool", location="pypi:tool"), ["torch=2.10.0,2.14.1"])
    create_database(settings.database_url)
    engine = open_engine(settings.database_url)
    for one in made:
        Writer(engine).save_target(one)
    assert find_run_targets(settings, "tool") == made
    assert find_run_targets(settings, made[1].name) == made[1:]
    called_so = Target(name="tool", location="pypi:tool")
    Writer(engine).save_target(called_so)
    engine.dispose()
    assert find_run_targets(settings, "tool") == (called_so,)  # no matrix, but what is called so
    assert find_run_targets(settings, None) == (builtin_target(),)
    (new,) = find_run_targets(settings, "https://example.org/new.git", "its_package")
    assert (new.location, new.package) == ("https://example.org/new.git", "its_package")


def test_a_place_that_cannot_be_written_is_named_before_anything_runs(
    settings: Settings, tmp_path: Path, target: Target, measured: Measured
) -> None:
    run_and_store(settings, target)
    (tmp_path / "file").write_text("")
    away = settings.model_copy(update={"cache_dir": tmp_path / "file" / "cache"})
    with pytest.raises(DiskError, match=r"^The cache .*file/cache"):
        check_disks(away)
    gone = settings.model_copy(update={"db": f"sqlite:///{tmp_path / 'file' / 'monitor.db'}"})
    with pytest.raises(DiskError, match=r"^The database .*file"):
        check_disks(gone)
    assert len(measured.plans) == 1


def test_what_was_not_run_is_counted_in_words() -> None:
    run = replace(make_report(1).run, outcome=Outcome.NOT_RUN)
    assert RunOutcome(runs=(run,), settled=()).summary == "1 not run."
    assert RunOutcome(runs=(), settled=()).summary == "Nothing new."
