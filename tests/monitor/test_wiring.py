"""What the monitor passes on to others: each argument, at databases in which a wrong one shows."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.store.builders import (
    BENCHMARK,
    CONFIGURATION,
    START,
    TARGET,
    make_commit,
    make_report,
    make_run,
)
from virnucpro_monitor.errors import ProtocolError, WeightsError
from virnucpro_monitor.monitor import (
    comparing,
    databases,
    hiding,
    histories,
    judging,
    naming,
    policies,
    questions,
    reading,
    release_demo,
    scheduling,
    sink,
    stored_runs,
    targets,
    trying,
    validating,
)
from virnucpro_monitor.monitor.bisecting import as_measured_last
from virnucpro_monitor.records import Judgement, Outcome, Run, RunMark
from virnucpro_monitor.runner.pip import InstallerError
from virnucpro_monitor.runner.selection import Selection
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import pruning
from virnucpro_monitor.store.engine import Engine, create_database, open_engine
from virnucpro_monitor.store.health_reader import load_heartbeats
from virnucpro_monitor.store.writer import Writer
from virnucpro_monitor.validation.selftest_material import SELFTEST_TOKEN_BUDGET

BAD = (0.99, 1.0, 0.9999)
OTHER = replace(TARGET, name="other", location="https://example.org/other.git")
SECOND = replace(BENCHMARK, name="second", digest="c" * 64)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    return url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """Two targets with two benchmark sets each, of one commit; ids 1 to 4."""
    engine = open_engine(url)
    for target in (TARGET, OTHER):
        for benchmark in (BENCHMARK, SECOND):
            Writer(engine).save_run(
                make_report(17, target=target, benchmark=benchmark,
                            documents={"oracle": {"kind": f"of {target.name}"}})
            )  # fmt: skip
    yield engine
    engine.dispose()


class Recorder:
    """Stands for a function: keeps what it is given, and returns the same each time."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append((arguments, named))
        return self.result


def test_what_is_judged_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []
    judgement: Any = object()

    def judge(_: Engine, run: Run, protocol: Any) -> Judgement:
        assert protocol == "protocol"
        asked.append(run.id)
        if run.id == 1:
            raise ProtocolError("no limits")
        return judgement  # type: ignore[no-any-return]

    monkeypatch.setattr(judging, "judge_run", judge)
    kept = Recorder()
    monkeypatch.setattr(Writer, "save_judgement", kept)

    def again(text: str, **options: Any) -> judging.Rejudged:
        asked.clear()
        return judging.judge_again(engine, text, "protocol", **options)  # type: ignore[arg-type]

    nothing = {"outcome": Outcome.NOT_RUN, "figures": None, "gates": ()}
    Writer(engine).save_run(make_report(18, (), culprit=None, **nothing))  # holds no measures
    found = again("all", store=False)
    assert sorted(asked, key=str) == [1, 2, 3, 4]
    assert [(run.id, why) for run, why in found.refused] == [(1, "no limits")]
    assert sorted(run.id or 0 for run, _ in found.judged) == [2, 3, 4]
    assert kept.calls == []
    for options, ids in (
        ({"target": "other"}, [3, 4]),
        ({"benchmark": "second"}, [2, 4]),
        ({"target": OTHER.location, "benchmark": "second@1"}, [4]),
    ):
        again("all", **options)
        assert sorted(one or 0 for one in asked) == ids
    assert kept.calls[-1] == ((judgement, "protocol"), {})
    for benchmark, run_id in (("seed", 3), ("second", 4)):
        again(make_commit(17).hash, target="other", benchmark=benchmark)
        assert asked == [run_id]
    with pytest.raises(ProtocolError, match="no limits"):
        again("1")


def test_a_run_is_loaded_whole_and_of_the_target_that_is_meant(engine: Engine) -> None:
    for benchmark, run_id in (("seed", 3), ("second", 4)):
        found = stored_runs.load_details(
            engine, make_commit(17).hash, target="other", benchmark=benchmark
        )
        assert (found.run.id, found.measured.id, found.target.name) == (run_id, run_id, "other")
        assert found.oracle == "of other"
        assert [one.sequence_id for one in found.sequences] == ["short_1", "short_2", "short_3"]
        assert found.attempts == (found.run.outcome,)
        assert found.failure is None
    # Four digits may be those of a hash; three are a run's number and nothing else.
    assert naming.find_run(engine, "0011", target="other", benchmark="seed")[0].id == 3
    with pytest.raises(Exception, match=r"^There is no run 11 in the database\.$"):
        naming.find_run(engine, "011", target="other")


