"""What starts, searches and checks hand to those they call: whole plans, locks and callbacks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.test_wiring import Recorder
from tests.runner.tiny_target import HEALTHY, TinyRepository
from tests.store.builders import BENCHMARK, CONFIGURATION, make_gate, make_report
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.monitor import bisecting, checking, running
from virnucpro_monitor.monitor.bisecting import BisectOptions, as_measured_last, bisect_and_store
from virnucpro_monitor.monitor.checking import CheckOptions, check_and_store
from virnucpro_monitor.monitor.running import Listener, RunOptions, make_plan, stream_runs
from virnucpro_monitor.monitor.sink import Sink
from virnucpro_monitor.records import (
    Bisection,
    Commit,
    Failure,
    Outcome,
    PolicyRule,
    Request,
    Run,
    RunReport,
    Target,
)
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.selection import Selection
from virnucpro_monitor.settings import Settings, load_settings
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.notes_reader import load_bisections
from virnucpro_monitor.store.reader import load_commits, load_runs
from virnucpro_monitor.store.writer import Writer
from virnucpro_monitor.validation.policy import with_policy
from virnucpro_monitor.validation.protocol import load_protocol

GOOD, BAD = (1.0, 1.0, 1.0), (0.9, 1.0, 1.0)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    """Four commits on main with the subjects 0 to 3."""
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "0")
    for number in range(1, 4):
        repository.commit({"a": str(number)}, str(number))
    return repository


@pytest.fixture
def target(tiny: TinyRepository) -> Target:
    return Target(name="tiny", location=str(tiny.folder))


@pytest.fixture
def line(tiny: TinyRepository) -> list[str]:
    return tiny.git("rev-list", "--reverse", "HEAD").split()


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the locks of starts and searches are asked with."""
    asked: list[Any] = []

    @contextmanager
    def hold(*given: Any, **named: Any) -> Iterator[None]:
        asked.append((given, named))
        yield

    for module in (running, bisecting):
        monkeypatch.setattr(module, "holding_locks", hold)
    return asked


