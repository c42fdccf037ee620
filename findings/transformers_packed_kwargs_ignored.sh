#!/usr/bin/env bash
# transformers 5.24.0, EsmModel with sdpa attention, torch 2.13.0 (CPU): sequences packed in one row.
#
# cu_seq_lens_q, cu_seq_lens_k, max_length_q and max_length_k are accepted as keyword arguments, and
# with sdpa they do nothing: no error, no warning, and each sequence attends to the others.
#
# Seen: the last layer of the second of two proteins is 0.05 apart (relative L2) from the same protein
# alone, and changes when the first protein does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0
cat >"$folder/show.py" <<'PYTHON'
import torch
from transformers import EsmConfig, EsmModel

torch.manual_seed(0)
config = EsmConfig(
    vocab_size=33,
    mask_token_id=32,
    pad_token_id=1,
    hidden_size=320,
    num_hidden_layers=6,
    num_attention_heads=20,
    intermediate_size=1280,
    max_position_embeddings=1026,
    position_embedding_type="rotary",
    layer_norm_eps=1e-5,
    token_dropout=True,
)
model = EsmModel(config, add_pooling_layer=False).eval()
torch.nn.init.normal_(model.embeddings.word_embeddings.weight)


def protein(length, masked=0):
    ids = torch.cat([torch.tensor([0]), torch.randint(4, 24, (length,)), torch.tensor([2])])
    ids[1 : 1 + masked] = 32
    return ids


def distance(a, b):
    return float((a - b).norm() / b.norm())


import sys
import warnings

warnings.simplefilter("error")


def packed(first, second):
    row = torch.cat([first, second])[None]
    positions = torch.cat([torch.arange(len(first)), torch.arange(len(second))])[None]
    bounds = torch.tensor([0, len(first), len(first) + len(second)], dtype=torch.int32)
    longest = max(len(first), len(second))
    result = model(
        row,
        position_ids=positions,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=longest,
        max_length_k=longest,
    )
    return result.last_hidden_state[0, len(first) :]


second = protein(20)
with torch.no_grad():
    alone = model(second[None]).last_hidden_state[0]
    one, other = packed(protein(60), second), packed(protein(60), second)
print(f"{model.config._attn_implementation}: packed against alone {distance(one, alone):.3g}, ", end="")
print(f"with another neighbour {distance(other, one):.3g}")
sys.exit(not (distance(one, alone) > 0.02 and distance(other, one) > 0.01))
PYTHON
cd "$folder"
venv/bin/python show.py
