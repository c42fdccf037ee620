import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runner.tiny_target import TinyRepository
from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.runner.bisect import BAD, GOOD, SKIP, line_between, search
from virnucpro_monitor.runner.checkout import Repository


@given(
    size=st.integers(2, 60),
    data=st.data(),
    old=st.sampled_from([GOOD, BAD]),
)
def test_the_change_is_found_in_few_steps_either_way(
    size: int, data: st.DataObject, old: str
) -> None:
    change = data.draw(st.integers(1, size - 1))
    new = BAD if old == GOOD else GOOD
    asked: list[str] = []

    def judge(commit: str) -> str:
        asked.append(commit)
        return old if int(commit) < change else new

    *_, answer = search([str(place) for place in range(size)], old, judge)
    assert answer.suspects == (str(change),)
    assert answer.verdict == new
    assert len(asked) == len(set(asked)) <= (size - 1).bit_length()


@given(size=st.integers(3, 40), data=st.data())
def test_commits_that_cannot_run_are_stepped_around(size: int, data: st.DataObject) -> None:
    change = data.draw(st.integers(1, size - 1))
    skipped = data.draw(st.sets(st.integers(1, size - 2)))

    def judge(commit: str) -> str:
        return SKIP if int(commit) in skipped else (GOOD if int(commit) < change else BAD)

    *_, answer = search([str(place) for place in range(size)], GOOD, judge)
    suspects = [int(commit) for commit in answer.suspects]
    assert change in suspects
    # All but the last suspect could not be judged.
    assert set(suspects[:-1]) <= skipped
    assert suspects[-1] not in skipped


def test_a_budget_ends_the_search_with_what_is_left() -> None:
    *_, answer = search(["a", "b", "c", "d"], GOOD, lambda _: BAD, may_go_on=lambda: False)
    assert answer.exhausted
    assert answer.suspects == ("b", "c", "d")


def test_the_line_runs_from_the_older_to_the_newer(tiny: TinyRepository) -> None:
    first = tiny.git("rev-parse", "HEAD")
    second = tiny.commit({"a": "1"})
    third = tiny.commit({"a": "2"})
    tiny.git("checkout", "--quiet", "-b", "side", first)
    side = tiny.commit({"b": "1"})
    repository = Repository.open(str(tiny.folder), tiny.folder.parent / "cache")
    assert line_between(repository, first, third) == (first, second, third)
    assert line_between(repository, third, second) == (second, third)
    with pytest.raises(RepositoryError, match="not on one line"):
        line_between(repository, side, third)
