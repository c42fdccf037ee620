#!/usr/bin/env bash
# adbc-driver-sqlite 1.13.0: a column's type is that of its first 1,024 rows, whatever was declared.
#
# A REAL column whose first batch is NULL is taken for int64. The first number behind it ends the read
# with an error; where there is none, or no row at all, the table comes with int64 for a column of
# doubles, and for one of text. Files written from such tables do not fit together. What is written the
# other way (adbc_ingest) loses NaN: it is NULL in the database, as SQLite has none, and says nothing.
#
# Seen: 1,500 NULLs and then 0.5 in a REAL column: OSError, "expected INT64 but got DOUBLE"; with
# adbc.sqlite.query.batch_rows=2000 double; without rows int64; ordered so that a number comes first double.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q adbc-driver-sqlite==1.13.0 adbc-driver-manager==1.13.0 pyarrow==26.0.1
cat >"$folder/show.py" <<'PYTHON'
import math
import sqlite3
import sys

import pyarrow
from adbc_driver_sqlite import dbapi

FILE = "results.db"
with sqlite3.connect(FILE) as database:
    database.execute("CREATE TABLE results (similarity REAL, name TEXT)")
    database.executemany("INSERT INTO results VALUES (?, ?)", [(None, None)] * 1500 + [(0.5, "a")])
database.close()


def kind(query, batch_rows=None):
    """The first column's type, or the error."""
    with dbapi.connect(f"file:{FILE}") as connection, connection.cursor() as cursor:
        if batch_rows:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(batch_rows)})
        try:
            cursor.execute(query)
            return str(cursor.fetch_arrow_table().schema.types[0])
        except Exception as error:
            return f"{type(error).__name__}: {error}"


found = {
    "all rows": kind("SELECT similarity FROM results"),
    "all rows, batches of 2,000": kind("SELECT similarity FROM results", 2000),
    "the number first": kind("SELECT similarity FROM results ORDER BY similarity DESC"),
    "no row": kind("SELECT similarity FROM results WHERE 0"),
    "no row, text": kind("SELECT name FROM results WHERE 0"),
}
for name, one in found.items():
    print(f"{name}: {one}")
with dbapi.connect(f"file:{FILE}") as connection, connection.cursor() as cursor:
    cursor.adbc_ingest("back", pyarrow.table({"similarity": [1.0, math.nan]}), mode="create")
    connection.commit()
with sqlite3.connect(FILE) as database:
    back = [row[0] for row in database.execute("SELECT typeof(similarity) FROM back")]
database.close()
print(f"1.0 and NaN written: {back}")
error = found.pop("all rows")
good = (
    "OSError" in error
    and "expected INT64 but got DOUBLE" in error
    and list(found.values()) == ["double", "double", "int64", "int64"]
    and back == ["real", "null"]
)
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
