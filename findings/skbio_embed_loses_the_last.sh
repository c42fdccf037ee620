#!/usr/bin/env bash
# scikit-bio 0.7.4, h5py 3.16.0: the "embed" format loses the last protein that is written.
#
# skbio.write of several ProteinEmbedding or ProteinVector stores the rows of all of them, and pointers
# for all but the last: reading the file gives one protein less, of a file of one nothing. Besides, the
# first one's dtype becomes the file's: float32 rows behind a float16 protein are rounded to half.
#
# Seen: of 1, 2, 3 and 5 proteins 0, 1, 2 and 4 come back, while the file holds every row; 0.1 in
# float32 comes back as 0.09998 where a float16 protein stands before it. No error, no warning.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scikit-bio==0.7.4 h5py==3.16.0 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import h5py
import numpy as np
import skbio
from skbio.embedding import ProteinEmbedding, ProteinVector

warnings.simplefilter("error", UserWarning)
FILE = "proteins.emb"


def round_trip(made, kind):
    skbio.write((one for one in made), into=FILE, format="embed")
    with h5py.File(FILE) as file:
        num_rows = len(file["embedding"])
    return list(skbio.read(FILE, format="embed", constructor=kind)), num_rows


good = True
for num in (1, 2, 3, 5):
    names = ["M" + letter * 3 for letter in "AKLTV"[:num]]
    back, num_rows = round_trip([ProteinEmbedding(np.ones((4, 2)), s) for s in names], ProteinEmbedding)
    vectors, _ = round_trip([ProteinVector(np.ones(2), s) for s in names], ProteinVector)
    print(f"{num} written, {num_rows} rows in the file: {len(back)} read, of vectors {len(vectors)}")
    good = good and [str(one) for one in back] == names[:-1] == [str(one) for one in vectors]
    good = good and num_rows == 4 * num
made = [
    ProteinEmbedding(np.full((3, 2), 0.1, dtype), "MKT") for dtype in ("float16", "float32", "float32")
]
back, _ = round_trip(made, ProteinEmbedding)
print(f"float32 0.1 behind a float16 protein: {back[1].embedding[0, 0]:.5f}, {back[1].embedding.dtype}")
good = good and back[1].embedding.dtype == np.float16
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