def test_a_plan_is_what_settings_options_and_policy_say(
    settings: Settings, target: Target, line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings.model_copy(
        update={
            "benchmark": ["seed", "reach", "seed"], "model": "esm2_t12_35M_UR50D",
            "weights": "synthetic", "device": "cuda:1", "dtype": "bfloat16", "backend": "sdpa",
            "token_budget": 99, "protocol": "1", "timeout_s": 7.0, "memory_limit_gib": 2.5,
            "network": True, "confine": False, "workers": 3, "engine": "dask",
            "scheduler": "tcp://host:1", "keep_embeddings": True,
        }
    )  # fmt: skip
    create_database(chosen.database_url)
    engine = open_engine(chosen.database_url)
    Writer(engine).save_target(target)
    rule = PolicyRule(
        target="tiny", gate="gain", who="Ada", why="known",
        created_at=make_report(0).run.started_at,
    )  # fmt: skip
    Writer(engine).set_policy(rule)
    engine.dispose()
    monkeypatch.setattr(running, "secret_places", lambda asked: (asked.cache_folder / "secret",))
    options = RunOptions(
        revisions=["HEAD~1", "HEAD"], order="newest", max_time_s=90.0, force=True,
        retry_errors=True, wait_s=1.0, gpu_wait_s=5.0, probes=False,
    )  # fmt: skip
    plan, selection = make_plan(chosen, target, [], options)
    assert [commit.hash for commit in selection.commits] == line[2:]
    assert [commit.hash for commit in selection.branch] == line
    assert plan.protocol == with_policy(load_protocol("1"), [rule])
    assert "gain" in plan.protocol.content["policy"]
    assert plan == RunPlan(
        target=target,
        repository=plan.repository,
        commits=selection.commits,
        benchmarks=(load_benchmark("seed"), load_benchmark("reach")),
        request=Request(
            model="esm2_t12_35M_UR50D", weights="synthetic", device="cuda:1", dtype="bfloat16",
            backend="sdpa", token_budget=99,
        ),
        protocol=plan.protocol,
        cache_folder=settings.cache_folder,
        timeout_s=7.0,
        memory_limit_gib=2.5,
        order="newest",
        force=True,
        retry_errors=True,
        max_minutes=1.5,
        gpu_wait_s=5.0,
        probes=False,
        keep_embeddings=True,
        workers=3,
        engine="dask",
        scheduler="tcp://host:1",
        network=True,
        confine=False,
        hidden=(settings.cache_folder / "secret",),
    )  # fmt: skip
    assert plan.repository is not None
    assert plan.repository.resolve("HEAD") == line[-1]


def test_a_start_hands_on_its_listener_its_locks_and_its_branch(
    settings: Settings, target: Target, line: list[str], locks: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    given: dict[str, Any] = {}
    opened: list[Any] = []
    open_source = running.open_source

    def run_commits(plan: RunPlan, **callbacks: Any) -> Iterator[RunReport]:
        given.update(callbacks)
        for commit in plan.commits:
            yield make_report(target=plan.target, commit=commit)

    def open_and_note(*place: Any, **options: Any) -> Any:
        opened.append((place, options))
        return open_source(*place, **options)

    monkeypatch.setattr(running, "run_commits", run_commits)
    monkeypatch.setattr(running, "open_source", open_and_note)
    listener = Listener(on_progress=Recorder(), on_message=Recorder(), on_run=Recorder())
    options = RunOptions(everything=True, wait_s=4.0)
    pool = WorkerPool()
    stream = stream_runs(settings, target, options, listener, pool)
    first = next(stream)
    engine = open_engine(settings.database_url, read_only=True)
    # The branch is there with the first result, however long the others take.
    assert [commit.hash for commit in load_commits(engine, "tiny", on_branch=True)] == line
    assert load_runs(engine) == [first]
    engine.dispose()
    stream.close()
    assert given.pop("known") == []
    given["on_settled"](first)
    (((of, sink), named),) = locks
    assert {name: one for name, one in given.items() if name != "on_settled"} == {
        "on_progress": listener.on_progress, "on_message": listener.on_message,
        "on_hosts": sink.note_hosts, "pool": pool,
    }  # fmt: skip
    assert (of, sink.target.name) == (settings, "tiny")
    assert named == {"wait_s": 4.0, "on_wait": listener.on_message}
    place = (target, settings.cache_folder)
    # An adapter is looked for in what is here: only the plan fetches.
    assert opened == [(place, {"fetch": False}), (place, {})]


@pytest.fixture
def search(
    settings: Settings, target: Target, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Bisection, RunPlan, dict[str, Any], list[Selection]]]:
    """Search with reports in place of measuring, by subject: similarities, or none of it."""

    def call(
        results: dict[str, Sequence[Sequence[float]]], good: str, bad: str,
        options: BisectOptions, listener: Listener, bridge: str | None = None,
    ) -> Any:  # fmt: skip
        seen: list[Any] = []
        begun: list[Selection] = []

        class Runner:
            def __init__(self, plan: RunPlan, **callbacks: Any) -> None:
                seen.extend((plan, callbacks))

            def __enter__(self) -> "Runner":
                return self

            def __exit__(self, *_: object) -> None:
                return None

            def cover(self, commits: Sequence[Commit]) -> Iterator[RunReport]:
                for commit in commits:
                    if bridge is not None:
                        yield of(Commit(hash=bridge, subject="bridge"), BAD)
                    for similarities in results[commit.subject]:
                        yield of(commit, similarities)

        def of(commit: Commit, similarities: Sequence[float]) -> RunReport:
            gates = (make_gate("seed", similarities == GOOD),)
            return make_report(
                similarities=similarities, target=target, commit=commit, gates=gates,
                duration_s=10.0,
            )  # fmt: skip

        monkeypatch.setattr(bisecting, "CommitRunner", Runner)
        begin = Sink.begin

        def begin_and_note(self: Sink, selection: Selection) -> None:
            begun.append(selection)
            begin(self, selection)

        monkeypatch.setattr(Sink, "begin", begin_and_note)
        found = bisect_and_store(settings, target, good, bad, options, listener)
        return (found, *seen, begun)

    return call


def test_a_search_hands_on_its_listener_its_options_and_its_line(
    search: Callable[..., Any], settings: Settings, target: Target, line: list[str],
    locks: list[Any],
) -> None:  # fmt: skip
    said: list[str] = []
    told: list[Run] = []
    listener = Listener(on_progress=Recorder(), on_message=said.append, on_run=told.append)
    options = BisectOptions(max_time_s=60.0, retry_errors=True, wait_s=3.0, gpu_wait_s=5.0)
    results = {"1": [GOOD], "2": [BAD], "3": [BAD]}
    found, plan, callbacks, (begun,) = search(results, "HEAD~2", "HEAD", options, listener)
    assert found.first_bad == line[2]
    assert found.conclusion.splitlines() == [
        f"{line[2]} is the first bad commit", f"commit {line[2]}", "Author: A. Author",
        "Date:   2026-05-28 20:28:40+00:00", "", "    2",
    ]  # fmt: skip
    assert (plan.commits, plan.repository is not None) == ((), True)
    assert (plan.max_minutes, plan.retry_errors, plan.gpu_wait_s) == (None, True, 5.0)
    assert callbacks.pop("known") == []
    assert callbacks.pop("on_settled") is not None
    assert callbacks == {"on_progress": listener.on_progress, "on_message": listener.on_message}
    assert [commit.hash for commit in begun.commits] == line[1:]
    assert [commit.hash for commit in begun.branch] == line
    (((of, sink), named),) = locks
    assert (of, sink.target) == (settings, target)
    assert named == {"wait_s": 3.0, "on_wait": listener.on_message}
    engine = open_engine(settings.database_url, read_only=True)
    stored = load_runs(engine)
    (kept,) = load_bisections(engine, "tiny")
    engine.dispose()
    assert sorted(told, key=lambda run: run.row_id) == sorted(stored, key=lambda run: run.row_id)
    assert kept.steps == found.steps
    assert [(step.step, step.commit, step.verdict, step.reused) for step in kept.steps] == [
        (1, line[1], "good", False), (2, line[3], "bad", False), (3, line[2], "bad", False),
    ]  # fmt: skip
    assert [step.run_id for step in kept.steps] == [run.id for run in told]
    assert (kept.target, kept.good, kept.bad, kept.benchmark, kept.gate) == (
        "tiny", line[1], line[3], settings.benchmark[0], None,
    )  # fmt: skip
    assert said[1:] == [
        f"{line[1][:10]} is good: 1",
        f"{line[3][:10]} is bad: 3",
        f"{line[2][:10]} is bad: 2",
        "1 commit left to suspect.",
    ]


def test_what_flips_or_gives_no_run_stands_on_neither_side(
    search: Callable[..., Any], line: list[str], locks: list[Any]
) -> None:
    """And a bridge's run, of another commit, is no verdict on the commit that is asked for."""
    said: list[str] = []
    results = {"0": [GOOD], "1": [GOOD, BAD], "2": [], "3": [BAD]}
    found, *_ = search(
        results, "HEAD~3", "HEAD", BisectOptions(), Listener(on_message=said.append), "f" * 40
    )
    verdicts = {step.commit: (step.verdict, step.reused) for step in found.steps}
    assert verdicts == {
        line[0]: ("good", False), line[1]: ("skip", False), line[2]: ("skip", True),
        line[3]: ("bad", False),
    }  # fmt: skip
    assert {step.commit: step.run_id is None for step in found.steps}[line[2]] is True
    assert f"{line[1][:10]} cannot be judged: 1" in said
    assert f"{line[2][:10]} cannot be judged (stored): 2" in said
    assert found.first_bad is None


def test_a_search_on_a_processor_is_repeated_there(settings: Settings, target: Target) -> None:
    """Where nobody names a device: that of the newest run, on the card of the settings."""
    create_database(settings.database_url)
    engine = open_engine(settings.database_url)
    plain = load_settings(db=settings.db)
    for number, device, expected in ((1, "cpu", "cpu"), (2, "cuda", plain.device)):
        used = replace(CONFIGURATION, device=device)
        Writer(engine).save_run(make_report(number, target=target, configuration=used))
        filled = as_measured_last(plain, target)
        assert filled.device == expected
        assert filled.benchmark == ["seed"]
    engine.dispose()


def test_a_failing_head_is_measured_again_on_the_sets_that_fail(
    settings: Settings, target: Target, line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = Failure(kind="exception", message="m", traceback="t")
    second = replace(BENCHMARK, name="second", digest="e" * 64)

    def measure(plan: RunPlan, **_: Any) -> Iterator[RunReport]:
        for commit in plan.commits:
            yield make_report(target=plan.target, commit=commit, similarities=GOOD)
            fails = commit.hash == line[3]
            yield make_report(
                target=plan.target, commit=commit, similarities=BAD if fails else GOOD,
                benchmark=second, failure=failure if fails else None,
            )  # fmt: skip

    monkeypatch.setattr(running, "run_commits", measure)
    started: list[Any] = []
    run_and_store = checking.run_and_store

    def start(*given: Any) -> Any:
        started.append(given)
        if len(started) > 1:
            return running.RunOutcome((), ())
        return run_and_store(*given)

    monkeypatch.setattr(checking, "run_and_store", start)
    said: list[str] = []
    listener = Listener(on_message=said.append)
    two = settings.model_copy(update={"benchmark": ["seed", "reach"]})
    options = CheckOptions(base="HEAD~1", run=RunOptions(probes=False, wait_s=2.0), confirm=1)
    pool = WorkerPool()
    found = check_and_store(two, target, options, listener, pool)
    on_main = replace(target, branch="main")
    covering = RunOptions(probes=False, wait_s=2.0, revisions=line[2:])
    assert started[0] == (two, on_main, covering, listener, pool)
    again, *rest = started[1]
    assert rest == [on_main, replace(covering, revisions=[line[3]], force=True), listener, pool]
    assert again == two.model_copy(update={"benchmark": ["second@1"]})
    assert len(started) == 2
    assert f"{line[3][:10]} fails: it is measured again to be sure." in said
    assert (found.target, found.only_new) == (on_main, False)
    assert found.base is not None
    assert (found.base.hash, found.head.hash) == (line[2], line[3])
    by_set = {one.run.benchmark: one for one in found.results}
    assert set(by_set) == {"seed", "second"}
    for name, one in by_set.items():
        assert one.comparison is not None
        assert [
            (side.run.commit.hash, side.run.benchmark)
            for side in (one.comparison.base, one.comparison.head)
        ] == [(line[2], name), (line[3], name)]
        assert [result.sequence_id for result in one.sequences] == ["short_1", "short_2", "short_3"]
        assert one.attempts == (one.run.outcome,)
        assert one.thresholds.strict == 0.999
    assert (by_set["seed"].failure, by_set["second"].failure) == (None, failure)
    assert by_set["second"].run.outcome is Outcome.FAILED
