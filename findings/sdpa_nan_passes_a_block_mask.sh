#!/usr/bin/env bash
# torch 2.13.0 (CPU), scaled_dot_product_attention and flex_attention: a mask does not keep a NaN out.
#
# Two documents packed with a boolean block mask: a NaN in the values of one reaches every row of the
# other, since a weight of 0 times NaN is NaN. "Masked" means multiplied by zero, not left unread, so a
# neighbour that overflows ruins the whole pack.
#
# Seen: every element of the other document is NaN, with both; with finite values the other document
# does not change in any bit when the neighbour does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(0)
q, k, v = (torch.randn(1, 2, 8, 16) for _ in range(3))
owner = torch.arange(8) // 4
allowed = owner[:, None] == owner[None]
blocks = create_block_mask(lambda b, h, i, j: i // 4 == j // 4, None, None, 8, 8, device="cpu")
warnings.simplefilter("ignore")  # flex_attention says that it is not compiled
ways = {
    "scaled_dot_product_attention": lambda v: scaled_dot_product_attention(q, k, v, attn_mask=allowed),
    "flex_attention": lambda v: flex_attention(q, k, v, block_mask=blocks),
}
good = True
for name, attend in ways.items():
    finite, spoiled = v.clone(), v.clone()
    finite[:, :, 4:] = 7.0
    spoiled[:, :, 4:] = torch.nan
    kept_out = torch.equal(attend(v)[:, :, :4], attend(finite)[:, :, :4])
    reached = bool(attend(spoiled)[:, :, :4].isnan().all())
    print(f"{name}: other values kept out {kept_out}, NaN reaches all rows {reached}")
    good = good and kept_out and reached
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
