"""The figures are asked what they show: places, marks, ids; a picture is never compared."""

import json
from dataclasses import replace

import pytest

from app.figures import gates_figure, trend_figure
from app.history_figures import (
    lengths_figure,
    residues_figure,
    sequence_figure,
    usage_figure,
)
from app.marks import MARKS
from app.speed_figures import speed_figure
from app.text import zone
from app.trace import layers_figure
from app.trend import TrendInfo, trend_info
from tests.app.samples import HISTORY, Step, sample_benchmark, sample_protocol, sample_reports
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.records import DayUsage, Outcome, SequencePoint

UTC_ZONE = zone("UTC")
THRESHOLDS = {sample_protocol().digest: Thresholds()}


def make_info(history: tuple[Step, ...] = HISTORY) -> TrendInfo:
    runs = [report.run for report in sample_reports(history)]
    return trend_info(runs, THRESHOLDS, reader_zone=UTC_ZONE)


def traces(figure: object, name: str) -> list[dict]:  # type: ignore[type-arg]
    spec = json.loads(figure.to_json())  # type: ignore[attr-defined]
    return [trace for trace in spec["data"] if trace.get("name") == name]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_own_mark_in_the_first_row(outcome: Outcome) -> None:
    info = make_info()
    expected = [point.run.id for point in info.trend.points if point.run.outcome is outcome]
    assert expected, "the sample history holds every outcome"
    (trace,) = traces(trend_figure(info), MARKS[outcome].word)
    assert [custom[0] for custom in trace["customdata"]] == expected
    assert trace["marker"]["symbol"] == MARKS[outcome].symbol


def test_marks_differ_in_shape_and_colour() -> None:
    assert len({mark.symbol for mark in MARKS.values()}) == len(MARKS)
    assert len({mark.colour for mark in MARKS.values()}) == len(MARKS)
    assert len({mark.glyph for mark in MARKS.values()}) == len(MARKS)


def test_the_worst_error_is_drawn_for_measured_runs_alone() -> None:
    info = make_info()
    line, marks = traces(trend_figure(info), "worst sequence")
    measured = [point for point in info.trend.points if point.run.figures is not None]
    assert [custom[0] for custom in marks["customdata"]] == [point.run.id for point in measured]
    gaps = [place for place, value in enumerate(line["y"]) if value is None]
    assert len(gaps) == len(info.trend.segments) - 1  # no line leads over what was not measured


def test_an_error_of_exactly_zero_is_drawn_at_the_foot() -> None:
    info = make_info((Step(), Step(error=0.0)))
    figure = trend_figure(info)
    marks = traces(figure, "worst sequence")[1]
    axis = json.loads(figure.to_json())["layout"]["yaxis3"]
    assert axis["ticktext"][0] == "exactly 0"
    assert marks["y"][1] == axis["tickvals"][0] < marks["y"][0]


def test_both_thresholds_are_drawn_and_a_changed_one_is_a_step() -> None:
    stricter = sample_protocol("2", strict=0.9995)
    history = (Step(), Step(protocol=stricter))
    runs = [report.run for report in sample_reports(history)]
    thresholds = THRESHOLDS | {stricter.digest: Thresholds(strict=0.9995)}
    figure = trend_figure(trend_info(runs, thresholds, reader_zone=UTC_ZONE))
    (strict,) = traces(figure, "strict 5.0e-4")
    assert strict["y"] == [0.001, 0.0005]
    assert strict["line"]["shape"] == "hv"
    assert traces(figure, "lenient 5.0e-3")
    (change,) = traces(figure, "change of environment, protocol or benchmark")
    assert "protocol changed" in change["customdata"][0][1]


def test_rates_count_all_sequences() -> None:
    info = make_info()
    (rate,) = traces(trend_figure(info), "share that agrees")
    by_id = {point.run.id: point.run.figures for point in info.trend.points}
    for custom, value in zip(rate["customdata"], rate["y"], strict=True):
        figures = by_id.get(custom[0])
        if figures is not None:
            assert value == figures.num_strict / figures.num_sequences


def test_each_gate_has_a_row_with_its_own_verdicts() -> None:
    info = make_info()
    figure = gates_figure(info)
    names = json.loads(figure.to_json())["layout"]["yaxis"]["ticktext"]
    (failed,) = traces(figure, "failed")
    drawn = {
        (custom[0], names[row])
        for custom, row in zip(failed["customdata"], failed["y"], strict=True)
    }
    stored = {
        (point.run.id, gate.name)
        for point in info.trend.points
        for gate in point.run.gates
        if gate.passed is False
    }
    assert drawn == stored != set()


def test_gates_mark_commits_that_have_none_of_their_own() -> None:
    info = make_info()
    for outcome, name in ((Outcome.ERROR, "error"), (Outcome.NOT_RUN, "not run")):
        expected = [p.run.id for p in info.trend.points if p.run.outcome is outcome]
        shown = [t for t in traces(gates_figure(info), name) if len(t["x"]) == len(expected)]
        assert [custom[0] for custom in shown[-1]["customdata"]] == expected != []


