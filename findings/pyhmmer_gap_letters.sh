#!/usr/bin/env bash
# pyhmmer 0.12.3: dots and underscores become gaps, lower case becomes upper case.
#
# Digitizing a protein reads "." and "_" as the gap "-" and gives that back: three letters become one,
# and MK.T is another sequence after a round trip; "~" stays. ESM-2's alphabet has a token of its own for "."
# (29) and for "-" (30), so tokens made before and after differ. J, which ESM-2 lacks, is kept.
#
# Seen: MK.T and MK_T come back as MK-T; mkt as MKT; MK~T, MJT and MK*T as they were.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyhmmer==0.12.3
cat >"$folder/show.py" <<'PYTHON'
import sys

from pyhmmer.easel import Alphabet, TextSequence

amino = Alphabet.amino()
texts = ("MK.T", "MK_T", "MK~T", "MK-T", "mkt", "MJT", "MK*T")
found = {
    text: TextSequence(name="x", sequence=text).digitize(amino).textize().sequence for text in texts
}
print(found)
expected = {text: text for text in texts} | {"MK.T": "MK-T", "MK_T": "MK-T", "mkt": "MKT"}
sys.exit(found != expected)
PYTHON
cd "$folder"
venv/bin/python show.py