def test_two_runs_are_compared_by_their_own_embeddings_and_noise(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = {"noise": {"reordered": 1e-5}}
    ids = [Writer(engine).save_run(make_report(20, documents=noisy)),
           Writer(engine).save_run(make_report(21, BAD, documents=noisy))]  # fmt: skip
    base, head = (reading.load_run(engine, one) for one in ids)
    compared = Recorder("moved")
    monkeypatch.setattr(comparing, "compare_embeddings", compared)
    monkeypatch.setattr(comparing, "_embeddings_of", lambda _, run: f"of {run.id}")
    moved: Any = comparing.compare_pair(engine, base, head).moved
    assert moved == "moved"
    names = ["short_1", "short_2", "short_3"]
    apart = [{"reordered": one.relative_l2} for one in reading.load_sequences(engine, base)
             if one.relative_l2 is not None]  # fmt: skip
    assert compared.calls == [
        ((f"of {ids[0]}", names, f"of {ids[1]}", names, [noisy["noise"], *apart]), {})
    ]
    for other in (
        make_report(22, configuration=replace(CONFIGURATION, weights_digest="d" * 64)),
        make_report(23, benchmark=replace(BENCHMARK, version=2, digest="d" * 64)),
    ):
        different = reading.load_run(engine, Writer(engine).save_run(other))
        assert comparing.compare_pair(engine, base, different).moved == ()
    assert len(compared.calls) == 1


def test_what_nobody_has_set_is_taken_from_the_targets_own_newest_run(
    engine: Engine, url: str
) -> None:
    narrow = replace(CONFIGURATION, token_budget=512, dtype="bfloat16")
    Writer(engine).save_run(make_report(18, target=OTHER, benchmark=SECOND, configuration=narrow))
    filled = as_measured_last(load_settings(db=url), OTHER)
    assert (filled.benchmark, filled.token_budget, filled.dtype) == (["second"], 512, "bfloat16")
    filled = as_measured_last(load_settings(db=url, token_budget=99), OTHER)
    assert (filled.token_budget, filled.dtype) == (99, "bfloat16")


def test_policies_are_listed_of_one_target_and_with_those_taken_back_if_asked_for(
    engine: Engine,
) -> None:
    given = policies.let_inform(engine, OTHER.location, "gain", who=" Ada ", why=" known ")
    assert (given.target, given.who, given.why) == ("other", "Ada", "known")

    def listed(target: str, **options: bool) -> list[str]:
        return [rule.gate for rule in policies.list_policy(engine, target, **options)]

    assert (listed("other"), listed("sample")) == (["gain"], [])
    policies.let_fail(engine, "other", "gain", who="Ben")
    assert (listed("other"), listed("other", withdrawn=True)) == ([], ["gain"])
    with pytest.raises(Exception, match=r"^No policy of other lets the gate 'gain' inform\.$"):
        policies.let_fail(engine, "other", "gain", who="Ben")


def test_a_matrix_keeps_what_is_installed_in_all_of_it() -> None:
    one, two = targets.in_environments(TARGET, ["einops==0.8"], ["torch=2.10.0,2.14.1"])
    for made, torch in ((one, "2.10.0"), (two, "2.14.1")):
        assert "einops==0.8" in str(made)
        assert f"torch=={torch}" in str(made)


def test_a_heartbeat_says_what_is_done_and_how_much_is_left(url: str) -> None:
    report = make_report(0)
    commits = (report.run.commit, make_commit(1))
    beats: list[tuple[Any, ...]] = []

    def beat() -> None:
        opened = open_engine(url)
        (one,) = load_heartbeats(opened)
        beats.append((one.target, one.state, one.message, one.num_queued, one.exit_code))
        opened.dispose()

    with sink.Sink(url, TARGET, say=pytest.fail, heartbeat=True) as place:
        place.begin(Selection(commits, commits))
        beat()
        place.save(report)
        beat()
        place.end(2, "One failed.")
        beat()
    assert beats == [
        ("sample", "running", "2 commits to cover", 2, None),
        ("sample", "running", "0000000000 passed", 1, None),
        ("sample", "finished", "One failed.", 0, 2),
    ]


def test_a_writer_waits_only_where_nobody_waits_before_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, Any]] = []
    make = Writer

    def writer(engine: Engine, **options: Any) -> Writer:
        asked.append((isinstance(engine, Engine), options.get("patience_s")))
        return make(engine, **options)

    monkeypatch.setattr(sink, "Writer", writer)
    said: list[str] = []
    with sink.Sink(url, TARGET, say=said.append, patience_s=7.0) as place:
        asked.clear()
        place.save(make_report(0))
        assert asked == [(True, 7.0)]
        place._spool.keep(make_report(1))
        asked.clear()
        place.save(make_report(2))
        assert asked == [(True, 0)]
        assert [run.commit.position for run in place.known_runs()] == [0, 1, 2]
    assert said == ["The database is back: 1 waiting results were stored."]


