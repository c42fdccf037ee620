"""Targets and their commits."""

import dataclasses

import pytest
from sqlalchemy import Engine, text

from tests.store.builders import TARGET, make_commit, make_report
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.writer import Writer


def test_a_target_can_be_changed(engine: Engine, writer: Writer) -> None:
    writer.save_target(TARGET)
    moved = dataclasses.replace(TARGET, location="/srv/git/sample", paths=(), branch=None)
    writer.save_target(moved)
    assert reader.load_targets(engine) == [moved]


def test_a_run_leaves_a_stored_target_as_it_is(engine: Engine, writer: Writer) -> None:
    writer.save_target(TARGET)
    writer.save_run(make_report(target=dataclasses.replace(TARGET, paths=("other",))))
    assert reader.load_target(engine, "sample") == TARGET


def test_an_unknown_target_is_named(engine: Engine, writer: Writer) -> None:
    for call in (
        lambda: reader.load_target(engine, "nobody"),
        lambda: reader.load_commits(engine, "nobody"),
        lambda: reader.find_commits(engine, "nobody", "00"),
        lambda: writer.save_commits("nobody", [make_commit(0)]),
        lambda: writer.delete_target("nobody"),
    ):
        with pytest.raises(NotFoundError, match="no target 'nobody'"):
            call()


def test_a_deleted_target_takes_all_its_rows_along(engine: Engine, writer: Writer) -> None:
    other = dataclasses.replace(TARGET, name="other")
    writer.save_run(make_report(1, documents={"probes": {}}))
    kept = writer.save_run(make_report(1, target=other))
    writer.delete_target("sample")
    assert [target.name for target in reader.load_targets(engine)] == ["other"]
    assert [run.id for run in reader.load_runs(engine, all_attempts=True)] == [kept]
    with engine.connect() as connection:
        for table, rows in (("commits", 1), ("sequence_results", 3), ("documents", 0)):
            counted = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar()
            assert counted == rows, table


def test_commits_come_back_as_they_were_given(engine: Engine, writer: Writer) -> None:
    writer.save_target(TARGET)
    merge = make_commit(2, parents=(make_commit(1).hash, "f" * 40))
    commits = [make_commit(0), make_commit(1), merge, make_commit(3)]
    writer.save_commits("sample", reversed(commits))
    assert reader.load_commits(engine, "sample") == commits
    assert reader.load_commits(engine, "sample", limit=2) == commits[2:]


def test_what_is_not_known_of_a_commit_keeps_its_stored_value(
    engine: Engine, writer: Writer
) -> None:
    whole = make_commit(5)
    bare = make_commit(
        5, parents=(), subject="", author="", authored_at=None, committed_at=None, position=None
    )
    writer.save_run(make_report(commit=bare))
    assert reader.load_commits(engine, "sample") == [bare]
    writer.save_commits("sample", [whole])
    assert reader.load_commits(engine, "sample") == [whole]
    writer.save_run(make_report(commit=bare))
    assert reader.load_commits(engine, "sample") == [whole]


def test_a_force_push_takes_commits_off_the_branch_and_keeps_their_runs(
    engine: Engine, writer: Writer
) -> None:
    for number in range(4):
        writer.save_run(make_report(number))
    rewritten = [make_commit(0), make_commit(1), make_commit(12, position=2)]
    assert writer.save_commits("sample", rewritten) == 0  # a part of the history says nothing
    assert writer.save_commits("sample", rewritten, whole_history=True) == 2
    gone = [
        dataclasses.replace(make_commit(number), position=None, on_branch=False)
        for number in (2, 3)
    ]
    left = reader.load_commits(engine, "sample", on_branch=False)
    assert [commit.former_position for commit in left] == [2, 3]
    assert all(commit.left_at is not None for commit in left)
    assert [dataclasses.replace(one, former_position=None, left_at=None) for one in left] == gone
    assert reader.load_commits(engine, "sample", on_branch=True) == rewritten
    assert reader.load_commits(engine, "sample") == [*left, *rewritten]
    assert len(reader.load_runs(engine, target="sample", on_branch=False)) == 2

    # Measuring one of them again does not bring it back; finding it in the history does.
    writer.save_run(make_report(commit=make_commit(3, position=None)))
    assert reader.load_commits(engine, "sample", on_branch=False) == left
    writer.save_commits("sample", [make_commit(number) for number in range(4)], whole_history=True)
    assert [commit.position for commit in reader.load_commits(engine, "sample")] == [
        None,
        0,
        1,
        2,
        3,
    ]


def test_commits_are_found_by_the_beginning_of_their_hash(engine: Engine, writer: Writer) -> None:
    writer.save_target(TARGET)
    commits = [make_commit(0, hash=digits.ljust(40, "0")) for digits in ("ab1f", "ab2", "abf", "c")]
    writer.save_commits("sample", commits)

    def found(prefix: str) -> list[str]:
        return [commit.hash.rstrip("0") for commit in reader.find_commits(engine, "sample", prefix)]

    assert found("ab") == ["ab1f", "ab2", "abf"]
    assert found(" AB1 ") == ["ab1f"]
    assert found("abf" + "0" * 37) == ["abf"]
    assert found("abf" + "0" * 38) == []
    for hopeless in ("", "main", "ab%", "g", "d"):
        assert found(hopeless) == []
