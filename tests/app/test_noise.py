"""What the app takes for noise: what healthy runs measured, never what a fault did."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from app import data
from tests.app.samples import Step, sample_reports
from virnucpro_monitor.analysis.comparison import Mark, Noise
from virnucpro_monitor.records import Json, Outcome, Run
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

HEALTHY, FAULTY = Step(), Step(bad_from=400)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Store one run for each (step, noise document), and return them, oldest first."""

    def store(steps: Sequence[tuple[Step, Json]]) -> list[Run]:
        url = f"sqlite:///{tmp_path / uuid4().hex}"
        create_database(url)
        engine = open_engine(url)
        reports = sample_reports([step for step, _ in steps])
        for report, (_, noise) in zip(reports, steps, strict=True):
            Writer(engine).save_run(replace(report, documents={"noise": noise}))
        engine.dispose()
        monkeypatch.setenv("VIRNUCPRO_MONITOR_DB", url)
        return reader.load_runs(open_engine(url, read_only=True))

    return store


def test_a_comparison_takes_the_noise_that_both_healthy_runs_measured(stored) -> None:
    base, head = stored([(HEALTHY, {"reordered": 1e-3}), (HEALTHY, {"reordered": 4e-3})])
    comparison = data.load_comparison(base, head)
    assert comparison.noise == Noise.of_documents([{"reordered": 1e-3}, {"reordered": 4e-3}])
    assert comparison.noise.floor == pytest.approx(8e-6)
    # All errors, around 2e-7, lie below what reordering alone does.
    assert len(comparison.marked(Mark.WITHIN_NOISE)) == comparison.num_common
    quiet = stored([(HEALTHY, {"reordered": 0.0}), (HEALTHY, {"reordered": 0.0})])
    assert data.load_comparison(*quiet).marked(Mark.WORSE)


def test_a_faulty_run_does_not_hide_its_own_fault(stored) -> None:
    base, head = stored([(HEALTHY, {"reordered": 1e-3}), (FAULTY, {"reordered": 0.9})])
    assert head.outcome is Outcome.FAILED
    assert data.load_comparison(base, head).noise.floor == pytest.approx(5e-7)
    assert data.load_noise(base) == data.load_noise(head) == pytest.approx(5e-7)


def test_without_a_healthy_run_no_noise_is_known(stored) -> None:
    (only,) = stored([(FAULTY, {"reordered": 0.9})])
    assert data.load_noise(only) is None
    (quiet,) = stored([(HEALTHY, {"reordered": 0.0})])
    assert data.load_noise(quiet) is None
