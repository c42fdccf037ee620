from dataclasses import replace

from tests.analysis.histories import environment, run
from virnucpro_monitor.analysis.environment_moves import find_environment_moves
from virnucpro_monitor.analysis.movements import Figure
from virnucpro_monitor.analysis.series import series_key
from virnucpro_monitor.records import Run

NEW = environment(torch="2.14.0")


def line(old: int, new: int, *, error: float = 1e-5, code: str = "") -> list[Run]:
    """So many runs with errors of 1e-6 in the old environment, and so many in a new one."""
    before = [run(place, similarity=1 - 1e-6, code_digest="same") for place in range(old)]
    after = [
        run(place, similarity=1 - error, environment=NEW, code_digest=code or f"other {place}")
        for place in range(old, old + new)
    ]
    return [*before, *after]


def moved(runs: list[Run]) -> list[Figure]:
    return [one.figure for one in find_environment_moves(series_key(runs[0]), runs)]


def test_results_that_move_where_the_environment_changed_are_found() -> None:
    runs = line(5, 3)
    (worst, *_) = found = find_environment_moves(series_key(runs[0]), runs)
    assert {one.figure for one in found} == {Figure.WORST, Figure.P01, Figure.MEDIAN}
    assert (worst.before, worst.after) == (runs[4], runs[5])
    assert [str(one) for one in worst.differences] == ["torch: 2.13.0 → 2.14.0"]
    assert len({one.key for one in found}) == 1
    # One run is enough where its code is that of the last one before.
    assert moved(line(1, 1, code="same"))


def test_a_commit_noise_or_another_yardstick_may_be_the_cause_instead() -> None:
    assert moved(line(5, 2)) == [], "other code, and few runs of it"
    assert moved(line(5, 3, error=1.3e-6)) == [], "within the noise that is believed"
    other = [replace(one, protocol_digest="99" * 32) for one in line(5, 3)[5:]]
    assert moved([*line(5, 3)[:5], *other]) == []
    assert moved(line(5, 0)) == []