def test_every_commit_is_labelled_while_they_fit() -> None:
    info = make_info()
    axis = json.loads(trend_figure(info).to_json())["layout"]["xaxis"]
    assert axis["ticktext"] == [p.run.commit.hash[:7] for p in info.trend.points]


def test_speed_leaves_inherited_runs_out() -> None:
    info = make_info()
    (packed,) = traces(speed_figure(info), "packed path")
    ids = [custom[0] for custom in packed["customdata"]]
    skipped = {p.run.id for p in info.trend.points if p.run.outcome is Outcome.SKIPPED}
    assert skipped
    assert not skipped & set(ids)


def test_speed_breaks_where_nothing_was_timed_and_shows_what_is_expected() -> None:
    seconds = [0.1] * 12 + [None] + [0.1] * 3 + [0.3] * 12
    base = next(r.run for r in sample_reports() if r.run.outcome is Outcome.PASSED)
    assert base.figures is not None
    runs = []
    for place, packed_s in enumerate(seconds):
        commit = replace(base.commit, hash=f"{place:040x}", position=place)
        figures = replace(base.figures, packed_s=packed_s, unpacked_s=0.3, num_tokens=300)
        runs.append(replace(base, id=place + 1, commit=commit, figures=figures))
    runs[12] = replace(runs[12], outcome=Outcome.ERROR, figures=None, gates=(), duration_s=0.0)
    info = trend_info(runs, {}, reader_zone=UTC_ZONE)
    figure = speed_figure(info)
    (packed,) = traces(figure, "packed path")
    assert [y for y in packed["y"] if y is not None] == pytest.approx([3000.0] * 15 + [1000.0] * 12)
    assert packed["y"][12] is None  # the error: a gap, and no zero
    (whole,) = traces(figure, "whole run")
    assert 0.0 not in whole["y"]
    (band,) = traces(figure, "packed path, expected")
    assert min(band["y"]) < 1000.0 < max(band["y"])
    (changed,) = traces(figure, "packed path, changed")
    assert list(changed["y"]) == [pytest.approx(1000.0)]
    assert "fell from 3,000 to 1,000" in changed["text"][0]
    (ratio,) = traces(figure, "packed against unpacked")
    assert [y for y in ratio["y"] if y is not None] == pytest.approx([3.0] * 15 + [1.0] * 12)
    (band,) = traces(figure, "packed against unpacked, expected")
    assert min(band["y"]) < 1.0 < max(band["y"])


def test_a_trend_without_runs_can_be_drawn() -> None:
    info = trend_info([], {}, reader_zone=UTC_ZONE)
    for draw in (trend_figure, gates_figure, speed_figure):
        assert draw(info).to_json()


def test_a_sequences_history_marks_where_it_failed() -> None:
    reports = [report for report in sample_reports() if report.sequences]
    points = [SequencePoint(run=r.run, result=r.sequences[-1]) for r in reports]
    figure = sequence_figure(points, THRESHOLDS, UTC_ZONE)
    failed = [p.run.id for p in points if Thresholds().level(p.result).value == "failed"]
    (trace,) = traces(figure, f"fails ({len(failed)})")
    assert [custom[0] for custom in trace["customdata"]] == failed != []


def test_residue_shares_add_up_and_lengths_are_all_there() -> None:
    benchmark = sample_benchmark()
    shares = residues_figure(benchmark).data[0].y
    assert sum(shares) == pytest.approx(1.0)
    assert len(lengths_figure(benchmark).data[0].x) == len(benchmark.sequences)


def test_run_time_is_shown_in_minutes_by_device() -> None:
    usage = [
        DayUsage(day="2026-11-23", device="cuda", num_runs=3, run_s=600.0),
        DayUsage(day="2026-11-23", device="cpu", num_runs=1, run_s=60.0),
    ]
    figure = usage_figure(usage)
    assert {trace.name: list(trace.y) for trace in figure.data} == {"GPU": [10.0], "CPU": [1.0]}
    first, last = figure.layout.xaxis.range
    assert (last - first).days == 14  # one day's bar is not the whole chart


def test_a_trace_marks_the_layer_where_it_departs() -> None:
    traced = {
        "packed": [1e-7, 1e-2, 2e-2],
        "unpacked": [1e-7, 1e-7, 0.0],
        "packed_unpacked": [0.0, 1e-2, None],
        "departs_at": 1,
    }
    figure = layers_figure(traced, "oracle")
    assert {trace.name for trace in figure.data} == {
        "packed from oracle",
        "unpacked from oracle",
        "packed against unpacked",
    }
    assert figure.layout.shapes[0].x0 == 1
