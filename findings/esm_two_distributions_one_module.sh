#!/usr/bin/env bash
# fair-esm 2.0.0 and esm 3.2.1.post1 (PyPI): two distributions that write into one package.
#
# Both install the module `esm`, with files of the same names. pip installs the second over the first
# without a word, `pip check` finds no conflict between the two, and removing one then takes files that
# the other has written: what is left cannot be imported as either.
#
# Seen: after `pip install fair-esm` and `pip install esm`, `esm.pretrained` is no longer fair-esm's
# (it has no esm2_t6_8M_UR50D); after `pip uninstall esm`, fair-esm is still listed as installed and
# esm/__init__.py is gone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip"
"$pip" install -q --no-deps fair-esm==2.0.0
init=$(find "$folder/venv" -path '*site-packages/esm/__init__.py')
models() { grep -c 'def esm2_t6_8M_UR50D' "$(dirname "$init")/pretrained.py" || true; }
before=$(models)
said=$("$pip" install -q --no-deps esm==3.2.1.post1 2>&1 | grep -iE 'conflict|overwr' || true)
after=$(models)
"$pip" uninstall -q -y esm
listed=$("$pip" list 2>/dev/null | grep -c '^fair-esm' || true)
echo "fair-esm's loaders in esm/pretrained.py: $before, then $after; pip said: '${said}'"
echo "after uninstalling esm: fair-esm listed $listed, esm/__init__.py there: $([ -f "$init" ] && echo yes || echo no)"
[ "$before" = 1 ] && [ "$after" = 0 ] && [ -z "$said" ] && [ "$listed" = 1 ] && [ ! -f "$init" ]
