from datetime import timedelta
from itertools import pairwise

from app.text import zone
from app.trend import run_hover, thin_healthy, threshold_errors, trend_info
from tests.app.samples import HISTORY, Step, sample_reports
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.records import Outcome, Run

UTC_ZONE = zone("UTC")


def sample_runs(history: tuple[Step, ...] = HISTORY) -> list[Run]:
    return [report.run for report in sample_reports(history)]


def test_threshold_errors_carry_no_rounding() -> None:
    assert threshold_errors(Thresholds()) == {"lenient": 0.005, "strict": 0.001}


def test_each_run_stands_at_its_place_in_history() -> None:
    runs = sample_runs()
    info = trend_info(runs, {}, reader_zone=UTC_ZONE)
    assert info.places == tuple(float(place) for place in range(len(runs)))
    assert [point.run.id for point in info.trend.points] == [run.id for run in runs]


def test_dates_are_the_readers_own() -> None:
    runs = sample_runs()
    info = trend_info(runs, {}, by_date=True, reader_zone=zone("Asia/Tokyo"))
    first = runs[0].commit.committed_at
    assert first is not None
    assert info.places[0] == first.replace(tzinfo=None) + timedelta(hours=9)
    assert all(a <= b for a, b in pairwise(info.places))  # type: ignore[operator]


def test_bad_stretches_are_shaded_and_an_unjudged_run_does_not_end_one() -> None:
    history = (
        Step(),
        Step(bad_from=400),
        Step(outcome="not_run"),
        Step(outcome="error"),
        Step(),
        Step(bad_from=400),
    )
    spans = trend_info(sample_runs(history), {}, reader_zone=UTC_ZONE).spans
    assert [(span.start, span.end) for span in spans] == [(1.0, 3.0), (5.0, 5.0)]


def test_thinning_drops_healthy_runs_alone() -> None:
    runs = sample_runs((*HISTORY, *(Step() for _ in range(60))))
    kept = thin_healthy(runs, 30)
    assert len(kept) <= 31
    assert kept[0] is runs[0]
    assert kept[-1] is runs[-1]
    kept_ids = {run.id for run in kept}
    unhealthy = [run for run in runs if run.effective_outcome is not Outcome.PASSED]
    assert unhealthy
    assert {run.id for run in unhealthy} <= kept_ids
    assert [run.id for run in kept] == sorted(kept_ids)  # type: ignore[type-var]


def test_a_few_runs_are_all_drawn() -> None:
    runs = sample_runs()
    assert thin_healthy(runs, len(runs)) == runs


def test_a_hover_text_names_figures_and_escapes_foreign_text() -> None:
    run = sample_runs((Step(subject="<b>x</b>", author="<i>me</i>", bad_from=400),))[0]
    assert run.outcome.is_bad
    text = run_hover(run, UTC_ZONE)
    assert "<b>x</b>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "&lt;i&gt;me&lt;/i&gt;" in text
    assert run.figures is not None
    assert f"{run.figures.num_strict} of {run.figures.num_sequences}" in text
    assert "wrong side: packed" in text
