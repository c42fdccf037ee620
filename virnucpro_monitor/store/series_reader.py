"""Reads what is known of whole histories: series, marks, coverage, branches, flips."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Subquery, case, func, select

from virnucpro_monitor.records import (
    VERDICTS,
    Coverage,
    Outcome,
    RunMark,
    Series,
)
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import (
    BenchmarkSetRow,
    CommitRow,
    ConfigurationRow,
    DocumentRow,
    RunRow,
    TargetRow,
)
from virnucpro_monitor.store.queries import NEWEST_FIRST, read_runs, run_conditions
from virnucpro_monitor.store.rows import COMMIT_COLUMNS, commit_from_row
from virnucpro_monitor.store.statements import find_target_id, table_of

MAX_MISSING = 100
SETTLED = (*VERDICTS, Outcome.SKIPPED)


def load_series(engine: Engine, *, target: str | None = None) -> list[Series]:
    """One record for each target, benchmark set and configuration, sorted by these."""
    with reading(engine) as connection:
        conditions = run_conditions(target, None, None, all_attempts=False)
        key = (RunRow.target_id, RunRow.benchmark_set_id, RunRow.configuration_id)
        counts: dict[tuple[int, int, int], dict[Outcome, int]] = defaultdict(dict)
        counted = select(*key, RunRow.outcome, func.count()).where(*conditions)
        for target_id, set_id, configuration_id, outcome, number in connection.execute(
            counted.group_by(*key, RunRow.outcome)
        ):
            counts[target_id, set_id, configuration_id][outcome] = number
        ranked = (
            select(
                RunRow.id,
                *key,
                func.row_number().over(partition_by=key, order_by=NEWEST_FIRST).label("rank"),
            )
            .join(CommitRow, CommitRow.id == RunRow.commit_id)
            .where(*conditions)
            .subquery()
        )
        latest = {
            row.id: (row.target_id, row.benchmark_set_id, row.configuration_id)
            for row in connection.execute(select(ranked).where(ranked.c.rank == 1))
        }
        series = []
        for run in read_runs(connection, [RunRow.id.in_(latest)]):
            place = latest[run.id or 0]
            series.append(
                Series(
                    target=run.target,
                    benchmark=run.benchmark,
                    benchmark_version=run.benchmark_version,
                    configuration=run.configuration,
                    latest=run,
                    outcome_counts=counts[place],
                    commits_behind=_count_commits_after(connection, place[0], run.commit.position),
                )
            )
    return sorted(
        series,
        key=lambda one: (
            one.target,
            one.benchmark,
            one.benchmark_version,
            one.configuration.model,
            one.configuration.dtype,
            one.configuration.backend,
            one.configuration.digest,
        ),
    )


def load_recent_marks(engine: Engine, limit: int) -> list[RunMark]:
    """The newest current runs of each series, at most `limit` of each, newest last.

    Those of commits that are not on the followed branch are left out.
    """
    key = (RunRow.target_id, RunRow.benchmark_set_id, RunRow.configuration_id)
    ranked = (
        select(
            *key,
            CommitRow.hash.label("commit"),
            CommitRow.position,
            RunRow.outcome,
            RunRow.inherited_outcome,
            RunRow.min_similarity,
            func.row_number().over(partition_by=key, order_by=NEWEST_FIRST).label("rank"),
        )
        .join(CommitRow, CommitRow.id == RunRow.commit_id)
        .where(*run_conditions(None, None, None, all_attempts=False), CommitRow.on_branch.is_(True))
        .subquery()
    )
    query = (
        select(
            TargetRow.name.label("target"),
            BenchmarkSetRow.name.label("benchmark"),
            BenchmarkSetRow.version.label("benchmark_version"),
            ConfigurationRow.digest.label("configuration"),
            ranked.c.commit,
            ranked.c.position,
            ranked.c.outcome,
            ranked.c.inherited_outcome,
            ranked.c.min_similarity,
        )
        .join(TargetRow, TargetRow.id == ranked.c.target_id)
        .join(BenchmarkSetRow, BenchmarkSetRow.id == ranked.c.benchmark_set_id)
        .join(ConfigurationRow, ConfigurationRow.id == ranked.c.configuration_id)
        .where(ranked.c.rank <= limit)
        .order_by(ranked.c.target_id, ranked.c.rank.desc())
    )
    with reading(engine) as connection:
        return [RunMark(**row._mapping) for row in connection.execute(query)]


def _count_commits_after(connection: Connection, target_id: int, position: int | None) -> int:
    if position is None:
        return 0
    # Only commits on the branch have a position.
    query = select(func.count()).where(
        CommitRow.target_id == target_id, CommitRow.position > position
    )
    return connection.execute(query).scalar_one()


def load_coverage(
    engine: Engine, target: str, *, benchmark: str | None = None, configuration: str | None = None
) -> Coverage:
    """How many of a target's commits are accounted for, by any run or by those of one series.

    Raises:
        NotFoundError: there is no such target.
    """
    with reading(engine) as connection:
        target_id = find_target_id(connection, target)
        covered = _coverage_by_commit(run_conditions(target, benchmark, configuration, False))
        joined = table_of(CommitRow).outerjoin(covered, covered.c.commit_id == CommitRow.id)
        counted = (
            select(CommitRow.on_branch, covered.c.measured, func.count())
            .select_from(joined)
            .where(CommitRow.target_id == target_id)
            .group_by(CommitRow.on_branch, covered.c.measured)
        )
        counts: dict[tuple[bool, int | None], int] = {
            (on_branch, measured): number
            for on_branch, measured, number in connection.execute(counted)
        }
        missing = connection.execute(
            select(*COMMIT_COLUMNS)
            .select_from(joined)
            .where(
                CommitRow.target_id == target_id,
                CommitRow.on_branch,
                covered.c.measured.is_(None),
            )
            .order_by(*NEWEST_FIRST)
            .limit(MAX_MISSING)
        )
        return Coverage(
            target=target,
            num_seen=sum(counts.values()),
            num_on_branch=sum(number for (there, _), number in counts.items() if there),
            num_measured=counts.get((True, 1), 0),
            num_unmeasured=counts.get((True, 0), 0),
            num_missing=counts.get((True, None), 0),
            missing=tuple(commit_from_row(row) for row in missing),
        )


def _coverage_by_commit(conditions: list[Any]) -> Subquery:
    """(commit_id, measured 0 or 1) of each commit that has a current run."""
    measured = func.max(case((RunRow.outcome.in_(SETTLED), 1), else_=0)).label("measured")
    return (
        select(RunRow.commit_id, measured)
        .where(*conditions)
        .group_by(RunRow.commit_id)
        .subquery("covered")
    )


def load_branches(engine: Engine, target: str) -> dict[str, tuple[str, ...]]:
    """The branches of each commit that was measured off the followed branch, by full hash.

    They are what its latest run was stored with; a commit that left the followed branch by a
    rewrite, and that nobody measured on another one, is not among them.

    Raises:
        NotFoundError: there is no such target.
    """
    with reading(engine) as connection:
        query = (
            select(CommitRow.hash, DocumentRow.content)
            .join(RunRow, RunRow.commit_id == CommitRow.id)
            .join(DocumentRow, DocumentRow.run_id == RunRow.id)
            .where(
                CommitRow.target_id == find_target_id(connection, target),
                CommitRow.position.is_(None),  # so are all that are off the branch, and few others
                CommitRow.on_branch.is_(False),
                DocumentRow.name == "branches",
            )
            .order_by(RunRow.id)
        )
        return {hash_: tuple(names) for hash_, names in connection.execute(query)}


def load_flips(engine: Engine, target: str) -> dict[int, int]:
    """How often the verdict on the same code and set-up changed, by the latest attempt's run id.

    Attempts are alike where code digest, benchmark set, configuration, environment and protocol
    are. Those with one verdict throughout are left out.

    Raises:
        NotFoundError: there is no such target.
    """
    alike = (
        RunRow.code_digest,
        RunRow.benchmark_set_id,
        RunRow.configuration_id,
        RunRow.environment_id,
        RunRow.protocol_id,
    )
    with reading(engine) as connection:
        query = (
            select(RunRow.id, RunRow.outcome, *alike)
            .where(
                RunRow.target_id == find_target_id(connection, target),
                RunRow.code_digest.is_not(None),
                RunRow.outcome.in_(VERDICTS),
            )
            .order_by(RunRow.id)
        )
        latest: dict[Any, tuple[int, Outcome, int]] = {}
        for run_id, outcome, *setup in connection.execute(query):
            _, before, flips = latest.get(tuple(setup), (0, outcome, 0))
            latest[tuple(setup)] = (run_id, outcome, flips + (outcome is not before))
    return {run_id: flips for run_id, _, flips in latest.values() if flips}


def load_history_state(engine: Engine) -> tuple[int, int, datetime | None]:
    """Number of runs, number of commits, start of the last run.

    Changes whenever runs or commits are added or deleted, and costs a few milliseconds.
    """
    with reading(engine) as connection:
        runs, last_run_at = connection.execute(
            select(func.count(), func.max(RunRow.started_at)).select_from(RunRow)
        ).one()
        commits = connection.execute(select(func.count()).select_from(CommitRow)).scalar_one()
        return int(runs), int(commits), last_run_at
