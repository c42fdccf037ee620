"""Stores what keeps the monitor itself going: heartbeats, leases, acknowledgements and searches."""

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, delete, func, insert, or_, select, update

from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.records import (
    Acknowledgement,
    Bisection,
    BisectStep,
    ClusterHost,
    Judgement,
    PolicyRule,
    Protocol,
    to_json,
)
from virnucpro_monitor.store.connection import writing
from virnucpro_monitor.store.models import (
    AcknowledgementRow,
    BisectionRow,
    BisectStepRow,
    HeartbeatRow,
    JudgementRow,
    LeaseRow,
    PolicyRow,
    RunRow,
)
from virnucpro_monitor.store.owners import is_dead_here
from virnucpro_monitor.store.retrying import PATIENCE_S, patient, patient_once
from virnucpro_monitor.store.rows import gates_to_json, refuse_not_finite
from virnucpro_monitor.store.statements import (
    ensure_protocol,
    find_target_id,
    insert_or_update,
    upsert,
)


class OperationsWriter:
    def __init__(
        self,
        engine: Engine,
        *,
        patience_s: float = PATIENCE_S,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.engine = engine
        self.patience_s = patience_s
        self.on_wait = on_wait

    @patient
    def heartbeat(
        self,
        host: str,
        target: str,
        state: str,
        message: str,
        at: datetime | None = None,
        *,
        num_queued: int | None = None,
        exit_code: int | None = None,
        cluster: tuple[ClusterHost, ...] | None = None,
    ) -> None:
        """Say that the runner of `target` on `host` is alive.

        Args:
            at: now, if not given.
            exit_code: given when an invocation has ended; kept until the next one ends.
            cluster: the hosts that it measures on, where that is a cluster.
        """
        at = at or datetime.now(UTC)
        values = {
            "host": host,
            "target": target,
            "state": state,
            "message": message,
            "at": at,
            "num_queued": num_queued,
            "cluster": to_json(cluster),
        }
        if exit_code is not None:
            values |= {"exit_code": exit_code, "finished_at": at}
        with writing(self.engine) as connection:
            connection.execute(upsert(HeartbeatRow, connection, ["host", "target"], values))

    @patient
    def acquire_lease(self, name: str, owner: str, ttl_s: float) -> bool:
        """Take or renew a lock that all programs on this database share.

        It is free where nobody holds it, its holder let it run out, or is seen to be a dead process
        of this host (see `owners`); it is renewed where `owner` holds it already. Expiry goes by
        the database server's clock.

        Returns:
            Whether `owner` now holds it, for `ttl_s` seconds.
        """
        with writing(self.engine) as connection:
            now = _database_time(connection)
            holder = connection.execute(
                select(LeaseRow.owner).where(LeaseRow.name == name)
            ).scalar()
            free = [LeaseRow.owner == owner, LeaseRow.expires_at <= now]
            if holder is not None and is_dead_here(holder):
                free.append(LeaseRow.owner == holder)
            statement = insert_or_update(connection, LeaseRow).values(
                name=name, owner=owner, acquired_at=now, expires_at=now + timedelta(seconds=ttl_s)
            )
            new = statement.excluded
            taken = connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["name"],
                    set_={
                        "owner": new.owner,
                        "acquired_at": new.acquired_at,
                        "expires_at": new.expires_at,
                    },
                    where=or_(*free),
                ).returning(LeaseRow.name)
            )
            return taken.first() is not None

    @patient
    def release_lease(self, name: str, owner: str) -> bool:
        """Give a lock back; False where `owner` did not hold it."""
        with writing(self.engine) as connection:
            result = connection.execute(
                delete(LeaseRow).where(LeaseRow.name == name, LeaseRow.owner == owner)
            )
            return result.rowcount == 1

    @patient_once
    def acknowledge(self, acknowledgement: Acknowledgement) -> int:
        """Store an acknowledgement and return its id."""
        values = dataclasses.asdict(acknowledgement)
        del values["id"]
        refuse_not_finite("the acknowledgement", values)
        with writing(self.engine) as connection:
            statement = insert(AcknowledgementRow).values(values).returning(AcknowledgementRow.id)
            return connection.execute(statement).scalar_one()

    @patient
    def withdraw_acknowledgements(self, incident: str, who: str, at: datetime | None = None) -> int:
        """Withdraw all standing acknowledgements of an incident, and return how many there were."""
        with writing(self.engine) as connection:
            statement = (
                update(AcknowledgementRow)
                .where(
                    AcknowledgementRow.incident == incident,
                    AcknowledgementRow.withdrawn_at.is_(None),
                )
                .values(withdrawn_at=at or datetime.now(UTC), withdrawn_by=who)
            )
            return connection.execute(statement).rowcount

    @patient_once
    def set_policy(self, rule: PolicyRule) -> int:
        """Store a rule in place of the target's standing one for the gate, and return its id.

        Raises:
            NotFoundError: there is no such target.
        """
        values = dataclasses.asdict(rule)
        del values["id"], values["target"]
        with writing(self.engine) as connection:
            target_id = find_target_id(connection, rule.target)
            _withdraw_policy(connection, target_id, rule.gate, rule.who, rule.created_at)
            statement = insert(PolicyRow).values(target_id=target_id, **values)
            return connection.execute(statement.returning(PolicyRow.id)).scalar_one()

    @patient
    def withdraw_policy(self, target: str, gate: str, who: str, at: datetime) -> int:
        """Take the standing rule for a gate back, and return how many there were.

        Raises:
            NotFoundError: there is no such target.
        """
        with writing(self.engine) as connection:
            target_id = find_target_id(connection, target)
            return _withdraw_policy(connection, target_id, gate, who, at)

    @patient
    def save_judgement(self, judgement: Judgement, protocol: Protocol) -> None:
        """Store a run's new judgement, in place of an earlier one under the same protocol.

        Raises:
            NotFoundError: there is no such run.
        """
        with writing(self.engine) as connection:
            _require_run(connection, judgement.run_id)
            values = {
                "run_id": judgement.run_id,
                "protocol_id": ensure_protocol(connection, protocol),
                "outcome": judgement.outcome,
                "culprit": judgement.culprit,
                "reason": judgement.reason,
                "figures": to_json(judgement.figures),
                "gates": gates_to_json(judgement.gates),
                "judged_at": judgement.judged_at,
            }
            connection.execute(upsert(JudgementRow, connection, ["run_id", "protocol_id"], values))

    @patient_once
    def start_bisection(self, bisection: Bisection) -> int:
        """Store a bisection with the steps it has so far, and return its id.

        Raises:
            NotFoundError: there is no such target.
        """
        values = dataclasses.asdict(bisection)
        for name in ("id", "target", "steps"):
            del values[name]
        with writing(self.engine) as connection:
            values["target_id"] = find_target_id(connection, bisection.target)
            statement = insert(BisectionRow).values(values).returning(BisectionRow.id)
            bisection_id = connection.execute(statement).scalar_one()
            for step in bisection.steps:
                connection.execute(
                    insert(BisectStepRow).values(
                        bisection_id=bisection_id, **dataclasses.asdict(step)
                    )
                )
            return bisection_id

    @patient
    def save_bisect_step(self, bisection_id: int, step: BisectStep) -> None:
        with writing(self.engine) as connection:
            values = {"bisection_id": bisection_id, **dataclasses.asdict(step)}
            connection.execute(upsert(BisectStepRow, connection, ["bisection_id", "step"], values))

    @patient
    def finish_bisection(
        self,
        bisection_id: int,
        *,
        first_bad: str | None,
        conclusion: str,
        finished_at: datetime | None = None,
    ) -> None:
        """Store what a bisection found.

        Raises:
            NotFoundError: there is no such bisection.
        """
        with writing(self.engine) as connection:
            result = connection.execute(
                update(BisectionRow)
                .where(BisectionRow.id == bisection_id)
                .values(
                    first_bad=first_bad,
                    conclusion=conclusion,
                    finished_at=finished_at or datetime.now(UTC),
                )
            )
            if not result.rowcount:
                raise NotFoundError(f"There is no bisection {bisection_id} in the database.")


def _database_time(connection: Connection) -> datetime:
    """The clock that all users of the database share: an SQLite file has one host's."""
    if connection.dialect.name == "postgresql":
        moment = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment if isinstance(moment, datetime) else datetime.now(UTC)
    return datetime.now(UTC)


def _withdraw_policy(
    connection: Connection, target_id: int, gate: str, who: str, at: datetime
) -> int:
    statement = update(PolicyRow).where(
        PolicyRow.target_id == target_id,
        PolicyRow.gate == gate,
        PolicyRow.withdrawn_at.is_(None),
    )
    return connection.execute(statement.values(withdrawn_at=at, withdrawn_by=who)).rowcount


def _require_run(connection: Connection, run_id: int) -> None:
    if connection.execute(select(RunRow.id).where(RunRow.id == run_id)).scalar() is None:
        raise NotFoundError(f"There is no run {run_id} in the database.")
