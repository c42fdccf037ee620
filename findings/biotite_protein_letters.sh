#!/usr/bin/env bash
# biotite 1.6.0, sequence.io.fasta.get_sequence: a protein becomes another one, or nucleotides.
#
# Pyrrolysine (O) becomes lysine without a word, where selenocysteine (U) becomes cysteine with a
# warning. A protein whose letters all stand for nucleotides too (A C G T R Y W S M K H B V D N) is
# taken for nucleotides. ESM-2 has tokens of their own for O (28) and U (26), so embeddings made from
# what it returns are those of another protein. The record's own text, file[header], stays as it was.
#
# Seen: MLOF is MLKF and warns of nothing; MLUF is MLCF with one warning; MKAVDSNHRYW is a
# NucleotideSequence; the same with an L is a ProteinSequence.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q biotite==1.6.0
cat >"$folder/show.py" <<'PYTHON'
import io
import sys
import warnings

from biotite.sequence.io.fasta import FastaFile, get_sequence

expected = {
    "MLOF": ("ProteinSequence", "MLKF", 0),
    "MLUF": ("ProteinSequence", "MLCF", 1),
    "MKAVDSNHRYW": ("NucleotideSequence", "MKAVDSNHRYW", 0),
    "MKAVDSNHRYWL": ("ProteinSequence", "MKAVDSNHRYWL", 0),
}
found = {}
for text in expected:
    file = FastaFile.read(io.StringIO(f">x\n{text}\n"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sequence = get_sequence(file)
    found[text] = (type(sequence).__name__, str(sequence), len(said))
    print(text, *found[text], "as written:", file["x"])
sys.exit(found != expected)
PYTHON
cd "$folder"
venv/bin/python show.py
