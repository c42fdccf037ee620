#!/usr/bin/env bash
# distributed 2026.8.0: which calls are one task.
#
# `submit` runs calls with equal keys once. Keys follow the representation, not equality: 1, 1.0 and
# True, which are equal, are three tasks; two NaNs, which are not, are one.
#
# Seen: three keys for 1, 1.0, True; one for NaN and NaN.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q distributed==2026.8.0
cat >"$folder/show.py" <<'PYTHON'
import sys

from distributed import Client


def same(x):
    return x


if __name__ == "__main__":
    with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        numbers = {client.submit(same, x).key for x in (1, 1.0, True)}
        nans = {client.submit(same, x).key for x in (float("nan"), float("nan"))}
    print(f"1, 1.0, True: {len(numbers)} tasks; NaN, NaN: {len(nans)}")
    sys.exit(not (len(numbers) == 3 and len(nans) == 1))
PYTHON
cd "$folder"
venv/bin/python show.py
