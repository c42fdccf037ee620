"""Writes `assets/REVISION.sql`, the dump that `test_migrations` upgrades.

Run once for each new schema, when it is released, and never again for an older one:

    python -m tests.store.make_asset
"""

import sqlite3
import tempfile
from pathlib import Path

from tests.store.builders import make_report
from virnucpro_monitor.records import Failure
from virnucpro_monitor.store.engine import SCHEMA_REVISION, create_database, open_engine
from virnucpro_monitor.store.writer import Writer

ASSETS = Path(__file__).parent / "assets"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "monitor.db"
        create_database(f"sqlite:///{path}")
        engine = open_engine(f"sqlite:///{path}")
        writer = Writer(engine)
        failure = Failure(kind="import", message="No module named 'sample'")
        writer.save_run(make_report(1, (), failure=failure))  # an attempt that was repeated
        writer.save_run(make_report(0, documents={"probes": {"leak": 0.0}}))
        writer.save_run(make_report(1, (0.9, 1.0, None)))
        writer.heartbeat("runner-1", "sample", "idle", "", make_report().run.started_at)
        engine.dispose()
        with sqlite3.connect(path) as database:
            dump = "\n".join(database.iterdump())
        database.close()
    (ASSETS / f"{SCHEMA_REVISION}.sql").write_text(f"{dump}\n")


if __name__ == "__main__":
    main()
