#!/usr/bin/env bash
# pyfastx 2.3.1: letters lost and NUL letters gained, by the line ends of a FASTA file.
#
# Its index knows one line length and one line end a sequence. A file with CRLF whose last line has no
# line end loses the last residue; one with CRLF on one line and LF on another (files joined by cat), or
# with a blank behind a line, gains a letter that is NUL. No error, no warning.
#
# Seen: MVLSP is read as MVLS, and MKTAY + IAK as MKTAYIAK followed by a NUL. pyhmmer 0.12.3 reads all
# of them right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyfastx==2.3.1 pyhmmer==0.12.3
cat >"$folder/show.py" <<'PYTHON'
import sys
from pathlib import Path

import pyfastx
import pyhmmer

FILES = {
    "crlf_no_end": b">a\r\nMKTAY\r\nIAK\r\n>b\r\nMVLSP",
    "crlf_and_lf": b">a\nMKTAY\r\nIAK\n>b\nMVLSP\n",
    "blank_behind": b">a\nMKTAY \nIAK\n>b\nMVLSP\n",
    "plain": b">a\nMKTAY\nIAK\n>b\nMVLSP\n",
}
right = {"a": "MKTAYIAK", "b": "MVLSP"}
good = True
for name, content in FILES.items():
    path = Path(f"{name}.fasta")
    path.write_bytes(content)
    found = {record.name: record.seq for record in pyfastx.Fasta(str(path))}
    with pyhmmer.easel.SequenceFile(str(path), format="fasta") as file:
        others = {record.name: record.sequence for record in file}
    print(f"{name}: pyfastx {found}, pyhmmer {others}")
    good = good and others == right
    if name == "plain":
        good = good and found == right
    elif name == "crlf_no_end":
        good = good and found == right | {"b": "MVLS"}
    else:
        good = good and found == right | {"a": "MKTAYIAK\0"}
sys.exit(not good)
PYTHON
cd "$folder"
venv/bin/python show.py
