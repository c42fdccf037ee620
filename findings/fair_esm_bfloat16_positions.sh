#!/usr/bin/env bash
# fair-esm 2.0.0, torch 2.13.0: .bfloat16() and .half() round the rotary frequencies and positions.
#
# inv_freq is a buffer, so a cast of the model casts it, and positions are cast to its dtype: bfloat16
# holds no odd number above 256. Residues at different positions then have the same rotation.
#
# Seen: the tables of 402 positions have 329 distinct rows in bfloat16 (402 in float32), and the angle
# of the fastest frequency at position 401 is off by 1 radian.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 fair-esm==2.0.0
cat >"$folder/show.py" <<'PYTHON'
import sys

import torch
from esm.rotary_embedding import RotaryEmbedding


def tables(dtype):
    rotary = RotaryEmbedding(64).to(dtype)
    cos, sin = rotary._update_cos_sin_tables(torch.zeros(1, 402, 64, dtype=dtype), seq_dimension=-2)
    return torch.cat([cos[0], sin[0]], -1).float()


distinct = {
    str(dtype): len({tuple(row.tolist()) for row in tables(dtype)})
    for dtype in (torch.float32, torch.bfloat16)
}
print("distinct rows of 402:", distinct)
sys.exit(distinct != {"torch.float32": 402, "torch.bfloat16": 329})
PYTHON
cd "$folder"
venv/bin/python show.py
