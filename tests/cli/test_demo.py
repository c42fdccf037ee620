"""The demo's verdicts come from its sample's code: each fault fails, each mend passes."""

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from virnucpro_monitor.cli import dashboard, demo
from virnucpro_monitor.cli.demo import demo_settings, short_reason
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.cli.sample.repository import build_repository, load_history
from virnucpro_monitor.models.weights import DEMO_MODEL
from virnucpro_monitor.monitor.running import RunOptions, run_and_store
from virnucpro_monitor.records import Outcome, Run, Target
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_runs

# What each fault of the sample does, and the commit that mends it. This stands here and nowhere in
# the program: the program measures.
MENDED_BY = {
    "03-drop-the-rescale": "04-restore-the-rescale",
    "05-read-bounds-as-first-and-last": "06-end-before-the-next-sequence",
    "08-reset-positions-by-search": "09-reset-positions-at-the-first-token",
    "11-compute-angles-in-bfloat16": "12-compute-angles-in-double",
    "13-pad-short-packs": "14-pad-with-the-padding-token",
    "15-move-the-embedding": "16-add-the-embedding-module",
}
CRASH = "15-move-the-embedding"
HARMLESS = (
    "01-add-packed-inference",
    "02-describe-the-package",
    "07-number-positions-through-the-pack",
    "10-fuse-the-projections",
)


def by_name(runs: Sequence[Run]) -> dict[str, Run]:
    names = {commit.subject: commit.name for commit in load_history()}
    return {names[run.commit.subject]: run for run in runs}


def stored(url: str) -> list[Run]:
    engine = open_engine(url, read_only=True)
    try:
        return load_runs(engine)
    finally:
        engine.dispose()


@pytest.mark.slow
def test_each_fault_fails_where_it_is_and_passes_once_mended(demo_database_url: str) -> None:
    runs = by_name(stored(demo_database_url))
    assert len(runs) == len(load_history())
    for fault, mend in MENDED_BY.items():
        expected = Outcome.ERROR if fault == CRASH else Outcome.FAILED
        assert runs[fault].outcome is expected, fault
        assert runs[mend].outcome is Outcome.PASSED, mend
        if fault != CRASH:
            assert runs[fault].culprit == "packed"
            figures = runs[fault].figures
            assert figures is not None
            assert not figures.seed_passed
    assert "No module named 'tinypack.models.embedding'" in runs[CRASH].reason
    for name in HARMLESS:
        assert runs[name].outcome is Outcome.PASSED, name


@pytest.mark.slow
def test_only_long_sequences_notice_bfloat16_angles(demo_database_url: str) -> None:
    run = by_name(stored(demo_database_url))["11-compute-angles-in-bfloat16"]
    assert run.figures is not None
    assert run.figures.worst_sequence == "large"  # 400 residues
    assert run.figures.num_strict == run.figures.num_sequences - 1


@pytest.mark.slow
def test_a_second_demo_measures_nothing_again_and_doubles_nothing(
    demo_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored(demo_database_url)
    assert run_command(["demo", "--no-open", "--db", demo_database_url]) == 0
    captured = capsys.readouterr()
    for run in before:
        assert run.commit.subject in captured.out
    assert f"{len(before)} commits: 10 passed, 5 failed, 1 error" in captured.err
    assert [run.id for run in stored(demo_database_url)] == [run.id for run in before]


@pytest.mark.slow
@pytest.mark.usefixtures("shared_workers")
def test_without_the_faults_in_the_code_every_commit_passes(tmp_path: Path) -> None:
    history = load_history()
    mended = [
        replace(commit, edits=()) if commit.name in MENDED_BY else commit for commit in history
    ]
    folder = tmp_path / "tinypack"
    hashes = build_repository(folder, mended)
    settings = demo_settings(f"sqlite:///{tmp_path / 'demo.db'}")
    target = Target(name="tinypack", location=str(folder), package="tinypack", branch="main")
    at_faults = [
        commit for commit, made in zip(hashes, mended, strict=True) if made.name in MENDED_BY
    ]
    outcome = run_and_store(settings, target, RunOptions(revisions=at_faults))
    # Commits that now change nothing inherit instead of being measured again.
    effective = [run.effective_outcome for run in outcome.runs]
    assert effective == [Outcome.PASSED] * len(MENDED_BY)


def test_the_users_settings_cannot_change_what_the_demo_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (
        ("MODEL", "esm2_t33_650M_UR50D"),
        ("DEVICE", "cuda:0"),
        ("DTYPE", "bfloat16"),
        ("WEIGHTS", "official"),
        ("BENCHMARK", "proteome"),
        ("TOKEN_BUDGET", "4096"),
    ):
        monkeypatch.setenv(f"VIRNUCPRO_MONITOR_{name}", value)
    settings = demo_settings("sqlite:///x.db")
    assert (settings.model, settings.weights) == (DEMO_MODEL, "synthetic")
    assert (settings.device, settings.dtype) == ("cpu", "float32")
    assert (settings.benchmark, settings.token_budget) == (["seed@1"], 512)
    assert settings.database_url == "sqlite:///x.db"
    releases = demo_settings(None, demo.RELEASES_MODEL)
    assert (releases.model, releases.weights) == ("esm2_t6_8M_UR50D", "synthetic")


def test_the_dashboard_is_served_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[str] = []
    monkeypatch.setattr(demo, "validate_sample", lambda settings: [])
    monkeypatch.setattr(dashboard, "serve", served.append)
    url = f"sqlite:///{tmp_path / 'demo.db'}"
    assert run_command(["demo", "--db", url, "--no-open"]) == 0
    assert served == []
    assert run_command(["demo", "--db", url]) == 0
    assert served == [url]


def test_a_reason_is_shortened_to_its_side_and_place() -> None:
    reason = (
        "Packed is the wrong side: 9 x; departs at layer 1; 3 of 11 not above 0.999; failed: a."
    )
    assert short_reason(reason) == "Packed is the wrong side: 9 x; departs at layer 1"
    assert short_reason("It crashed.") == "It crashed"


@pytest.mark.slow
def test_runs_list_shows_the_demo_as_json(demo_database_url: str) -> None:
    output = io.StringIO()
    with redirect_stdout(output):
        assert run_command(["runs", "list", "--json", "--db", demo_database_url]) == 0
    listed = json.loads(output.getvalue())
    subjects = [run.commit.subject for run in stored(demo_database_url)]
    assert subjects == [commit.subject for commit in load_history()]
    assert [item["outcome"] for item in listed].count("failed") == 5
    assert all(item["model"] == DEMO_MODEL for item in listed)


def test_a_database_of_another_program_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.db"
    path.write_text("not a database")
    assert run_command(["demo", "--no-open", "--db", f"sqlite:///{path}"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert path.read_text() == "not a database"


def test_the_sample_is_built_in_the_cache_folder(tmp_path: Path) -> None:
    settings = demo_settings(None).model_copy(update={"cache_dir": tmp_path})
    assert demo.sample_folder(settings) == tmp_path / "demo" / "tinypack"
