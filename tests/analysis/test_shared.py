"""What the failing sequences of a run share."""

import pytest

from tests.analysis.histories import placed
from virnucpro_monitor.analysis.shared import shared_by_failing
from virnucpro_monitor.records import Thresholds

THRESHOLDS = Thresholds(strict=0.999, lenient=0.995)
# Two packs of three: lengths by place.
LENGTHS = ((50, 120, 30), (200, 10, 70))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({(0, 0), (1, 0)}, "the first of each pack"),
        ({(0, 2), (1, 2)}, "the last of each pack"),
        ({(0, 1), (1, 0)}, "the longest of each pack"),
        ({(0, 1), (0, 2), (1, 1), (1, 2)}, "all but the first of each pack"),
        ({(1, 0), (1, 1), (1, 2)}, "all of pack 2"),
        ({(0, 1), (1, 0)}, "all of 120 residues or more, and no shorter one"),
        ({(1, 1)}, "all of 10 residues or fewer, and no longer one"),
    ],
)
def test_what_tells_the_failing_from_the_agreeing_is_said(
    bad: set[tuple[int, int]], words: str
) -> None:
    assert words in shared_by_failing(placed(LENGTHS, bad), THRESHOLDS)


def test_nothing_is_said_where_all_agree_or_none_or_nothing_fits() -> None:
    every = {(pack, slot) for pack in (0, 1) for slot in (0, 1, 2)}
    for bad in (set(), every, {(0, 0), (1, 2)}):
        assert shared_by_failing(placed(LENGTHS, bad), THRESHOLDS) == []
