"""The package from Python: what is exported, what it costs to import, and the README's example."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

import virnucpro_monitor
from tests.cli.reading_history import make_database
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, PADDED_WITH_CLS, TinyRepository
from tests.store.builders import make_commit, make_report
from virnucpro_monitor import Listener, Monitor, MonitorError, RunOptions, open_monitor
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import (
    AmbiguousRevision,
    ClosedMonitor,
    ConfigurationError,
    MissingDatabase,
    NotFoundError,
)
from virnucpro_monitor.monitor import running
from virnucpro_monitor.records import Commit, Run, RunReport
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.notes_reader import load_acknowledgements
from virnucpro_monitor.store.writer import Writer

README = (Path(__file__).parent.parent / "README.md").read_text()
SECTION = README.partition("## From Python\n")[2].partition("\n## ")[0]
HEAVY = ("torch", "sqlalchemy", "pandas", "numpy", "esm", "typer", "pydantic", "alembic")


@pytest.fixture
def history(tmp_path: Path) -> tuple[str, list[Commit]]:
    return make_database(tmp_path)


@pytest.fixture
def monitor(history: tuple[str, list[Commit]]) -> Iterator[Monitor]:
    with open_monitor(history[0]) as monitor:
        yield monitor


def test_what_is_exported_is_importable_and_in_the_readme() -> None:
    assert sorted(virnucpro_monitor.__all__) == virnucpro_monitor.__all__
    for name in virnucpro_monitor.__all__:
        assert getattr(virnucpro_monitor, name) is not None
        assert name in dir(virnucpro_monitor)
    missing = [n for n in virnucpro_monitor.__all__ if n != "__version__" and n not in SECTION]
    assert missing == []
    named = set(re.findall(r"from virnucpro_monitor import ([\w, ]+)", SECTION))
    imported = {name.strip() for names in named for name in names.split(",")}
    assert imported <= set(virnucpro_monitor.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        virnucpro_monitor.nothing  # noqa: B018


def test_every_method_of_the_monitor_is_in_the_readme() -> None:
    methods = {name for name in vars(Monitor) if not name.startswith("_")}
    assert {
        name for name in methods if f"`{name}" not in SECTION and f".{name}(" not in SECTION
    } == set()


def test_the_readme_s_example_runs(
    history: tuple[str, list[Commit]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, commits = history
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", url)
    example = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    # The stored history: passed, failed, skipped (failed), passed, error, passed.
    assert f"{commits[1].short} packed" in printed
    assert f"{commits[4].short} could not be run" in printed
    assert "still failing" not in printed
    assert "fixed" in printed


@pytest.mark.usefixtures("quick_probes", "shared_workers")
def test_the_readme_s_second_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = TinyRepository(tmp_path / "pack")
    good = repository.commit(HEALTHY)
    repository.git("tag", "v1")
    faulty = repository.commit({MODEL_FILE: PADDED_WITH_CLS}, "Pad with zeros")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fasta = tmp_path / "example.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n")
    assert run_command(["benchmark", "add", str(fasta), "--name", "example"]) == 0
    for name, value in (
        ("MODEL", "esm2_t6_8M_UR50D"), ("WEIGHTS", "synthetic"), ("DTYPE", "float32"),
        ("BENCHMARK", "example"),
    ):  # fmt: skip
        monkeypatch.setenv(f"VIRNUCPRO_MONITOR_{name}", value)
    capsys.readouterr()
    example = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)[1]
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    assert f"{good[:10]} passed" in printed
    assert f"{faulty[:10]} failed" in printed
    assert f"{faulty} is the first bad commit" in printed
    with open_monitor("results.db") as monitor:
        assert [run.outcome for run in monitor.runs()] == ["passed", "failed"]
        (search,) = monitor.bisections()
        assert (search.good, search.bad, search.first_bad) == (good, faulty, faulty)


def test_importing_the_package_is_light() -> None:
    code = (
        f"import sys, virnucpro_monitor\nprint([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

    def seconds(statement: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - start

    pairs = [(seconds("import virnucpro_monitor"), seconds("import typer")) for _ in range(5)]
    assert min(ours for ours, _ in pairs) <= 1.5 * min(typer for _, typer in pairs)


def test_runs_come_as_records_and_as_a_frame(monitor: Monitor) -> None:
    runs = monitor.runs()
    assert [run.outcome for run in runs] == [
        "passed", "failed", "skipped", "passed", "error", "passed",
    ]  # fmt: skip
    assert all(isinstance(run, Run) for run in runs)
    assert [run.outcome for run in monitor.runs(outcomes=["failed", "error"])] == [
        "failed",
        "error",
    ]
    assert monitor.runs(limit=1) == runs[-1:]
    frame = monitor.runs_frame()
    assert list(frame["id"]) == [run.id for run in runs]
    assert list(frame["outcome"]) == [run.outcome.value for run in runs]
    assert isinstance(frame["started_at"].dtype, pd.DatetimeTZDtype)
    assert list(frame["gate_seed"].dropna()) == [True, False, False, True, True]
    assert frame.set_index("id").loc[runs[1].id, "min_similarity"] == 0.99
    assert len(monitor.runs_frame(benchmark="no such set")) == 0


def test_questions_are_answered_from_what_is_stored(
    monitor: Monitor, history: tuple[str, list[Commit]]
) -> None:
    commits = history[1]
    compared = monitor.compare("v1", "main")
    assert (compared.base, compared.head) == (commits[2], commits[5])
    assert [one.verdict for one in compared.comparisons] == ["fixed"]
    assert [one.first_bad.commit for one in monitor.incidents()] == [commits[1], commits[4]]
    assert monitor.incidents(state="open") == []
    assert [one.first_bad.commit for one in monitor.regressions(since="v1").recovered] == [
        commits[4]
    ]
    run = monitor.find_run("v1")
    assert run.commit == commits[2]
    assert [one.similarity for one in monitor.sequences(run)] == [0.99, 1.0, 0.9999999]
    assert monitor.find_run(run.id or 0) == run
    details = monitor.details("v1")
    assert (details.run, details.measured.commit, details.flips) == (run, commits[1], 0)
    assert list(details.sequences) == monitor.sequences(run)
    assert monitor.policy("sample") == []
    (status,) = monitor.status()
    assert (status.commits_measured, status.commits_not_measured) == (5, 1)
    assert [one.name for one in monitor.targets()] == ["sample"]
    assert monitor.bisections() == []


def test_two_databases_in_one_process_do_not_mix(
    tmp_path: Path, history: tuple[str, list[Commit]]
) -> None:
    path = tmp_path / "other.db"
    create_database(f"sqlite:///{path}")
    engine = open_engine(f"sqlite:///{path}")
    Writer(engine).save_run(make_report(7))
    engine.dispose()
    with open_monitor(history[0]) as one, open_monitor(path) as other:
        assert len(one.runs()) == 6
        assert [run.commit.position for run in other.runs()] == [7]
        one.close()
        assert len(other.runs()) == 1
    with open_monitor(history[0]) as again:
        assert len(again.runs()) == 6


def test_a_revision_of_two_commits_is_one_typed_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    with open_monitor(url, create=True) as monitor:
        engine = open_engine(url)
        for number in (160, 161):
            Writer(engine).save_run(make_report(number))
        engine.dispose()
        shared = make_commit(160).hash[:3]
        with pytest.raises(AmbiguousRevision, match="give more digits"):
            monitor.compare(shared, make_commit(161).hash)
        with pytest.raises(AmbiguousRevision, match="give more digits"):
            monitor.find_run(shared)


def test_an_incident_is_acknowledged_and_reopened(tmp_path: Path) -> None:
    path = tmp_path / "monitor.db"
    with open_monitor(path, create=True) as monitor:
        engine = open_engine(monitor.url)
        for report in (make_report(0), make_report(1, (0.9, 1.0, 1.0))):
            Writer(engine).save_run(report)
        (incident,) = monitor.incidents(state="open")
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        known = monitor.acknowledge(
            incident.key[:6], who=" alice ", why="waits for v2", expires_at=tomorrow,
            reopen_if_worse_than=0.5,
        )  # fmt: skip
        (note,) = load_acknowledgements(engine)
        assert (note.incident, note.who, note.why) == (incident.key, "alice", "waits for v2")
        assert (note.expires_at, note.reopen_if_worse_than) == (tomorrow, 0.5)
        assert known.state == "acknowledged"
        assert monitor.incidents(state="acknowledged") == [known]
        assert monitor.reopen(incident.key, who="bob").state == "open"
        (note,) = load_acknowledgements(engine, withdrawn=True)
        assert note.withdrawn_by == "bob"
        engine.dispose()
        with pytest.raises(NotFoundError, match="is not acknowledged"):
            monitor.reopen(incident.key, who="bob")
        with pytest.raises(NotFoundError, match="no incident 'nosuch'"):
            monitor.acknowledge("nosuch", who="a", why="b")
        for wrong, sentence in (
            ({"who": " "}, "Nobody is named"),
            ({"why": ""}, "why is empty"),
            ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, "lies in the past"),
            ({"expires_at": datetime(2090, 1, 1)}, "has no time zone"),
        ):
            with pytest.raises(ConfigurationError, match=sentence):
                monitor.acknowledge(incident.key, **({"who": "a", "why": "b"} | wrong))
    with pytest.raises(ClosedMonitor):
        monitor.acknowledge(incident.key, who="a", why="b")
    with pytest.raises(ClosedMonitor):
        monitor.reopen(incident.key, who="a")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"devise": "cpu"}, "no setting devise: did you mean device"),
        ({"benchmark": []}, "is not a list of benchmark sets: use names with commas between"),
        ({"benchmark": ["seed", ""]}, "is not a list of benchmark sets"),
        ({"benchmark": "seed,"}, "is not a list of benchmark sets"),
        ({"benchmark": [1]}, "is not a list of benchmark sets"),
        ({"device": ["cpu"]}, "is not a device: use cpu"),
        ({"workers": "many"}, "use a whole number from 1 to 1024"),
        ({"db": "sqlite:///other.db"}, "that it was opened on"),
    ],
)
def test_wrong_settings_are_one_typed_error(
    monitor: Monitor, settings: dict[str, object], sentence: str
) -> None:
    for start in (lambda: monitor.run(**settings), lambda: monitor.bisect("a", "b", **settings)):
        with pytest.raises(ConfigurationError, match=sentence) as caught:
            start()
        assert "\n" not in str(caught.value)


def test_a_misspelt_setting_is_refused_when_a_monitor_is_opened(
    history: tuple[str, list[Commit]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DEVISE", "cpu")
    with pytest.raises(ConfigurationError, match="did you mean VIRNUCPRO_MONITOR_DEVICE"):
        open_monitor(history[0])


def test_every_answer_of_a_closed_monitor_is_one_typed_error(monitor: Monitor) -> None:
    run = monitor.runs()[0]
    asked: dict[str, Callable[[], object]] = {
        "targets": monitor.targets, "runs": monitor.runs, "runs_frame": monitor.runs_frame,
        "find_run": lambda: monitor.find_run(1), "details": lambda: monitor.details(1),
        "policy": lambda: monitor.policy("sample"), "sequences": lambda: monitor.sequences(run),
        "compare": lambda: monitor.compare("v1", "main"), "regressions": monitor.regressions,
        "incidents": monitor.incidents, "bisections": monitor.bisections, "status": monitor.status,
        "acknowledge": lambda: monitor.acknowledge("a", who="b", why="c"),
        "reopen": lambda: monitor.reopen("a", who="b"), "run": monitor.run,
        "bisect": lambda: monitor.bisect("a", "b"),
    }  # fmt: skip
    assert asked.keys() == {name for name in vars(Monitor) if name[0] != "_"} - {"close"}
    monitor.close()
    monitor.close()
    for name, ask in asked.items():
        with pytest.raises(ClosedMonitor, match=r"open_monitor\(\) opens it again"):
            ask()
        assert name
    assert issubclass(ClosedMonitor, MonitorError)


def test_wrong_words_are_one_typed_error(monitor: Monitor, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="passed, failed, error"):
        monitor.runs(outcomes=["broken"])
    with pytest.raises(ConfigurationError, match=r"is not a list of outcomes: write \['failed'\]"):
        monitor.runs(outcomes="failed")
    for limit in (0, -1, "many"):
        with pytest.raises(ConfigurationError, match="is not a number of commits"):
            monitor.runs(limit=limit)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="open, acknowledged, not_seen, rewritten, fixed"):
        monitor.incidents(state="new")
    with pytest.raises(NotFoundError, match="There is no target 'nosuch'"):
        monitor.runs(target="nosuch")
    with pytest.raises(NotFoundError, match="There is no run 99"):
        monitor.find_run(99)
    with pytest.raises(MissingDatabase, match="create=True"):
        open_monitor(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()


def test_runs_are_started_and_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = TinyRepository(tmp_path / "pack")
    hashes = [repository.commit(HEALTHY), repository.commit({"a": "b"})]
    plans: list[RunPlan] = []

    def pass_all(plan: RunPlan, **_: object) -> Iterator[RunReport]:
        plans.append(plan)
        for commit in plan.commits:
            yield make_report(target=plan.target, commit=commit)

    monkeypatch.setattr(running, "run_commits", pass_all)
    said: list[str] = []
    with open_monitor(tmp_path / "results.db", create=True) as monitor:
        runs = monitor.run(
            str(repository.folder),
            RunOptions(everything=True),
            listener=Listener(on_message=said.append),
            device="cpu",
            dtype="float32",
            workers=1,
        )
        assert monitor.runs() == []
        for run, commit in zip(runs, hashes, strict=True):
            assert run.commit.hash == commit
            assert monitor.runs()[-1].id == run.id  # it is there when it comes
        (plan,) = plans
        assert (plan.request.device, plan.request.dtype, plan.workers) == ("cpu", "float32", 1)
        with pytest.raises(ConfigurationError, match="no target 'nosuch'"):
            monitor.run("nosuch")
    with pytest.raises(ClosedMonitor):
        monitor.run(str(repository.folder))
    with pytest.raises(ClosedMonitor):
        monitor.bisect(*hashes)


def test_a_search_is_refused_where_it_has_no_repository(tmp_path: Path, monitor: Monitor) -> None:
    with pytest.raises(ConfigurationError, match="bisect needs a repository"):
        monitor.bisect("a", "b", "builtin")
    with pytest.raises(ConfigurationError, match="goes by one benchmark set"):
        monitor.bisect("a", "b", "builtin", benchmark=["seed", "proteome"])
