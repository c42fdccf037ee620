#!/usr/bin/env bash
# DuckDB 2.0.1, Polars 2.1.0, pandas 3.1.1, pyarrow 26.0.1: one Parquet file, two pass rates.
#
# In DuckDB and Polars NaN is greater than any number, in pandas and pyarrow no comparison with it holds.
# A similarity that could not be computed passes "at least 0.999" in the one and fails in the other; the
# least similarity hides it in all four, and "not below 0.995" lets it pass in all four.
#
# Seen: of 0.9999, 0.5 and NaN two are >= 0.999 to DuckDB and Polars, one to pandas and pyarrow (also as a
# filter of read_table); the least is 0.5, the greatest NaN to DuckDB and 0.9999 to the others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q duckdb==2.0.1 polars==2.1.0 pandas==3.1.1 pyarrow==26.0.1 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import math
import sys

import duckdb
import pandas
import polars
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet as pq

FILE = "results.parquet"
pq.write_table(pyarrow.table({"similarity": [0.9999, 0.5, math.nan]}), FILE)

query = f"""SELECT count(*) FILTER (similarity >= 0.999), count(*) FILTER (NOT similarity < 0.995),
    min(similarity), max(similarity) FROM '{FILE}'"""
frame, lazy, table = pandas.read_parquet(FILE), polars.read_parquet(FILE), pq.read_table(FILE)
one, two, three = frame["similarity"], lazy["similarity"], table["similarity"]
found = {
    "DuckDB": duckdb.sql(query).fetchall()[0],
    "Polars": ((two >= 0.999).sum(), (~(two < 0.995)).sum(), two.min(), two.max()),
    "pandas": ((one >= 0.999).sum(), (~(one < 0.995)).sum(), one.min(), one.max()),
    "pyarrow": (
        pq.read_table(FILE, filters=[("similarity", ">=", 0.999)]).num_rows,
        pc.sum(pc.invert(pc.less(three, 0.995))).as_py(),
        pc.min(three).as_py(),
        pc.max(three).as_py(),
    ),
}
for name, (passing, not_below, least, greatest) in found.items():
    print(f"{name}: {passing} >= 0.999, {not_below} not < 0.995, least {least}, greatest {greatest}")
good = (
    {name: int(figures[0]) for name, figures in found.items()}
    == {"DuckDB": 2, "Polars": 2, "pandas": 1, "pyarrow": 1}
    and all((int(figures[1]), float(figures[2])) == (2, 0.5) for figures in found.values())
    and math.isnan(found["DuckDB"][3])
    and all(found[name][3] == 0.9999 for name in ("Polars", "pandas", "pyarrow"))
)
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
