"""Stores runs, targets, commits and benchmark sets, each call in one transaction."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, select, update

from virnucpro_monitor.records import Commit, RunReport, Target
from virnucpro_monitor.store.connection import writing
from virnucpro_monitor.store.models import (
    CommitRow,
    TargetRow,
)
from virnucpro_monitor.store.operations import OperationsWriter
from virnucpro_monitor.store.retrying import patient, retried
from virnucpro_monitor.store.saving import Draft, Saving
from virnucpro_monitor.store.statements import (
    ensure_commits,
    find_target_id,
    table_of,
    target_values,
    upsert,
)


class Writer(OperationsWriter):
    """Stores records. Readers see each call's effect whole or not at all.

    Every method raises `StoreError` where the database cannot be written.
    """

    def save_run(self, report: RunReport, *, again: bool = False) -> int:
        """Store a run with all that belongs to it, and return its id.

        An earlier run of the same commit, benchmark set and configuration is kept but no longer
        current. A run that only says `not_run` never takes the place of one that says more.

        Args:
            again: the very same run may be stored already, and is not stored twice then.

        Raises:
            StoreError: a number is NaN or infinite, a result does not fit the benchmark set, or
                the set differs from the stored one of its name and version.
        """
        draft = Draft.of(report)

        def save(unsure: bool) -> int:
            with writing(self.engine) as connection:
                saving = Saving(connection)
                run_id = saving.save(draft, again=again or unsure)
                saving.finish()
            return run_id

        return retried(save, patience_s=self.patience_s, on_wait=self.on_wait)

    def save_runs(self, reports: Iterable[RunReport], *, again: bool = False) -> list[int]:
        """Store many runs in one transaction, and return their ids in the same order.

        Unlike other methods it is not tried again where the database is away.

        Args:
            again: as of `save_run`.

        Raises:
            StoreError: as `save_run`; none of them is stored then.
        """
        with writing(self.engine) as connection:
            saving = Saving(connection)
            ids = [saving.save(Draft.of(report), again=again) for report in reports]
            saving.finish()
        return ids

    @patient
    def save_target(self, target: Target) -> None:
        """Store a target, or change the stored one of its name."""
        with writing(self.engine) as connection:
            connection.execute(upsert(TargetRow, connection, ["name"], target_values(target)))

    @patient
    def delete_target(self, name: str) -> None:
        """Delete a target with its commits, runs and all that belongs to them.

        Raises:
            NotFoundError: there is none of that name.
        """
        with writing(self.engine) as connection:
            target_id = find_target_id(connection, name)
            connection.execute(delete(TargetRow).where(TargetRow.id == target_id))

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
        return self._save_commits(target_name, list(commits), whole_history)

    @patient
    def _save_commits(
        self, target_name: str, commits: Sequence[Commit], whole_history: bool
    ) -> int:
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
                    .values(
                        on_branch=False,
                        former_position=commit_table.c.position,
                        left_at=datetime.now(UTC),
                        position=None,
                    ),
                    gone,
                )
            return len(gone)
