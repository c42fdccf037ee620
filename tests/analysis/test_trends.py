import pytest

from tests.analysis.histories import configuration, environment, figures, history, run
from virnucpro_monitor.analysis.trends import Segment, make_trend, zero_place
from virnucpro_monitor.records import Outcome


def test_a_trend_has_one_point_for_each_run_in_commit_order() -> None:
    runs = history("PFENpf")
    trend = make_trend(runs)
    assert [point.run for point in trend.points] == runs
    assert [point.outcome for point in trend.points] == [
        Outcome.PASSED,
        Outcome.FAILED,
        Outcome.ERROR,
        Outcome.NOT_RUN,
        Outcome.PASSED,
        Outcome.FAILED,
    ]
    assert [point.inherited for point in trend.points] == [False] * 4 + [True] * 2
    assert trend.points[1].failed_gates == ("seed",)


def test_a_run_without_figures_has_no_figures_rather_than_zeros() -> None:
    point = make_trend([run(0, "E")]).points[0]
    assert (point.worst, point.p01, point.median) == (None, None, None)
    assert (point.num_strict, point.num_sequences, point.strict_pass_rate) == (None, None, None)


def test_errors_are_one_minus_cosine_and_rates_are_counts() -> None:
    measured = run(
        0,
        figures=figures(
            0.75, num_sequences=200, num_strict=199, p01_similarity=0.875, median_similarity=1.0
        ),
    )
    point = make_trend([measured]).points[0]
    assert (point.worst, point.p01, point.median) == (0.25, 0.125, 0.0)
    assert point.strict_pass_rate == 0.995
    assert point.tokens_per_s == 600.0


def test_inherited_throughput_is_not_shown_as_measured() -> None:
    assert make_trend([run(1, "p")]).points[0].tokens_per_s is None


def test_a_changed_environment_protocol_and_threshold_are_events() -> None:
    runs = [
        run(0),
        run(1, "E"),
        run(2, environment=environment(torch="2.14.0")),
        run(3, environment=environment(torch="2.14.0"), protocol_digest="aa" * 32),
    ]
    events = make_trend(runs).events
    assert [(event.place, event.kind) for event in events] == [(2, "environment"), (3, "protocol")]
    assert str(events[0].differences[0]) == "torch: 2.13.0 → 2.14.0"


def test_a_skipped_run_shows_no_environment_change() -> None:
    runs = [run(0), run(1, "p", environment=environment(torch="2.14.0")), run(2)]
    assert make_trend(runs).events == ()


def test_two_kinds_of_change_at_once_are_one_event_of_the_graver_kind() -> None:
    after = run(
        1,
        protocol_digest="aa" * 32,
        environment=environment(gpu="H200"),
        configuration=configuration(backend="flash-attn"),
    )
    (event,) = make_trend([run(0), after]).events
    assert event.kind == "protocol"
    assert {difference.kind for difference in event.differences} == {
        "protocol",
        "environment",
        "configuration",
    }


def test_lines_end_at_gaps_and_at_a_change_of_protocol() -> None:
    runs = [*history("PPEPN"), *(run(place, protocol_digest="aa" * 32) for place in (5, 6))]
    assert make_trend(runs).segments == (
        Segment(start=0, end=1),
        Segment(start=3, end=3),
        Segment(start=5, end=6),
    )
    assert make_trend([*history("PP"), run(2, protocol_digest="aa" * 32)]).segments == (
        Segment(start=0, end=1),
        Segment(start=2, end=2),
    )


def test_an_empty_series_is_an_empty_trend() -> None:
    trend = make_trend([])
    assert (trend.key, trend.points, trend.events, trend.segments) == (None, (), (), ())


@pytest.mark.parametrize(
    ("errors", "place"),
    [([0.0, 3e-5, None], 1e-6), ([0.0], 1e-7), ([], 1e-7), ([1e-6, 0.5], 1e-7)],
)
def test_zero_has_a_place_below_everything(errors: list[float | None], place: float) -> None:
    assert zero_place(errors) == pytest.approx(place)
    assert all(zero_place(errors) < error for error in errors if error)
