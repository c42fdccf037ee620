#!/usr/bin/env bash
# transformers 5.24.0, EsmModel with sdpa attention, torch 2.13.0 (CPU): two proteins in one row.
#
# The model's attention takes a 4-D mask, by which sequences of one row can be kept apart, but its
# embeddings multiply themselves by the mask as if it had two dimensions.
#
# Seen: RuntimeError, the sizes of tensors do not match, where input_ids are given with such a mask.
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


one, two = torch.randint(4, 24, (30,)), torch.randint(4, 24, (20,))
row = torch.cat([one, two])[None]
owner = torch.repeat_interleave(torch.arange(2), torch.tensor([30, 20]))
mask = (owner[:, None] == owner[None, :])[None, None]
try:
    with torch.no_grad():
        model(row, attention_mask=mask)
except RuntimeError as error:
    print(f"{model.config._attn_implementation}: RuntimeError: {error}")
else:
    raise SystemExit("The mask is taken.")
PYTHON
cd "$folder"
venv/bin/python show.py
