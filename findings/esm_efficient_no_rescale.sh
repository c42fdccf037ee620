#!/usr/bin/env bash
# esm-efficient 0.0.9 against fair-esm 2.0.0, torch 2.13.0 (CPU): the same weights, other embeddings.
#
# ESM-2 multiplies its token embeddings by 0.88 / (1 - share of masked tokens), also at inference.
# esm-efficient's ESM2 leaves that out, so its embedding layer is 1/0.88 too large for every protein,
# and with <mask> tokens by another factor for each sequence.
#
# Seen: the ratio of the norms, fair-esm to esm-efficient, is 0.88 without masks and 1.746 with half of
# 200 residues masked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 fair-esm==2.0.0 numpy einops safetensors accelerate tqdm huggingface_hub
"$folder/venv/bin/pip" install -q --no-deps esm-efficient==0.0.9
cat >"$folder/show.py" <<'PYTHON'
import importlib.machinery
import sys
import types

import torch

# The package imports flash-attn, which needs a GPU; the embedding layer does not use it.
for name in ("flash_attn", "flash_attn.bert_padding"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
sys.modules["flash_attn"].bert_padding = sys.modules["flash_attn.bert_padding"]
sys.modules["flash_attn"].flash_attn_varlen_func = None
for name in ("pad_input", "unpad_input"):
    setattr(sys.modules["flash_attn.bert_padding"], name, None)

import esm
from esme.esm import ESM2

torch.manual_seed(0)
alphabet = esm.Alphabet.from_architecture("ESM-1b")
theirs = esm.ESM2(num_layers=1, embed_dim=320, attention_heads=20, alphabet=alphabet).eval()
tested = ESM2(1, 320, 20, dtype=torch.float32).eval()
tested.load_state_dict({"embed_tokens.weight": theirs.embed_tokens.weight}, strict=False)
ratios = []
for masked in (0, 100):
    ids = torch.cat([torch.tensor([0]), torch.randint(4, 24, (200,)), torch.tensor([2])])
    ids[1 : 1 + masked] = 32
    with torch.no_grad():
        ours = theirs(ids[None], repr_layers=[0])["representations"][0][0, -2]
        ratios.append(float(ours.norm() / tested.embedding(ids)[-2].norm()))
print("norm of the last residue's embedding, fair-esm / esm-efficient:", [f"{r:.3f}" for r in ratios])
wanted = [0.88 / (1 - masked / 202) for masked in (0, 100)]
sys.exit(not all(abs(ratio - want) < 1e-3 for ratio, want in zip(ratios, wanted)))
PYTHON
cd "$folder"
venv/bin/python show.py