def test_runs_deleted_and_regressions_looked_for_are_those_asked_for(
    engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned, looked = Recorder("pruned"), Recorder("found")
    monkeypatch.setattr(pruning, "prune", pruned)
    for apply in (False, True):
        databases.prune_database(url, START, apply=apply, embeddings=not apply)
    assert [(*call[0][1:], call[1]["apply"], call[1]["embeddings"]) for call in pruned.calls] == [
        (START, False, True), (START, True, False)
    ]  # fmt: skip
    monkeypatch.setattr(questions, "find_regressions", looked)
    questions.load_regressions(engine, target="other", benchmark="second@1")
    ((runs, incidents), bounds) = looked.calls[0]
    assert ([run.id for run in runs], incidents) == ([4], [])
    assert bounds == {"since": None, "until": None}


def mark(place: int | None) -> RunMark:
    return RunMark(
        target="t", benchmark="b", benchmark_version=1, configuration="c", commit=str(place),
        position=place, outcome=make_run(0).outcome, inherited_outcome=None, min_similarity=1.0,
    )  # fmt: skip


def test_marks_and_runs_of_a_series_stand_in_the_historys_order(engine: Engine) -> None:
    merged = histories._merged([[mark(0), mark(3)], [mark(None), mark(1)]])
    assert [one.position for one in merged] == [None, 0, 1, 3]
    many = histories._merged(
        [[mark(place) for place in range(30)], [mark(40 + p) for p in range(20)]]
    )
    assert [one.position for one in many] == [*range(10, 30), *range(40, 60)]
    off = make_run(5, commit=make_commit(5, position=None))
    assert histories._history_place(off) == (-1, off.started_at.timestamp())
    assert histories._history_place(make_run(5))[0] == 5
    for number in range(12):
        Writer(engine).save_run(make_report(20 + number))
    recent = histories.recent_runs(engine)
    assert [run.commit.position for run in recent[:10]] == list(range(31, 21, -1))
    assert len(recent) == 13, "ten of one series, and one of each of the others"
    assert histories.recent_runs(engine, 2) == recent[:2]
    # The other set of the same target was last measured at 17, twelve stored commits before.
    behind = {(one.latest.target, one.latest.benchmark): one.commits_behind
              for one in histories.list_series(engine)}  # fmt: skip
    assert behind == {
        (TARGET.name, "seed"): 0, (TARGET.name, "second"): 12,
        (OTHER.name, "seed"): 0, (OTHER.name, "second"): 0,
    }  # fmt: skip


def test_places_that_a_target_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("VIRNUCPRO_MONITOR_ALERTS_FILE", str(tmp_path / "told.toml"))
    places = hiding.secret_places(load_settings(db=f"sqlite:///{tmp_path / 'm.db'}"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    by_default = hiding.secret_places(load_settings(db="postgresql://host/name"))
    home = tmp_path / "home"
    for one in (".ssh", ".netrc", ".aws", ".config/gcloud"):
        assert home / one in places
    for end in ("", "-wal", "-shm", "-journal"):
        assert tmp_path / f"m.db{end}" in places
        assert tmp_path / f"m.db{end}" not in by_default
    config = [one for one in places if "xdg_config_home" in one.parts]
    spool = [one for one in places if "xdg_data_home" in one.parts]
    assert config[0].parent == tmp_path / "xdg_config_home"
    assert [one.name for one in spool] == ["spool"]
    assert tmp_path / "told.toml" in places
    own = home / ".config" / config[0].name
    assert own in by_default


def test_the_self_test_and_its_oracle_say_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = SimpleNamespace(path=tmp_path / "w.pt", digest="d")
    load, prepare = Recorder("subject"), Recorder("oracle")
    for name, stand_in in (
        ("resolve_weights", Recorder(weights)), ("load_builtin", load), ("prepare_oracle", prepare),
    ):  # fmt: skip
        monkeypatch.setattr(validating, name, stand_in)
    ran = Recorder("report")
    monkeypatch.setattr(validating, "run_selftest", ran)
    seen: list[tuple[str, int, int]] = []
    settings = load_settings(cache_dir=tmp_path, device="cpu", dtype="float32", token_budget=99)
    told: Any = validating.selftest_builtin(
        settings, num_healthy_runs=3, on_progress=lambda *one: seen.append(one)
    )
    assert told == "report"
    ((subject, benchmark, oracle, _), named) = ran.calls[0]
    assert (subject, oracle, named["num_healthy_runs"]) == ("subject", "oracle", 3)
    assert named["judges"] is None
    rows: list[Any] = []
    validating.selftest_builtin(settings, num_healthy_runs=3, on_row=lambda *one: rows.append(one))
    scale = SimpleNamespace(name="scale")
    ran.calls[1][1]["on_row"](1, 9, scale)
    assert rows == [(1, 9, scale)]
    named["on_row"](2, 9, scale)
    ((model, given, on, *_), asked) = prepare.calls[0]
    assert (model, given, on) == (settings.model, weights, benchmark)
    assert (asked["cache_folder"], asked["device"]) == (settings.cache_folder, "cpu")
    asked["on_progress"](1, 4)
    assert seen == [("scale", 2, 9), ("FP32 oracle", 1, 4)]
    assert load.calls[:1] == [
        ((settings.model,), {
            "weights": weights.path, "device": "cpu", "dtype": "float32",
            "backend": settings.backend, "token_budget": SELFTEST_TOKEN_BUDGET,
        })
    ]  # fmt: skip


def test_an_oracle_that_is_a_file_is_read_before_a_trial(tmp_path: Path) -> None:
    trying.check_file_of("hf-esm")
    place = tmp_path / "none.npz"
    with pytest.raises(WeightsError, match=r"none\.npz"):
        trying.check_file_of(f"hf-esm:oracle=file:{place}")


def test_releases_are_fetched_once_and_found_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = release_demo.ReleaseDemo(
        package="tool", targets={"a": ("hf-esm", ("1.0", "2.0")), "b": ("hf-esm", ("2.0",))}
    )
    fetch = Recorder()
    monkeypatch.setattr(release_demo, "download", fetch)
    said: list[str] = []
    folder = tmp_path / "deep" / "wheels"
    for _ in range(2):
        release_demo._fetch(folder, demo, said.append)
    assert fetch.calls == [(("tool==1.0", folder), {}), (("tool==2.0", folder), {})]
    assert said == [f"Fetching tool {one} into {folder}." for one in ("1.0", "2.0")]

    def fail(*_: Any) -> None:
        raise InstallerError("no network")

    monkeypatch.setattr(release_demo, "download", fail)
    lacking = replace(demo, targets={"a": ("hf-esm", ("2.0", "3.0"))})
    with pytest.raises(Exception, match=r"^The wheels of tool 3\.0 are not in .*\(no network\)"):
        release_demo._fetch(folder, lacking, said.append)
    monkeypatch.setenv("PIP_NO_INDEX", "before")
    monkeypatch.delenv("UV_OFFLINE", raising=False)
    with release_demo._only_from(folder):
        inside = {name: os.environ[name] for name in (
            "PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_CONFIG_FILE", "UV_NO_INDEX", "UV_FIND_LINKS",
            "UV_OFFLINE",
        )}  # fmt: skip
    assert inside == {
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null",
        "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(folder), "UV_OFFLINE": "1",
    }  # fmt: skip
    assert os.environ["PIP_NO_INDEX"] == "before"
    assert "UV_OFFLINE" not in os.environ


def test_a_schedule_names_the_database_once_and_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", "sqlite:///monitor.db")
    job = scheduling.make_job(load_settings(), None, "15m", None, 90.0)
    assert "VIRNUCPRO_MONITOR_DB" not in job.environment
    place = job.arguments[job.arguments.index("--db") + 1]
    assert place == f"sqlite:///{tmp_path / 'monitor.db'}"
    assert job.arguments[-2:] == ("--max-time", "90s")
    assert job.log == tmp_path / "data" / "virnucpro-monitor" / "logs" / "builtin.log"
