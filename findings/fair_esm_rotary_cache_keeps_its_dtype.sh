#!/usr/bin/env bash
# fair-esm 2.0.0, torch 2.13.0: the rotary tables are cached by length and device, not by dtype.
#
# A model that has run in float32 and is then cast keeps its float32 tables for sequences of the length
# that ran last, and fails on them; with any other length it makes new tables and works. Whether a cast
# model can embed a protein depends on the protein before it.
#
# Seen: after a float32 pass over 402 tokens and .bfloat16(), 402 tokens raise RuntimeError (two dtypes
# in one product); 302 tokens work, and after them 402 do too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 fair-esm==2.0.0
cat >"$folder/show.py" <<'PYTHON'
import sys

import esm
import torch

torch.manual_seed(0)
alphabet = esm.Alphabet.from_architecture("ESM-1b")
tokens = torch.randint(4, 24, (1, 402))
tokens[0, 0], tokens[0, -1] = 0, 2
model = esm.ESM2(num_layers=2, embed_dim=320, attention_heads=5, alphabet=alphabet).eval()


def attempt(tokens):
    try:
        with torch.no_grad():
            model(tokens, repr_layers=[2])
    except RuntimeError as error:
        return f"RuntimeError: {error}"
    return "works"


first = attempt(tokens)
model = model.bfloat16()
same, other, again = attempt(tokens), attempt(tokens[:, :302]), attempt(tokens)
print(f"float32: {first}; cast, same length: {same}")
print(f"another length: {other}; the first length again: {again}")
good = (first, other, again) == ("works",) * 3 and same.startswith("RuntimeError")
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
