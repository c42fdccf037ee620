#!/usr/bin/env bash
# usearch 2.26.6: an embedding that is not finite is the nearest neighbour of every query.
#
# Its distance is NaN, and NaN comes first: in the graph search and in the exact one, by cosine, inner
# product and Euclid. An index in half precision makes such rows of finite ones: beyond 65,504 they
# are stored as infinity, without a word. faiss 1.15.1 never returns a row of NaN.
#
# Seen: searching a stored vector finds key 9, the row of NaN, before the vector itself, in usearch; not
# in faiss. In an f16 index a row times 1e5 is first with distance NaN, in f32 it is no trouble.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q usearch==2.26.6 faiss-cpu==1.15.1 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import math
import sys

import faiss
import numpy as np
from usearch.index import Index

rows = np.random.default_rng(0).normal(size=(10, 64)).astype(np.float32)
query = rows[0].copy()
rows[9] = math.nan
good = True
for metric in ("cos", "ip", "l2sq"):
    index = Index(ndim=64, metric=metric, dtype="f32")
    index.add(np.arange(10), rows)
    for exact in (False, True):
        found = index.search(query, 3, exact=exact)
        print(f"usearch, {metric}, exact={exact}: {found.keys.tolist()}, {found.distances.tolist()}")
        good = good and found.keys[0] == 9 and math.isnan(found.distances[0])
        good = good and found.keys[1] == 0
flat = faiss.IndexFlatIP(64)
flat.add(rows)
keys = flat.search(query[None], 10)[1][0].tolist()
print(f"faiss: {keys}")
good = good and keys[0] == 0 and 9 not in keys
for dtype in ("f16", "f32"):
    index = Index(ndim=64, metric="cos", dtype=dtype)
    index.add(np.arange(3), np.stack([query, rows[1], rows[2] * 1e5]))
    found = index.search(query, 3)
    print(f"one row times 1e5 in {dtype}: {found.keys.tolist()}, {found.distances.tolist()}")
    good = good and (found.keys[0] == 2) == (dtype == "f16") == math.isnan(found.distances[0])
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
