"""Stores and reads alerts and how each was delivered."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Engine, insert, select, update

from virnucpro_monitor.records import Alert, Delivery, DeliveryState
from virnucpro_monitor.store.connection import reading, writing
from virnucpro_monitor.store.models import AlertRow, DeliveryRow
from virnucpro_monitor.store.statements import table_of

_ALERTS, _DELIVERIES = table_of(AlertRow), table_of(DeliveryRow)


def save_alert(engine: Engine, alert: Alert, due: Sequence[tuple[str, datetime]]) -> int:
    """Store an alert with its deliveries, and return its id.

    Args:
        due: channel and the moment before which nothing is sent there.
    """
    values = dataclasses.asdict(alert) | {"keys": list(alert.keys), "facts": dict(alert.facts)}
    del values["id"]
    with writing(engine) as connection:
        statement = insert(_ALERTS).values(values).returning(_ALERTS.c.id)
        alert_id = int(connection.execute(statement).scalar_one())
        for channel, moment in due:
            connection.execute(
                insert(_DELIVERIES).values(
                    alert_id=alert_id,
                    channel=channel,
                    state=DeliveryState.WAITING,
                    attempts=0,
                    due_at=moment,
                    problem="",
                )
            )
    return alert_id


def load_alerts(engine: Engine, target: str | None = None) -> list[Alert]:
    """Alerts of one target or of all, oldest first, those that nobody was told of too."""
    query = select(_ALERTS).order_by(_ALERTS.c.id)
    if target is not None:
        query = query.where(_ALERTS.c.target == target)
    with reading(engine) as connection:
        return [
            Alert(**{**row._mapping, "keys": tuple(row.keys)}) for row in connection.execute(query)
        ]


def load_deliveries(engine: Engine) -> list[Delivery]:
    """All deliveries, oldest alert first."""
    query = select(_DELIVERIES).order_by(_DELIVERIES.c.alert_id, _DELIVERIES.c.id)
    with reading(engine) as connection:
        return [Delivery(**row._mapping) for row in connection.execute(query)]


def save_delivery(engine: Engine, delivery: Delivery) -> None:
    """Store what became of a delivery since it was read."""
    with writing(engine) as connection:
        connection.execute(
            update(_DELIVERIES)
            .where(_DELIVERIES.c.id == delivery.id)
            .values(
                state=delivery.state,
                attempts=delivery.attempts,
                due_at=delivery.due_at,
                ended_at=delivery.ended_at,
                problem=delivery.problem,
            )
        )
