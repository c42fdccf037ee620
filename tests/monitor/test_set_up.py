"""How targets are stored, looked at and scheduled, and what a start tells while it stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.monitor.test_wiring import Recorder
from tests.runner.tiny_target import HEALTHY, TinyRepository
from tests.store.builders import TARGET, make_commit, make_report
from virnucpro_monitor.errors import (
    ConfigurationError,
    DatabaseAway,
    RepositoryError,
    StoreError,
)
from virnucpro_monitor.host import schedule
from virnucpro_monitor.host.lock import lock_path
from virnucpro_monitor.monitor import (
    release_demo,
    running,
    scheduling,
    sink,
    targets,
)
from virnucpro_monitor.monitor.running import Listener, RunOutcome
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.selection import Selection
from virnucpro_monitor.settings import Settings, load_settings
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.health_reader import load_heartbeats
from virnucpro_monitor.store.reader import load_commits, load_targets
from virnucpro_monitor.store.writer import Writer

POSTGRES = "postgresql://mon:S3cr3t-pw@127.0.0.1:1/mon"


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "0")
    repository.commit({"a": "1"}, "1")
    return repository


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, that is home, with nothing set."""
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "VIRNUCPRO_MONITOR_ALERTS_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stored_targets(settings: Settings) -> list[Target]:
    engine = open_engine(settings.database_url, read_only=True)
    try:
        return load_targets(engine)
    finally:
        engine.dispose()


