"""Reads how the monitor itself is: heartbeats, commits that never ended, use, size."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, func, select, text

from virnucpro_monitor.records import (
    ClusterHost,
    DayUsage,
    Health,
    Heartbeat,
    Json,
    Lease,
    MachineUse,
    from_json,
)
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import (
    Base,
    ConfigurationRow,
    EnvironmentRow,
    FailureRow,
    HeartbeatRow,
    LeaseRow,
    RunRow,
    SequenceResultRow,
    TargetRow,
)
from virnucpro_monitor.store.statements import table_of

USAGE_DAYS = 90


def load_heartbeats(engine: Engine) -> list[Heartbeat]:
    """Each runner's last word, the latest first."""
    with reading(engine) as connection:
        return _read_heartbeats(connection)


def _read_heartbeats(connection: Connection) -> list[Heartbeat]:
    table = table_of(HeartbeatRow)
    rows = connection.execute(select(table).order_by(table.c.at.desc(), table.c.host))
    return [Heartbeat(**{**row._mapping, "cluster": _cluster_hosts(row.cluster)}) for row in rows]


def _cluster_hosts(stored: Json) -> tuple[ClusterHost, ...] | None:
    return None if stored is None else tuple(from_json(ClusterHost, one) for one in stored)


def load_health(engine: Engine, *, now: datetime | None = None) -> Health:
    """The state of the monitor itself; run time over the last `USAGE_DAYS` days."""
    since = (now or datetime.now(UTC)) - timedelta(days=USAGE_DAYS)
    with reading(engine) as connection:
        kinds = select(FailureRow.kind, func.count()).group_by(FailureRow.kind)
        leases = table_of(LeaseRow)
        return Health(
            heartbeats=tuple(_read_heartbeats(connection)),
            leases=tuple(
                Lease(**row._mapping)
                for row in connection.execute(select(leases).order_by(leases.c.name))
            ),
            failures={row[0]: row[1] for row in connection.execute(kinds)},
            usage=_read_usage(connection, since),
            machines=_read_machines(connection, since),
            last_run_at=connection.execute(select(func.max(RunRow.started_at))).scalar(),
            database_bytes=count_bytes(connection),
            schema_revision=str(
                connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
            ),
            row_counts=count_rows(connection),
        )


def _read_usage(connection: Connection, since: datetime) -> tuple[DayUsage, ...]:
    query = (
        select(RunRow.started_at, RunRow.duration_s, ConfigurationRow.device)
        .join(ConfigurationRow, ConfigurationRow.id == RunRow.configuration_id)
        .where(RunRow.started_at >= since)
    )
    days: dict[tuple[str, str], list[float]] = defaultdict(list)
    for started_at, duration_s, device in connection.execute(query):
        days[started_at.date().isoformat(), device].append(duration_s)
    return tuple(
        DayUsage(day=day, device=device, num_runs=len(durations), run_s=sum(durations))
        for (day, device), durations in sorted(days.items())
    )


def load_machines(
    engine: Engine, target: str | None = None, *, now: datetime | None = None
) -> tuple[MachineUse, ...]:
    """What each host and card did for one target, or for all, in the last `USAGE_DAYS` days."""
    since = (now or datetime.now(UTC)) - timedelta(days=USAGE_DAYS)
    with reading(engine) as connection:
        return _read_machines(connection, since, target)


def _read_machines(
    connection: Connection, since: datetime, target: str | None = None
) -> tuple[MachineUse, ...]:
    card = func.coalesce(EnvironmentRow.gpu, "").label("card")
    query = (
        select(EnvironmentRow.host, card, RunRow.commit_id, RunRow.started_at, RunRow.duration_s)
        .join(EnvironmentRow, EnvironmentRow.id == RunRow.environment_id)
        .where(RunRow.started_at >= since)
        .order_by(RunRow.started_at)
    )
    if target is not None:
        query = query.join(TargetRow, TargetRow.id == RunRow.target_id)
        query = query.where(TargetRow.name == target)
    commits: dict[tuple[str, str], list[int]] = defaultdict(list)
    times: dict[tuple[str, str], list[tuple[datetime, float]]] = defaultdict(list)
    for host, name, commit, started_at, duration_s in connection.execute(query):
        commits[host, name].append(commit)
        times[host, name].append((started_at, duration_s))
    found = [
        MachineUse(
            host=host,
            card=name,
            num_runs=len(runs),
            num_commits=len({*commits[host, name]}),
            run_s=sum(duration_s for _, duration_s in runs),
            busy_s=_busy_s(runs),
            last_at=runs[-1][0],
        )
        for (host, name), runs in times.items()
    ]
    return tuple(sorted(found, key=lambda one: -one.run_s))


def _busy_s(runs: Sequence[tuple[datetime, float]]) -> float:
    """Seconds in which any of these runs (start and duration, the earliest first) was measured."""
    busy_s = until_s = 0.0
    for started_at, duration_s in runs:
        begin_s = (started_at - runs[0][0]).total_seconds()
        end_s = begin_s + duration_s
        busy_s += max(0.0, end_s - max(begin_s, until_s))
        until_s = max(until_s, end_s)
    return busy_s


def count_rows(connection: Connection) -> dict[str, int]:
    """Rows by table. Those of `sequence_results` are summed up from the runs, not counted."""
    counts = {}
    for table in Base.metadata.sorted_tables:
        query = select(func.count()).select_from(table)
        if table is table_of(SequenceResultRow):
            query = select(func.coalesce(func.sum(RunRow.num_results), 0))
        counts[table.name] = int(connection.execute(query).scalar_one())
    return counts


def count_bytes(connection: Connection) -> int:
    """Size of the database, without SQLite's write-ahead log."""
    if connection.dialect.name == "postgresql":
        size = select(func.pg_database_size(func.current_database()))
        return int(connection.execute(size).scalar_one())
    pages: int = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    page_bytes: int = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return pages * page_bytes
