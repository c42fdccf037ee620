#!/usr/bin/env bash
# transformers 5.24.0, T5EncoderModel (ProtT5's class), torch 2.13.0 (CPU): two kinds of float16.
#
# from_pretrained(dtype=float16) keeps one matrix of each block (the feed-forward's output) in float32,
# since it overflows in half precision; .half() and .to(float16), which ProtT5's own examples use, cast it
# too. The same checkpoint "in float16" is two models: the embeddings differ, memory and speed as well.
# In bfloat16 there is no such exception, and both ways are bit-identical.
#
# Seen: with dtype=float16 the 6 matrices wo of 6 blocks are float32 and all others float16; relative L2
# between the two ways 8.7e-4, as much as either is off float32 (6.1e-4 and 9.3e-4); bfloat16: 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 torch==2.13.0 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys

import torch
from transformers import T5Config, T5EncoderModel
from transformers.utils import logging

logging.disable_progress_bar()
torch.manual_seed(0)
torch.set_num_threads(1)
layout = T5Config(d_model=64, d_kv=16, d_ff=256, num_layers=6, num_heads=4, vocab_size=30)
T5EncoderModel(layout).save_pretrained("model")
ids = torch.randint(3, 25, (1, 50))


@torch.no_grad()
def embed(model):
    return model.eval()(ids).last_hidden_state.double()


def apart(one, other):
    return ((one - other).norm() / other.norm()).item()


good = True
exact = embed(T5EncoderModel.from_pretrained("model"))
for dtype in (torch.float16, torch.bfloat16):
    asked = T5EncoderModel.from_pretrained("model", dtype=dtype)
    cast = T5EncoderModel.from_pretrained("model").to(dtype)
    kept = [name for name, one in asked.named_parameters() if one.dtype is torch.float32]
    left = [name for name, one in cast.named_parameters() if one.dtype is torch.float32]
    one, other = embed(asked), embed(cast)
    print(f"{dtype}: float32 are {len(kept)} of dtype= and {len(left)} of .to(); apart by "
          f"{apart(one, other):.1e}; off float32 by {apart(one, exact):.1e} and {apart(other, exact):.1e}")
    is_half = dtype is torch.float16
    good = good and len(kept) == (6 if is_half else 0) and not left
    good = good and all(name.endswith(".wo.weight") for name in kept)
    good = good and torch.equal(one, other) is not is_half
    good = good and (not is_half or 1e-4 < apart(one, other) < 1e-2)
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