def test_a_target_is_tried_at_its_last_commit_and_stored_as_it_was_tried(
    settings: Settings, tiny: TinyRepository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Recorder("trial")
    monkeypatch.setattr(targets, "check_target", tried)
    told: list[Any] = []
    said: list[str] = []
    wanted = Target(name="pack", location="tiny", adapter="hf-esm", branch="main")
    number = targets.store_target(
        settings, wanted, said.append, on_trial=told.append, oracle="none"
    )
    stored = replace(wanted, location=str(tiny.folder), adapter="hf-esm:oracle=none")
    assert (number, told, stored_targets(settings)) == (2, ["trial"], [stored])
    ((of, target, repository, commit, say), named) = tried.calls[0]
    assert (of, target, named) == (settings, stored, {})
    assert (commit.hash, commit.subject) == (tiny.git("rev-parse", "HEAD"), "1")
    assert (commit.position, commit.on_branch) == (1, True)
    assert repository.resolve("HEAD") == commit.hash
    say("A sentence.")
    assert said == [f"Created the database {settings.database_url}.", "A sentence."]
    with pytest.raises(ConfigurationError) as caught:
        targets.store_target(settings, replace(wanted, name="builtin"), said.append)
    assert str(caught.value) == "The name 'builtin' stands for this package's own model."
    # Without a trial, and with the package's own interface, nothing is tried.
    plain = replace(stored, adapter="seed-interface")
    targets.store_target(settings, stored, said.append)
    assert stored_targets(settings) == [stored]
    targets.store_target(settings, plain, said.append, on_trial=told.append)
    assert stored_targets(settings) == [plain]
    assert (len(tried.calls), told) == (1, ["trial"])


def test_what_is_looked_at_is_told_whole(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that has three files in its last commit, and leaves something out."""
    asked: list[Any] = []

    class Source:
        def resolve(self, name: str) -> str:
            asked.append(name)
            return {"v1": "b" * 40}[name]

        def files(self, full: str) -> list[str]:
            asked.append(full)
            return ["pack/a.py", "pack/b.py", "needs.txt"]

        def commits(self, hashes: list[str]) -> list[Any]:
            return [make_commit(int(one[0], 16)) for one in hashes]

        @contextmanager
        def checkout(self, full: str) -> Iterator[tuple[Path, str]]:
            asked.append(full)
            yield tmp_path / "out", "No submodules."

    source = Source()
    opened = Recorder(source)
    monkeypatch.setattr(targets, "open_source", opened)
    monkeypatch.setattr(targets, "branch_history", lambda one, of: ("a" * 40, "c" * 40))
    monkeypatch.setattr(targets, "with_own_adapter", lambda one, of, say: one)
    names = Recorder(
        SimpleNamespace(package="pack", loader_module="pack.a", collator_module="pack.b")
    )
    monkeypatch.setattr(targets, "find_names", names)
    target = Target(
        name="t", location="x", package="pack", paths=("pack", "*.txt"), requirements="needs.txt"
    )
    found = targets.look_at(settings, target)
    whole = targets.TargetFindings(
        num_commits=2, commit=make_commit(12), note="No submodules.",
        num_files=(("pack", 2), ("*.txt", 1)), package="pack",
        loader="pack.a.load_esm2_model", collator="pack.b.VarlenCollator",
    )  # fmt: skip
    assert found == whole
    assert opened.calls == [((target, settings.cache_folder), {})]
    assert names.calls == [((tmp_path / "out", "pack"), {})]
    assert asked == ["c" * 40, "c" * 40]
    own = replace(target, adapter="hf-esm")
    bare = replace(
        whole, commit=make_commit(11), package=None, loader=None, collator=None, adapter="hf-esm"
    )
    assert targets.look_at(settings, own, "v1") == bare
    assert len(names.calls) == 1
    for lacking, sentence in (
        ({"paths": ("pack", "docs")}, "The path 'docs' covers no file of cccccccccc."),
        ({"requirements": "gone.txt"}, "The requirement file 'gone.txt' is not in cccccccccc."),
    ):
        with pytest.raises(ConfigurationError) as caught:
            targets.look_at(settings, replace(target, **lacking))  # type: ignore[arg-type]
        assert str(caught.value) == sentence


def test_a_schedule_of_a_repository_that_is_not_stored_names_its_place(home: Path) -> None:
    (home / "virnucpro-monitor.toml").write_text(
        "[targets.mine]\nlocation = 'https://example.org/mine.git'\npackage = 'pack'\n"
        "[targets.bare]\nlocation = 'https://example.org/bare.git'\n"
    )
    settings = load_settings(db=f"sqlite:///{home / 'm.db'}")
    tail = [
        "--benchmark", "reach", "--model", "esm2_t33_650M_UR50D", "--weights", "official",
        "--device", "cuda:0", "--dtype", "float16", "--db", f"sqlite:///{home / 'm.db'}",
    ]  # fmt: skip
    job = scheduling.make_job(settings, "mine", "2h", None, None)
    place = ["--target", "https://example.org/mine.git", "--package", "pack"]
    assert list(job.arguments) == ["run", "--new", *place, *tail]
    assert (job.name, job.cron, job.calendar) == ("mine", "0 */2 * * *", "0/2:00")
    assert job.log == home / ".local/share/virnucpro-monitor/logs/mine.log"
    assert job.private == {}
    bare = scheduling.make_job(settings, "bare", "2h", "5 4 * * *", None)
    assert list(bare.arguments) == [
        "run", "--new", "--target", "https://example.org/bare.git", *tail,
    ]  # fmt: skip
    assert (bare.cron, bare.calendar) == ("5 4 * * *", None)
    create_database(settings.database_url)
    engine = open_engine(settings.database_url)
    kept = Target(name="mine", location="https://example.org/mine.git", package="pack")
    Writer(engine).save_target(kept)
    engine.dispose()
    job = scheduling.make_job(settings, "mine", "2h", None, None)
    assert list(job.arguments) == ["run", "--new", "--target", "mine", *tail]


def test_a_schedule_of_alerts_has_a_log_of_its_own_and_no_secret(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "stored_targets", lambda _: [])
    monkeypatch.setattr(running, "stored_targets", lambda _: [])
    alerts = home / "told.toml"
    alerts.touch()
    settings = load_settings(db=POSTGRES, alerts_file=alerts)
    job = scheduling.make_job(settings, None, "1d", None, None)
    config = home / ".config" / "virnucpro-monitor"
    assert job.private == {"db": POSTGRES}
    assert job.environment["VIRNUCPRO_MONITOR_ALERTS_FILE"] == str(alerts)
    assert job.environment["VIRNUCPRO_MONITOR_SETTINGS"] == str(
        config / "schedules" / "builtin.toml"
    )
    assert "VIRNUCPRO_MONITOR_DB" not in job.environment
    assert "--db" not in job.arguments
    assert (job.name, job.purpose) == (
        "builtin", "Validate new commits of builtin",
    )  # fmt: skip
    look = scheduling.make_alert_job(job)
    assert look == schedule.Job(
        name="builtin.alerts",
        arguments=("alerts", "check", "--target", "builtin"),
        log=job.log.with_name("builtin.alerts.log"),
        cron="*/15 * * * *",
        calendar="*:0/15",
        environment=job.environment,
        private={},
        purpose="Tell what has happened of builtin",
    )
    plain = replace(job, arguments=("run", "--db", "sqlite:////m.db", "--new"))
    with_db = scheduling.make_alert_job(plain)
    assert with_db is not None
    assert with_db.arguments[-2:] == ("--db", "sqlite:////m.db")
    alerts.unlink()
    assert scheduling.make_alert_job(job) is None
    assert scheduling.make_alert_job(replace(job, environment={})) is None


def test_the_next_start_is_read_from_the_users_own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = f"0 4 * * * echo {schedule.MARKER}mine\n15 3 * * * echo {schedule.MARKER}other\n"
    monkeypatch.setattr(schedule, "read_crontab", lambda: table)
    found = scheduling.find_next_start("other")
    assert (found.fields, found.problem) == ("15 3 * * *", "")
    assert found.at is not None
    assert (found.at.hour, found.at.minute) == (3, 15)
    assert scheduling.find_next_start("none") == scheduling.NextStart("", None, "")

    def fail() -> str:
        raise ConfigurationError("There is no cron.")

    monkeypatch.setattr(schedule, "read_crontab", fail)
    assert scheduling.find_next_start("other") == scheduling.NextStart(
        "", None, "There is no cron."
    )


def test_a_branch_that_was_rewritten_is_told_and_stored(settings: Settings) -> None:
    said: list[str] = []
    old = tuple(make_commit(number) for number in range(4))
    new = (*old[:2], make_commit(12, position=2, parents=(old[1].hash,)))
    with sink.Sink(settings.database_url, TARGET, say=said.append) as place:
        place.begin(Selection(old[1:], old))
        assert load_commits(place.engine, "sample", on_branch=True) == list(old[1:])
        place.begin(Selection(new[2:], new))
        assert load_commits(place.engine, "sample", on_branch=True) == [old[1], new[2]]
    assert said == [
        f"Created the database {settings.database_url}.",
        "The branch was rewritten: 2 commits are no longer on it; their results are kept.",
    ]


def test_a_runner_that_cannot_tell_goes_on_and_keeps_its_own_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat waits for nobody: what was measured is told when it is stored."""
    create_database(settings.database_url)
    asked: list[Any] = []
    beats: list[Any] = []
    problem: list[Exception] = [DatabaseAway("The database is away.")]
    make = Writer

    def writer(*given: Any, **options: Any) -> Writer:
        asked.append(options)
        return make(*given, **options)

    def beat(_: Writer, *words: Any, **numbers: Any) -> None:
        beats.append((words[1:], numbers))
        raise problem[0]

    monkeypatch.setattr(sink, "Writer", writer)
    monkeypatch.setattr(Writer, "heartbeat", beat)
    say = Recorder()
    commits = (make_commit(0), make_commit(1))
    hosts: Any = ("where the cluster measures",)

    def start() -> None:
        with sink.Sink(
            settings.database_url, TARGET, say=say, heartbeat=True, patience_s=7.0
        ) as place:
            asked.clear()
            place.begin(Selection(commits, commits))
            assert asked == [{"patience_s": 7.0, "on_wait": say}, {"patience_s": 0}]
            place.note_hosts(hosts)
            assert place.save(make_report(0)) == 1
            problem[0] = StoreError("The disk is full.")
            raise RepositoryError("The repository has gone: https://me:pa55@example.org/a.git")

    with pytest.raises(RepositoryError, match="The repository has gone"):
        start()
    gone = "The repository has gone: https://me:***@example.org/a.git"
    assert beats == [
        (
            ("sample", "running", "2 commits to cover"),
            {"num_queued": 2, "exit_code": None, "cluster": None},
        ),
        (
            ("sample", "running", "0000000000 passed"),
            {"num_queued": 1, "exit_code": None, "cluster": hosts},
        ),
        (("sample", "finished", gone), {"num_queued": 1, "exit_code": 1, "cluster": hosts}),
    ]


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (KeyboardInterrupt(), sink.INTERRUPTED, 130),
        (GeneratorExit(), sink.INTERRUPTED, 130),
        (ValueError("odd"), "ValueError('odd')", 130),
        (RepositoryError("It has gone."), "It has gone.", 1),
    ],
)
def test_how_a_runner_ended_is_its_last_word(
    error: BaseException, message: str, code: int, settings: Settings
) -> None:
    create_database(settings.database_url)
    with (
        pytest.raises(type(error)),
        sink.Sink(settings.database_url, TARGET, say=pytest.fail, heartbeat=True),
    ):
        raise error
    engine = open_engine(settings.database_url, read_only=True)
    (last,) = load_heartbeats(engine)
    engine.dispose()
    assert (last.state, last.message, last.exit_code) == ("finished", message, code)


