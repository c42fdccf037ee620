import json
from itertools import pairwise

import plotly.graph_objects as go

from app.sequence_figures import (
    before_after_figure,
    distribution_figure,
    error_by_length_figure,
    oracle_figure,
    packs_figure,
)
from tests.app.samples import Step, sample_reports
from virnucpro_monitor.analysis.comparison import Mark, Thresholds, compare_runs
from virnucpro_monitor.records import RunReport, SequenceResult, SequenceStatus

HEALTHY, BAD, LOST = (
    report for report in sample_reports((Step(), Step(bad_from=400), Step(lost=True)))
)


def by_name(figure: go.Figure) -> dict[str, dict]:  # type: ignore[type-arg]
    return {trace["name"]: trace for trace in json.loads(figure.to_json())["data"]}


def ids(trace: dict) -> set[str]:  # type: ignore[type-arg]
    return {custom[0] for custom in trace["customdata"]}


def failed_ids(report: RunReport) -> set[str]:
    return {
        result.sequence_id
        for result in report.sequences
        if result.similarity is None or result.similarity < 0.995
    }


def test_failed_sequences_have_their_own_shape_over_length() -> None:
    expected = failed_ids(BAD)
    traces = by_name(error_by_length_figure(BAD.sequences, Thresholds()))
    failed = traces[f"fails ({len(expected)})"]
    assert ids(failed) == expected != set()
    assert failed["marker"]["symbol"] == "x"


def test_a_lost_sequence_stands_above_all_errors() -> None:
    figure = error_by_length_figure(LOST.sequences, Thresholds())
    traces = by_name(figure)
    (lost,) = [r for r in LOST.sequences if r.status is SequenceStatus.LOST]
    failed = traces["fails (1)"]
    assert ids(failed) == {lost.sequence_id}
    others = [y for name, t in traces.items() if name != "fails (1)" for y in t["y"]]
    assert failed["y"][0] > max(others)
    assert "no value" in figure.layout.yaxis.ticktext


def test_a_distribution_counts_every_sequence_once() -> None:
    groups = {"base": HEALTHY.sequences, "head": LOST.sequences}
    figure = distribution_figure(groups, Thresholds(), noise=1e-9)
    for name, trace in by_name(figure).items():
        assert sum(trace["y"]) == len(groups[name])
    drawn = {one.name for one in figure.layout.shapes}
    assert drawn == {"strict 1.0e-3", "lenient 5.0e-3", "noise floor 1.0e-9"}
    assert not figure.layout.annotations  # names beside the lines would cross the bars


def test_the_oracle_chart_needs_an_oracle() -> None:
    assert oracle_figure(BAD.sequences, Thresholds()) is not None
    blind = [SequenceResult(index=0, sequence_id="a", length=3, similarity=1.0)]
    assert oracle_figure(blind, Thresholds()) is None
    assert packs_figure(blind, Thresholds()) is None


def test_a_pack_is_drawn_from_offsets_without_overlap() -> None:
    figure = packs_figure(HEALTHY.sequences, Thresholds())
    assert figure is not None
    segments: dict[int, list[tuple[int, int]]] = {}
    for trace in json.loads(figure.to_json())["data"]:
        for pack, start, size in zip(trace["y"], trace["base"], trace["x"], strict=True):
            segments.setdefault(pack, []).append((start, start + size))
    assert sum(map(len, segments.values())) == len(HEALTHY.sequences)
    for members in segments.values():
        members.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(members))


def test_a_comparison_draws_every_common_sequence_under_its_mark() -> None:
    comparison = compare_runs(HEALTHY.run, HEALTHY.sequences, BAD.run, BAD.sequences)
    traces = by_name(before_after_figure(comparison, "base", "head"))
    newly = comparison.marked(Mark.NEWLY_FAILING)
    assert ids(traces[f"newly bad ({len(newly)})"]) == {c.sequence_id for c in newly} != set()
    drawn = sum(len(t["x"]) for name, t in traces.items() if name != "unchanged")
    assert drawn == comparison.num_common
