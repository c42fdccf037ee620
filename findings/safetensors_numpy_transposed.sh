#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6: save_file() of a transposed array writes another array.
#
# safetensors.numpy stores the shape of an array beside its memory as it lies, whatever its strides are.
# What is not in C order (a transpose, a Fortran array, each second row) comes back with the right
# shape and dtype and the numbers at other places. safetensors.torch refuses such tensors by an error.
#
# Seen: the transpose of [[0, 1, 2], [3, 4, 5]] comes back as [[0, 1], [2, 3], [4, 5]]; rows 0 and 2 of
# four as rows 0 and 1; np.ascontiguousarray before saving gives the array itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

rows = np.arange(12, dtype=np.float32).reshape(4, 3)
arrays = {"transpose": rows[:2].T, "Fortran": np.asfortranarray(rows), "each second row": rows[::2]}
good = True
for name, array in arrays.items():
    save_file({"embeddings": array}, "as_it_is.safetensors")
    save_file({"embeddings": np.ascontiguousarray(array)}, "in_order.safetensors")
    back = load_file("as_it_is.safetensors")["embeddings"]
    right = load_file("in_order.safetensors")["embeddings"]
    print(f"{name}: {array.tolist()} comes back as {back.tolist()}")
    good = good and back.shape == array.shape and not np.array_equal(back, array)
    good = good and np.array_equal(right, array)
    in_memory = np.lib.stride_tricks.as_strided(array.base if array.base is not None else array)
    good = good and np.array_equal(back.ravel(), np.ravel(in_memory, "K")[: back.size])
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
