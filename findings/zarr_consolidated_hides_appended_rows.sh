#!/usr/bin/env bash
# zarr 3.1.6, numpy 2.4.6: rows that are appended behind consolidated metadata are not seen by readers.
#
# open_group reads the consolidated metadata of a store where there is one, and appending does not
# renew it: the rows are on the disk, and the array has its old length to whoever opens the group; an
# array that is added is no member of it. Shortened, an array keeps its length to readers, and rows that
# were deleted are read as zeros. zarr.open_array on the same array tells its true length.
#
# Seen: 4 embeddings after appending 2 to 2; the group's array has 2, open_array's 4, a new array is
# missing from the group; cut to 1, the group's array has 2, of which the second is all zeros.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zarr==3.1.6 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import numpy as np
import zarr

STORE = "embeddings.zarr"


def make():
    group = zarr.open_group(STORE, mode="w")
    group.create_array("rows", shape=(2, 3), chunks=(1, 3), dtype="float32")[:] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that format 3 does not specify it yet
        zarr.consolidate_metadata(STORE)
    return zarr.open_group(STORE, mode="a")


warnings.simplefilter("error")
group = make()
group["rows"].append(np.full((2, 3), 2, np.float32))
group.create_array("more", shape=(1,), dtype="float32")
seen = zarr.open_group(STORE, mode="r")
found = seen["rows"].shape, zarr.open_array(f"{STORE}/rows", mode="r").shape, "more" in seen
print(f"appended: in the group {found[0]}, alone {found[1]}; the new array is a member: {found[2]}")
good = found == ((2, 3), (4, 3), False)
found = zarr.open_group(STORE, mode="r", use_consolidated=False)
print(f"use_consolidated=False: {found['rows'].shape}, {'more' in found}")
good = good and found["rows"].shape == (4, 3) and "more" in found
make()["rows"].resize((1, 3))
seen = zarr.open_group(STORE, mode="r")["rows"]
print(f"cut to one row: {seen[:].tolist()}")
good = good and np.array_equal(seen[:], [[1, 1, 1], [0, 0, 0]])
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
