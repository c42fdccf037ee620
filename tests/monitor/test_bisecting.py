"""What a search says of changes that it was not asked for."""

import pytest

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.monitor.bisecting import (
    BisectOptions,
    Change,
    describe_changes,
    find_changes,
)
from virnucpro_monitor.records import Commit

LINE = [letter * 40 for letter in "abcdefgh"]
COMMITS = {name: Commit(hash=name, subject=f"Change {name[0]}") for name in LINE}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("gggggggg", []),
        ("ggbbbbbb", [("c", "bad", 0)]),
        ("gbgbbbbb", [("b", "bad", 0), ("c", "good", 0), ("d", "bad", 0)]),
        ("g..b..g.", [("d", "bad", 2), ("g", "good", 2)]),
        ("..g.g.b.", [("g", "bad", 1)]),
        ("gs.b....", [("d", "bad", 2)]),
        ("........", []),
    ],
)
def test_changes_are_found_between_the_nearest_known_verdicts(
    verdicts: str, expected: list[tuple[str, str, int]]
) -> None:
    words = {"g": "good", "b": "bad", "s": "skip"}
    known = {
        name: words[letter] for name, letter in zip(LINE, verdicts, strict=True) if letter != "."
    }
    found = find_changes(LINE, known)
    assert [(one.commit[0], one.verdict, one.num_between) for one in found] == expected


def test_changes_are_told_with_their_doubt() -> None:
    changes = [Change(LINE[1], "bad", 0), Change(LINE[4], "good", 2)]
    assert describe_changes(changes, COMMITS) == [
        "",
        "The verdict also changes elsewhere in this range, by what is stored:",
        "    bad  from bbbbbbbbbb Change b",
        "    good from eeeeeeeeee Change e (or at one of the 2 before it without a verdict)",
    ]
    assert describe_changes([], COMMITS) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_is_refused(value: float) -> None:
    for name in ("max_time_s", "wait_s", "gpu_wait_s"):
        with pytest.raises(ConfigurationError, match=name):
            BisectOptions(**{name: value})
