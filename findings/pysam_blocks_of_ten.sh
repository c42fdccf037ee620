#!/usr/bin/env bash
# pysam 0.24.1, FastaFile: a sequence printed in blocks of ten loses a residue for each blank.
#
# Databases print sequences in blocks with blanks between, and most readers skip them. faidx, which
# FastaFile reads by, counts letters without the blanks and then cuts as many bytes out of each line with
# them: the length it reports is right, what it returns has blanks inside and lacks the end of every
# line, not only of the last. Without the blanks it is another protein. FastxFile of the same package,
# needletail and screed keep the blanks, but lose nothing; Biopython and scikit-bio skip them.
#
# Seen: of 74 residues in three lines, length 74 is reported; 29, 30, 59, 60 and 74 are missing. No error,
# no warning. The same sequence without blanks is read right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pysam==0.24.1 biopython==1.88 needletail==0.7.3 screed==1.2.0
cat >"$folder/show.py" <<'PYTHON'
import sys
from pathlib import Path

import needletail
import pysam
import screed
from Bio import SeqIO

LINES = (
    "MKTAYIAKQR QISFVKSHFS RQLEERLGLI",
    "EVQAPILSRV GDGTQDNLSG AEKAVQVKVK",
    "ALPDAQFEVV HSLA",
)
whole = "".join(LINES).replace(" ", "")
Path("blocks.fasta").write_text(">P\n" + "\n".join(LINES) + "\n")
Path("plain.fasta").write_text(">P\n" + "\n".join(LINES).replace(" ", "") + "\n")


def indexed(path):
    with pysam.FastaFile(path) as file:
        return file.get_reference_length("P"), file.fetch("P")


length, found = indexed("blocks.fasta")
left = found.replace(" ", "")
print(f"FastaFile: length {length}, {found!r}: {len(left)} residues")
print(f"without blanks in the file: {indexed('plain.fasta')[1] == whole}")
with pysam.FastxFile("blocks.fasta") as file, screed.open("blocks.fasta") as other:
    kept = {
        "FastxFile": next(iter(file)).sequence,
        "screed": next(iter(other)).sequence,
        "needletail": next(iter(needletail.parse_fastx_file("blocks.fasta"))).seq,
    }
with open("blocks.fasta") as file:
    biopython = str(next(SeqIO.parse(file, "fasta")).seq)
print(f"blanks kept by {', '.join(name for name, one in kept.items() if ' ' in one)}")
print(f"Biopython skips them: {biopython == whole}")
expected = whole[:28] + whole[30:58] + whole[60:73]
good = (
    (length, left) == (74, expected)
    and indexed("plain.fasta") == (74, whole)
    and all(one != whole and one.replace(" ", "") == whole for one in kept.values())
    and biopython == whole
)
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
