#!/usr/bin/env bash
# alembic 1.20.1, SQLAlchemy 2.1.9, SQLite: batch mode rebuilds a table without AUTOINCREMENT.
#
# batch_alter_table copies a table to change it. The copy's primary key has lost AUTOINCREMENT, without
# a word, so the ids of deleted rows are given out again: what pointed at a deleted row points at a new
# one. An unnamed CHECK goes too, with a warning since this version; a partial index is kept.
#
# Seen: AUTOINCREMENT before, none after; the id of the deleted last row is used again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q alembic==1.20.1 sqlalchemy==2.1.9
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

engine = sa.create_engine("sqlite://")
with engine.begin() as connection:
    run = connection.exec_driver_sql
    run("create table runs (id integer primary key autoincrement, n integer, check (n >= 0))")
    run("create unique index one on runs (n) where n = 1")
    run("insert into runs (n) values (1), (2)")
    before = run("select sql from sqlite_master where name = 'runs'").scalar()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("runs", recreate="always") as batch:
            batch.alter_column("n", nullable=False)
    after = run("select sql from sqlite_master where name = 'runs'").scalar()
    index = run("select sql from sqlite_master where name = 'one'").scalar()
    run("delete from runs where id = 2")
    run("insert into runs (n) values (3)")
    reused = run("select max(id) from runs").scalar()
said = [str(warning.message) for warning in caught]
print(f"after: {' '.join(after.split())}; index: {index}; new id after deleting id 2: {reused}")
print("warned of:", [text.split(" being ")[0] for text in said])
sys.exit(
    not (
        "autoincrement" in before.lower()
        and "autoincrement" not in after.lower()
        and "CHECK" not in after
        and not any("autoincrement" in text.lower() for text in said)
        and index is not None
        and reused == 2
    )
)
PYTHON
cd "$folder"
venv/bin/python show.py
