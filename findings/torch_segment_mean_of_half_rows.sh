#!/usr/bin/env bash
# torch 2.13.0 (CPU), segment_reduce and index_reduce_: the mean of bfloat16 rows stops at 256 of them.
#
# segment_reduce(rows, "mean", lengths=...) pools packed rows by sequence. It adds in the rows' own
# dtype, where one more row is lost once the sum is 256 (bfloat16) or 2,048 (float16) times as large: the
# mean of a long protein is that of its first residues, divided by all. scatter_reduce_, index_add_,
# embedding_bag and Tensor.mean, which pool as well, add in float32 and are right.
#
# Seen: the mean of n ones. Of 1,022 in bfloat16: 0.25 by segment_reduce and index_reduce_, 1 by the
# others; of 8,192 in float16 0.25. Of 1,022 random rows of 1,280 numbers in bfloat16 it is off by 33 %
# (cosine 0.982), Tensor.mean by 0.2 %.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import torch

warnings.simplefilter("ignore")  # index_reduce_ is in beta, and says so
torch.set_num_threads(1)


def pooled(rows):
    """{way: mean over all rows}: as one sequence of a pack."""
    num, width = rows.shape
    owner, zeros = torch.zeros(num, dtype=torch.long), rows.new_zeros(1, width)
    wide = owner[:, None].expand(num, width)
    return {
        "segment_reduce": torch.segment_reduce(rows, "mean", lengths=torch.tensor([num]))[0],
        "index_reduce_": zeros.clone().index_reduce_(0, owner, rows, "mean", include_self=False)[0],
        "scatter_reduce_": zeros.clone().scatter_reduce_(0, wide, rows, "mean", include_self=False)[0],
        "index_add_": zeros.clone().index_add_(0, owner, rows)[0] / num,
        "Tensor.mean": rows.mean(0),
    }


good = True
for dtype, num in ((torch.bfloat16, 1022), (torch.float16, 8192)):
    means = {way: mean[0].item() for way, mean in pooled(torch.ones(num, 2, dtype=dtype)).items()}
    print(f"{num} ones in {dtype}: {means}")
    wrong = {way for way, mean in means.items() if abs(mean - 1) > 0.01}
    good = good and wrong == {"segment_reduce", "index_reduce_"}
    good = good and all(abs(means[way] - 0.25) < 0.01 for way in wrong)
torch.manual_seed(0)
rows = (torch.randn(1022, 1280) + torch.randn(1280)).bfloat16()
exact, found = rows.double().mean(0), pooled(rows)
for way in ("segment_reduce", "Tensor.mean"):
    mean = found[way].double()
    off = ((mean - exact).norm() / exact.norm()).item()
    print(f"random rows, {way}: off by {off:.1%}, cosine {torch.cosine_similarity(mean, exact, 0):.3f}")
    good = good and (off > 0.2 if way == "segment_reduce" else off < 0.005)
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
