#!/usr/bin/env bash
# transformers 5.24.0, EsmTokenizer: neighbouring letters that it does not know become one token.
#
# fair-esm 2.0.0 raises KeyError for a letter that its alphabet lacks. EsmTokenizer gives <unk>, and a
# run of unknown letters is *one* <unk>: a lower-case (soft-masked) stretch shortens the protein, and
# every residue behind it has another position and another row.
#
# Seen: MJJT gives as many tokens as MJT; mkt gives one; ten lower-case residues cost nine tokens.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.24.0 fair-esm==2.0.0
cat >"$folder/show.py" <<'PYTHON'
import sys

import esm
from transformers import EsmTokenizer

alphabet = esm.Alphabet.from_architecture("ESM-1b")
with open("vocab.txt", "w") as file:
    file.write("\n".join(alphabet.all_toks))
tokenizer = EsmTokenizer("vocab.txt")
counts = {
    text: len(tokenizer(text)["input_ids"]) - 2
    for text in ("MKT", "MJT", "MJJT", "mkt", "MKTmktayiakqrMKT")
}
print("tokens without <cls> and <eos>:", counts)
try:
    alphabet.get_batch_converter()([("x", "MJJT")])
    theirs = "accepted"
except KeyError as error:
    theirs = f"KeyError {error}"
print("fair-esm, MJJT:", theirs)
expected = {"MKT": 3, "MJT": 3, "MJJT": 3, "mkt": 1, "MKTmktayiakqrMKT": 7}
sys.exit(not (counts == expected and theirs.startswith("KeyError")))
PYTHON
cd "$folder"
venv/bin/python show.py
