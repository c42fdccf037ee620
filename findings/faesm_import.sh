#!/usr/bin/env bash
# FAESM 0.1.1 (PyPI, its newest) beside transformers 5.24.0, torch 2.13.0 (CPU): it cannot be imported.
#
# It takes names from transformers.models.esm.modeling_esm that later releases keep elsewhere, and its
# requirement is an unpinned "transformers", so `pip install faesm` gives a package without a model.
#
# Seen: pip resolves the two together and `pip check` is content; `import faesm.esm` raises ImportError
# with transformers 5.24.0 and works with 4.53.3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 faesm==0.1.1 transformers==5.24.0
"$folder/venv/bin/pip" check | grep -v 'No broken' && exit 1
imports() { (cd "$folder" && venv/bin/python -c 'import faesm.esm' 2>&1 || true) | grep Error; }
newest=$(imports)
"$folder/venv/bin/pip" install -q transformers==4.53.3
older=$(imports || true)
echo "transformers 5.24.0: $newest"
echo "transformers 4.53.3: ${older:-imported}"
[[ "$newest" == ImportError*BaseModelOutputWithPastAndCrossAttentions* ]] && [ -z "$older" ]
