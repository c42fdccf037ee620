#!/usr/bin/env bash
# transformers 5.2.0 and 5.3.0, EsmModel, torch 2.13.0 (CPU): a padded batch with <mask> tokens.
#
# ESM-2 divides its embeddings by the share of unmasked tokens. 5.2.0 does not hand the attention mask
# to the embeddings, so a padded sequence is divided by the padded length: the same protein has other
# embeddings in a batch than alone. 5.3.0 gives the same ones.
#
# Seen: 5.2.0: embedding layer 0.395 apart (relative L2) for 20 residues, half of them masked, beside
# 100; 5.3.0: 0.
# Related: upstream issue 44162.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.2.0
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

import transformers

short, long = protein(20, masked=10), protein(100)
batch = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True, padding_value=1)
with torch.no_grad():
    alone = model(short[None], attention_mask=torch.ones(1, 22).long(), output_hidden_states=True)
    padded = model(batch, attention_mask=batch.ne(1).long(), output_hidden_states=True)
apart = distance(padded.hidden_states[0][0, :22], alone.hidden_states[0][0])
print(f"transformers {transformers.__version__}: the embedding layer is {apart:.3g} apart")
sys.exit(not ((apart > 0.3) if sys.argv[1] == "wrong" else (apart < 1e-6)))
PYTHON
cd "$folder"
venv/bin/python show.py wrong
venv/bin/pip install -q transformers==5.3.0
venv/bin/python show.py right
