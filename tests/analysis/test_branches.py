"""Runs of other branches are set into the followed branch's history by date."""

from dataclasses import replace
from datetime import timedelta

from tests.analysis.histories import commit, history, run
from virnucpro_monitor.analysis.branches import (
    branch_names,
    commits_of_branch,
    first_parents_outside,
    merged_by_date,
)
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.records import Run

BRANCHES = {"a" * 40: ("feature", "wip"), "b" * 40: ("feature",), "c" * 40: ()}


def off_branch(place: int, *, hours: int, parents: tuple[str, ...] = ()) -> Run:
    """A run whose commit is that many hours younger than the followed branch's at `place`."""
    base = commit(place)
    assert base.committed_at is not None
    moment = base.committed_at + timedelta(hours=hours)
    own = replace(
        base,
        hash=f"f{place:03x}{hours:036x}",
        parents=parents,
        committed_at=moment,
        position=None,
        on_branch=False,
    )
    return run(place, commit=own)


def test_names_and_commits_of_branches() -> None:
    assert branch_names(BRANCHES) == ["feature", "wip"]
    assert commits_of_branch(BRANCHES, "feature") == ["a" * 40, "b" * 40]
    assert commits_of_branch(BRANCHES, "main") == []


def test_a_branch_left_where_its_first_parents_lead() -> None:
    first = off_branch(2, hours=1, parents=(commit(2).hash, "e" * 40))
    second = off_branch(2, hours=2, parents=(first.commit.hash,))
    assert first_parents_outside([first, second]) == [commit(2).hash]
    assert first_parents_outside([off_branch(1, hours=1)]) == []


def test_others_come_before_the_first_younger_commit() -> None:
    followed = history("PPFP")
    others = [off_branch(9, hours=0), off_branch(1, hours=5), off_branch(1, hours=2)]
    merged = merged_by_date(followed, others)
    assert [r for r in merged if r.commit.on_branch] == followed
    assert merged == sorted(merged, key=commit_date)
    assert merged[2:4] == [others[2], others[1]]
    assert merged[-1] == others[0]
    assert merged_by_date(followed, []) == followed


def test_the_followed_branch_keeps_its_order_whatever_its_dates() -> None:
    old, new = history("PP")
    swapped = [replace(old, commit=replace(old.commit, committed_at=commit_date(new))), new]
    other = off_branch(0, hours=3)
    assert merged_by_date(swapped, [other]) == [other, *swapped]