def test_hosts_that_share_a_server_ask_for_a_lease_within_the_hosts_own_lock(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def stand_in(what: str) -> Any:
        @contextmanager
        def hold(*given: Any, **named: Any) -> Iterator[None]:
            asked.append((what, given, named))
            yield
            asked.append((what, "ends"))

        return hold

    for name in ("lease", "file_lock"):
        monkeypatch.setattr(sink, name, stand_in(name))
    monkeypatch.setattr(sink, "new_owner", lambda: "me")
    release = Recorder()
    made = Recorder(SimpleNamespace(release_lease=release))
    monkeypatch.setattr(sink, "Writer", made)
    place: Any = SimpleNamespace(
        target=TARGET, engine="engine", writer=SimpleNamespace(acquire_lease="acquire")
    )
    waiting = {"wait_s": 3.0, "on_wait": print}
    settings = load_settings(db=POSTGRES)
    with sink.holding_locks(settings, place, wait_s=3.0, on_wait=print):
        asked.append("held")
    path = lock_path(POSTGRES, "sample")
    first, (_, (name, acquire, let_go), named), held, *ends = asked
    assert first == ("file_lock", (path,), waiting)
    assert (name, acquire, named) == ("run sample", "acquire", {"owner": "me", **waiting})
    assert (held, ends) == ("held", [("lease", "ends"), ("file_lock", "ends")])
    let_go("run sample", "me")
    assert made.calls == [(("engine",), {"patience_s": 0})]
    assert release.calls == [(("run sample", "me"), {})]

    def away(*_: Any) -> None:
        raise DatabaseAway("It is away.")

    made.result.release_lease = away
    let_go("run sample", "me")  # it runs out
    asked.clear()
    settings = load_settings(db=f"sqlite:///{home / 'm.db'}")
    with sink.holding_locks(settings, place, wait_s=3.0, on_wait=print):
        asked.append("held")
    path = lock_path(settings.database_url, "sample")
    assert asked == [("file_lock", (path,), waiting), "held", ("file_lock", "ends")]


def test_a_demo_says_what_it_fetches_to_who_listens(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = release_demo.ReleaseDemo(package="tool", targets={"a": ("hf-esm", ("1.0",))})
    monkeypatch.setattr(release_demo, "download", Recorder())
    monkeypatch.setattr(release_demo, "run_and_store", Recorder(RunOutcome((), ())))
    said: list[str] = []
    release_demo.run_releases(settings, demo, Listener(on_message=said.append))
    assert said == [f"Fetching tool 1.0 into {settings.cache_folder / 'demo' / 'wheels'}."]
