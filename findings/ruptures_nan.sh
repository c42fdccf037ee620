#!/usr/bin/env bash
# ruptures 1.1.10, numpy 2.4.6: one NaN in a series, and no error.
#
# With one NaN in 200 points with an obvious step, KernelCPD finds no change at all, and so does Binseg;
# Pelt cuts the rest of the series into the shortest allowed pieces. None raises or warns.
#
# Seen: without the NaN all find the step at 100; with it KernelCPD and Binseg give [200] and Pelt with
# jump=1 gives 76 pieces.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ruptures==1.1.10 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys
import warnings

import numpy as np
import ruptures

warnings.simplefilter("error")
generator = np.random.default_rng(0)
series = np.concatenate([generator.normal(0, 1, 100), generator.normal(8, 1, 100)])
holed = series.copy()
holed[50] = np.nan
detectors = {
    "KernelCPD": lambda: ruptures.KernelCPD("linear", min_size=2),
    "Binseg": lambda: ruptures.Binseg("l2", jump=1),
    "Pelt": lambda: ruptures.Pelt("l2", min_size=2, jump=1),
}
found = {
    name: [[int(end) for end in make().fit(x).predict(pen=30)] for x in (series, holed)]
    for name, make in detectors.items()
}
for name, (clean, with_nan) in found.items():
    print(f"{name}: {clean} without, {len(with_nan)} pieces with one NaN")
sys.exit(
    not (
        all(clean == [100, 200] for clean, _ in found.values())
        and found["KernelCPD"][1] == found["Binseg"][1] == [200]
        and len(found["Pelt"][1]) > 50
    )
)
PYTHON
cd "$folder"
venv/bin/python show.py
