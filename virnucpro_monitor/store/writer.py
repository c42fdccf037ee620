"""Stores runs, targets, commits and benchmark sets, each call in one transaction."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from sqlalchemy import and_, bindparam, delete, insert, select, update

from virnucpro_monitor.errors import NotFoundError, StoreError
from virnucpro_monitor.records import Commit, Outcome, Run, RunReport, Target
from virnucpro_monitor.store.connection import writing
from virnucpro_monitor.store.inheritance import adopt_waiting_runs, measured_run_id
from virnucpro_monitor.store.models import (
    CommitRow,
    ConfigurationRow,
    DocumentRow,
    EnvironmentRow,
    FailureRow,
    RunRow,
    SequenceResultRow,
    TargetRow,
)
from virnucpro_monitor.store.operations import OperationsWriter
from virnucpro_monitor.store.rows import (
    FIGURE_NAMES,
    INSERTED_NAMES,
    gates_to_json,
    refuse_not_finite,
    result_to_values,
)
from virnucpro_monitor.store.statements import (
    ensure_benchmark,
    ensure_commits,
    ensure_digested,
    ensure_protocol,
    ensure_target,
    find_target_id,
    insert_rows,
    table_of,
    target_values,
    upsert,
)


class Writer(OperationsWriter):
    """Stores records. Readers see each call's effect whole or not at all.

    Every method raises `StoreError` where the database cannot be written.
    """

    def save_run(self, report: RunReport) -> int:
        """Store a run with all that belongs to it, and return its id.

        An earlier run of the same commit, benchmark set and configuration is kept but no longer
        current. A run that only says `not_run` never takes the place of one that says more.

        Raises:
            StoreError: a number is NaN or infinite, a result does not fit the benchmark set, or
                the set differs from the stored one of its name and version.
        """
        _check_results(report)
        run = report.run
        values = _run_values(run)
        with writing(self.engine) as connection:
            values["target_id"] = ensure_target(connection, report.target)
            commit_ids = ensure_commits(connection, values["target_id"], [run.commit])
            values["commit_id"] = commit_ids[run.commit.hash]
            values["benchmark_set_id"] = ensure_benchmark(connection, report.benchmark)
            values["protocol_id"] = ensure_protocol(connection, report.protocol)
            values["configuration_id"] = ensure_digested(
                connection,
                ConfigurationRow,
                run.configuration.digest,
                dataclasses.asdict(run.configuration),
            )
            values["environment_id"] = run.environment and ensure_digested(
                connection,
                EnvironmentRow,
                run.environment.digest,
                dataclasses.asdict(run.environment),
            )
            values["inherited_run_id"] = measured_run_id(connection, run, values)
            current = and_(
                RunRow.commit_id == values["commit_id"],
                RunRow.benchmark_set_id == values["benchmark_set_id"],
                RunRow.configuration_id == values["configuration_id"],
                RunRow.superseded.is_(False),
            )
            before = connection.execute(select(RunRow.outcome).where(current)).scalar()
            says_less = run.outcome is Outcome.NOT_RUN and before not in {None, Outcome.NOT_RUN}
            if before is not None and not says_less:
                connection.execute(update(RunRow).where(current).values(superseded=True))
            statement = insert(RunRow).values(
                **values, superseded=says_less, num_results=len(report.sequences)
            )
            run_id: int = connection.execute(statement.returning(RunRow.id)).scalar_one()
            adopt_waiting_runs(connection, run, run_id, values)
            if report.sequences:
                rows = [result_to_values(run_id, result) for result in report.sequences]
                insert_rows(connection, SequenceResultRow, INSERTED_NAMES, rows)
            if report.failure is not None:
                connection.execute(
                    insert(FailureRow).values(run_id=run_id, **dataclasses.asdict(report.failure))
                )
            for name, content in report.documents.items():
                connection.execute(
                    insert(DocumentRow).values(run_id=run_id, name=name, content=content)
                )
        return run_id

    def save_target(self, target: Target) -> None:
        """Store a target, or change the stored one of its name."""
        with writing(self.engine) as connection:
            connection.execute(upsert(TargetRow, connection, ["name"], target_values(target)))

    def delete_target(self, name: str) -> None:
        """Delete a target with its commits, runs and all that belongs to them.

        Raises:
            NotFoundError: there is none of that name.
        """
        with writing(self.engine) as connection:
            target_id = find_target_id(connection, name)
            connection.execute(delete(TargetRow).where(TargetRow.id == target_id))

    def delete_run(self, run_id: int) -> None:
        """Delete one run; an earlier attempt at the same does not become current again.

        Raises:
            NotFoundError: there is no such run.
        """
        with writing(self.engine) as connection:
            if not connection.execute(delete(RunRow).where(RunRow.id == run_id)).rowcount:
                raise NotFoundError(f"There is no run {run_id} in the database.")

    def save_commits(
        self, target_name: str, commits: Iterable[Commit], *, whole_history: bool = False
    ) -> int:
        """Store commits, or what is newly known of stored ones.

        A commit without a position keeps the stored one, unless it is off the branch.

        Args:
            whole_history: `commits` is all that the branch holds; any other stored commit that
                was on it has left it (force-push, rebase) and keeps its runs.

        Returns:
            The number of commits that have left the branch.

        Raises:
            NotFoundError: there is no such target.
        """
        commits = list(commits)
        with writing(self.engine) as connection:
            target_id = find_target_id(connection, target_name)
            ensure_commits(connection, target_id, commits)
            if not whole_history:
                return 0
            there = {commit.hash for commit in commits}
            stored = connection.execute(
                select(CommitRow.id, CommitRow.hash).where(
                    CommitRow.target_id == target_id, CommitRow.on_branch
                )
            )
            gone = [{"gone_id": row.id} for row in stored if row.hash not in there]
            if gone:
                commit_table = table_of(CommitRow)
                connection.execute(
                    update(commit_table)
                    .where(commit_table.c.id == bindparam("gone_id"))
                    .values(on_branch=False, position=None),
                    gone,
                )
            return len(gone)


def _run_values(run: Run) -> dict[str, Any]:
    """The columns of `runs` that hold the run's own values, not ids."""
    figures: dict[str, Any] = (
        dict.fromkeys(FIGURE_NAMES) if run.figures is None else dataclasses.asdict(run.figures)
    )
    owner = f"the run of {run.target} at {run.commit.short}"
    refuse_not_finite(owner, {**figures, "duration_s": run.duration_s})
    for gate in run.gates:
        refuse_not_finite(f"gate {gate.name!r}", {"value": gate.value, "limit": gate.limit})
    return {
        "outcome": run.outcome,
        "culprit": run.culprit,
        "reason": run.reason,
        "gates": gates_to_json(run.gates),
        "inherited_from": run.inherited_from,
        "inherited_outcome": run.inherited_outcome,
        "packed_outcome": run.packed_outcome,
        "unpacked_outcome": run.unpacked_outcome,
        "code_digest": run.code_digest,
        "bridge": run.bridge,
        "started_at": run.started_at,
        "duration_s": run.duration_s,
        **figures,
    }


def _check_results(report: RunReport) -> None:
    """Each result must be of the sequence that its index names: only the index is stored."""
    sequences = report.benchmark.sequences
    for result in report.sequences:
        in_set = 0 <= result.index < len(sequences)
        if not in_set or sequences[result.index].id != result.sequence_id:
            raise StoreError(
                f"The result of sequence {result.sequence_id!r} has index {result.index}, which is "
                f"not its place in benchmark {report.benchmark.label}."
            )
