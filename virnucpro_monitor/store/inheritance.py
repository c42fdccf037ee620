"""Which stored run stands behind a skipped one: kept by id, since a commit may be run again."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, case, select, update

from virnucpro_monitor.records import VERDICTS, Outcome, Run
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import CommitRow, RunRow
from virnucpro_monitor.store.queries import read_runs
from virnucpro_monitor.store.statements import Prepared, table_of


def load_measured_run(engine: Engine, run: Run) -> Run:
    """The run whose measures stand for `run`: for a skipped one, the run that it inherits from.

    It is found whatever became of its commit since: measured again, superseded, or measured in
    another environment. Where it was deleted, `run` itself, which has no sequences.
    """
    if run.outcome is not Outcome.SKIPPED or run.inherited_run_id is None:
        return run
    with reading(engine) as connection:
        found = read_runs(connection, [RunRow.id == run.inherited_run_id])
        return found[0] if found else run


def measured_run_id(connection: Connection, run: Run, ids: Mapping[str, Any]) -> int | None:
    """The id of the run that a skipped one inherits from; None where it is not stored (yet).

    Args:
        ids: the run's own `target_id`, `benchmark_set_id` and `configuration_id`.
    """
    if run.outcome is not Outcome.SKIPPED or run.inherited_from is None:
        return None
    measured = (
        RunRow.target_id == ids["target_id"],
        RunRow.benchmark_set_id == ids["benchmark_set_id"],
        RunRow.outcome.in_(VERDICTS),
        CommitRow.hash == run.inherited_from,
    )
    query = select(RunRow.id).join(CommitRow, CommitRow.id == RunRow.commit_id).where(*measured)
    if run.inherited_run_id is not None:
        known = connection.execute(query.where(RunRow.id == run.inherited_run_id)).scalar()
        if known is not None:
            return known
    return connection.execute(
        query.where(RunRow.configuration_id == ids["configuration_id"])
        .order_by(case((RunRow.outcome == run.inherited_outcome, 0), else_=1), RunRow.id.desc())
        .limit(1)
    ).scalar()


_RUNS = table_of(RunRow)
_ADOPT = Prepared(
    update(_RUNS)
    .where(
        # Both are said of `inherited_from` so that the index of waiting runs serves: there are few
        # of them, and it is asked with each run that is stored.
        _RUNS.c.inherited_from.is_not(None),
        _RUNS.c.inherited_from == bindparam("of_hash"),
        _RUNS.c.inherited_run_id.is_(None),
        _RUNS.c.outcome == Outcome.SKIPPED,
        _RUNS.c.inherited_outcome == bindparam("of_outcome"),
        _RUNS.c.target_id == bindparam("of_target"),
        _RUNS.c.benchmark_set_id == bindparam("of_set"),
        _RUNS.c.configuration_id == bindparam("of_configuration"),
    )
    .values(inherited_run_id=bindparam("adopter"))
)


def settle_waiting(connection: Connection, run: Run, run_id: int, ids: Mapping[str, Any]) -> None:
    """Point at a run that was just stored those that inherit from it and were stored before it.

    A start that does not go from old to new may release them in that order.

    Args:
        ids: the run's `target_id`, `benchmark_set_id` and `configuration_id`.
    """
    if not run.outcome.has_verdict:
        return
    _ADOPT.rows(
        connection,
        {
            "adopter": run_id,
            "of_hash": run.commit.hash,
            "of_outcome": run.outcome,
            "of_target": ids["target_id"],
            "of_set": ids["benchmark_set_id"],
            "of_configuration": ids["configuration_id"],
        },
    )
