"""Watches the SQL that a call sends: its statements, their plans and numbers of rows."""

import re
import sqlite3
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, event

from virnucpro_monitor.store.models import Base

# They hold a handful of rows, whatever the number of runs.
SMALL_TABLES = {
    "acknowledgements",
    "alembic_version",
    "benchmark_sets",
    "configurations",
    "environments",
    "heartbeats",
    "leases",
    "policies",
    "protocols",
    "targets",
}
GRAIN = 100
LARGE_TABLES = Base.metadata.tables.keys() - SMALL_TABLES


class Watched:
    """The statements that a call sends, with their plans and numbers of rows.

    Attributes:
        answer: what the call returned.
        statements: the SELECTs, in their order.
        steps: the lines of their query plans.
        num_rows: rows that they fetched.
        num_instructions: what SQLite's machine did for them, to within `GRAIN`: grows with the
            rows that are looked at, not only with those that are fetched.
    """

    def __init__(self, engine: Engine, call: Callable[[], Any]) -> None:
        statements: list[tuple[str, Any]] = []

        def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith("SELECT"):
                statements.append((statement, parameters))

        event.listen(engine, "before_cursor_execute", note)
        try:
            self.answer = call()
        finally:
            event.remove(engine, "before_cursor_execute", note)
        self.statements = [statement for statement, _ in statements]
        self.steps: list[str] = []
        self.num_rows = 0
        self.num_instructions = 0

        def count() -> int:
            self.num_instructions += GRAIN
            return 0

        database = sqlite3.connect(f"file:{engine.url.database}?mode=ro", uri=True)
        for statement, parameters in statements:
            plan = database.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            self.steps += [detail for *_, detail in plan]
            database.set_progress_handler(count, GRAIN)
            self.num_rows += len(database.execute(statement, parameters).fetchall())
            database.set_progress_handler(None, 0)
        database.close()

    @property
    def full_scans(self) -> list[str]:
        """Steps that read a large table from end to end."""
        scans = [(step, re.match(r"SCAN (\w+)", step)) for step in self.steps]
        return [step for step, scan in scans if scan and scan[1] in LARGE_TABLES]
