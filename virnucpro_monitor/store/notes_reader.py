"""Reads what people and searches have left: acknowledgements, judgements, bisections."""

from collections import defaultdict

from sqlalchemy import Engine, select

from virnucpro_monitor.records import (
    Acknowledgement,
    Bisection,
    BisectStep,
    Figures,
    Judgement,
    PolicyRule,
    from_json,
)
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import (
    AcknowledgementRow,
    BisectionRow,
    BisectStepRow,
    JudgementRow,
    PolicyRow,
    ProtocolRow,
)
from virnucpro_monitor.store.rows import gates_from_json
from virnucpro_monitor.store.statements import find_target_id, table_of


def load_acknowledgements(
    engine: Engine, *, incident: str | None = None, withdrawn: bool = False
) -> list[Acknowledgement]:
    """Acknowledgements, oldest first; withdrawn ones only if asked for, expired ones always."""
    with reading(engine) as connection:
        table = table_of(AcknowledgementRow)
        query = select(table).order_by(table.c.id)
        if incident is not None:
            query = query.where(table.c.incident == incident)
        if not withdrawn:
            query = query.where(table.c.withdrawn_at.is_(None))
        return [Acknowledgement(**row._mapping) for row in connection.execute(query)]


def load_policy(engine: Engine, target: str, *, withdrawn: bool = False) -> list[PolicyRule]:
    """The rules of a target, oldest first; those that were taken back only if asked for.

    Raises:
        NotFoundError: there is no such target.
    """
    with reading(engine) as connection:
        table = table_of(PolicyRow)
        query = (
            select(table)
            .where(table.c.target_id == find_target_id(connection, target))
            .order_by(table.c.id)
        )
        if not withdrawn:
            query = query.where(table.c.withdrawn_at.is_(None))
        rows = [dict(row._mapping) for row in connection.execute(query)]
    for row in rows:
        del row["target_id"]
    return [PolicyRule(target=target, **row) for row in rows]


def load_judgements(engine: Engine, run_id: int) -> list[Judgement]:
    """How a run was judged again under other protocols, the latest last."""
    with reading(engine) as connection:
        query = (
            select(table_of(JudgementRow), ProtocolRow.version, ProtocolRow.digest)
            .join(ProtocolRow, ProtocolRow.id == JudgementRow.protocol_id)
            .where(JudgementRow.run_id == run_id)
            .order_by(JudgementRow.judged_at)
        )
        return [
            Judgement(
                run_id=row.run_id,
                protocol_version=row.version,
                protocol_digest=row.digest,
                outcome=row.outcome,
                culprit=row.culprit,
                reason=row.reason,
                figures=from_json(Figures, row.figures),
                gates=gates_from_json(row.gates),
                judged_at=row.judged_at,
            )
            for row in connection.execute(query)
        ]


def load_bisections(engine: Engine, target: str) -> list[Bisection]:
    """A target's bisections with their steps, oldest first.

    Raises:
        NotFoundError: there is no such target.
    """
    with reading(engine) as connection:
        target_id = find_target_id(connection, target)
        columns = [column for column in table_of(BisectionRow).c if column.name != "target_id"]
        found = connection.execute(
            select(*columns).where(BisectionRow.target_id == target_id).order_by(BisectionRow.id)
        ).all()
        steps: dict[int, list[BisectStep]] = defaultdict(list)
        table = table_of(BisectStepRow)
        query = (
            select(table)
            .where(table.c.bisection_id.in_([row.id for row in found]))
            .order_by(table.c.step)
        )
        for row in connection.execute(query):
            values = dict(row._mapping)
            steps[values.pop("bisection_id")].append(BisectStep(**values))
        return [
            Bisection(**row._mapping, target=target, steps=tuple(steps[row.id])) for row in found
        ]
