#!/usr/bin/env bash
# DuckDB 2.0.1 on a Parquet file of pyarrow 26.0.1: one condition, two answers within one query.
#
# To DuckDB NaN is greater than any number, so "similarity >= 0.999" holds for it. Parquet's statistics
# leave NaN out: as WHERE, the condition skips each row group whose written maximum is lower, and its
# NaNs with it; behind count(*) FILTER, in a file that DuckDB wrote and in its own tables it finds them.
# Whether a NaN passes depends on its neighbours: where one number of the row group passes, it does too.
#
# Seen: of 0.5 and NaN: WHERE 0, FILTER 1, DuckDB's own file and table 1; of 0.5, 0.9999 and NaN: WHERE 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q duckdb==2.0.1 pyarrow==26.0.1
cat >"$folder/show.py" <<'PYTHON'
import math
import sys

import duckdb
import pyarrow
import pyarrow.parquet as pq

PASSES = "similarity >= 0.999"


def count(query):
    return duckdb.sql(query).fetchall()[0][0]


pq.write_table(pyarrow.table({"similarity": [0.5, math.nan]}), "arrow.parquet")
pq.write_table(pyarrow.table({"similarity": [0.5, 0.9999, math.nan]}), "neighbour.parquet")
duckdb.sql("COPY (FROM 'arrow.parquet') TO 'own.parquet'")
duckdb.sql("CREATE TABLE own AS FROM 'arrow.parquet'")
found = {
    "pyarrow's file, WHERE": count(f"SELECT count(*) FROM 'arrow.parquet' WHERE {PASSES}"),
    "pyarrow's file, FILTER": count(f"SELECT count(*) FILTER ({PASSES}) FROM 'arrow.parquet'"),
    "DuckDB's file, WHERE": count(f"SELECT count(*) FROM 'own.parquet' WHERE {PASSES}"),
    "DuckDB's table, WHERE": count(f"SELECT count(*) FROM own WHERE {PASSES}"),
    "with a neighbour, WHERE": count(f"SELECT count(*) FROM 'neighbour.parquet' WHERE {PASSES}"),
}
for way, number in found.items():
    print(f"{way}: {number}")
sys.exit(list(found.values()) != [0, 1, 1, 1, 2])
PYTHON
cd "$folder"
venv/bin/python show.py
