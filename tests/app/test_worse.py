"""A sequence that agrees can still be far worse than it was."""

from app.history_figures import worse_than_before
from tests.app.samples import Step, sample_reports
from virnucpro_monitor.records import SequencePoint


def test_a_rise_of_a_decade_over_the_last_passed_run_is_found_whatever_its_level() -> None:
    reports = sample_reports(
        (Step(error=1e-9), Step(error=3e-9), Step(error=5e-7, bad_from=400), Step(error=1e-9))
    )
    # The shortest sequence is never above a threshold; its errors scatter by less than ten.
    points = [SequencePoint(run=one.run, result=one.sequences[0]) for one in reports]
    assert all((point.result.similarity or 0) > 0.999 for point in points)
    assert worse_than_before(points) == [2]
