#!/usr/bin/env bash
# uv 0.13.9 (PyPI): `uv pip install` takes no package for installed that an environment has by a .pth file.
#
# An environment may find packages of another folder behind its own: a line of a .pth file puts that folder
# on its path, and Python imports from there. pip asks the environment's interpreter and leaves such packages
# alone; uv reads the environment's own folder. Where the two environments share torch this way, anything
# that needs torch has uv fetch it again, with CUDA, and import that one from then on.
#
# Seen: idna 3.10 lies behind the environment and is imported; pip calls "idna>=3" satisfied, and uv, asked
# for the same and no more, would install a newer one. `uv pip list` does not show it either.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/tools"
"$folder/tools/bin/pip" install -q uv==0.13.9
"$folder/tools/bin/pip" install -q --target "$folder/behind" idna==3.10
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
echo "$folder/behind" >"$("$python" -c 'import site; print(site.getsitepackages()[0])')/behind.pth"
echo "imported: idna $("$python" -c 'import idna; print(idna.__version__)')"
by_pip=$("$python" -m pip install --dry-run 'idna>=3' 2>&1 | grep -i idna)
by_uv=$("$folder/tools/bin/uv" pip install --dry-run --python "$python" 'idna>=3' 2>&1 | grep -i idna)
echo "pip: $by_pip"
echo "uv:  $by_uv"
[[ "$by_pip" == *"already satisfied"* ]] && [[ "$by_uv" == *"+ idna=="* ]] &&
    ! "$folder/tools/bin/uv" pip list --python "$python" 2>/dev/null | grep -qi idna
