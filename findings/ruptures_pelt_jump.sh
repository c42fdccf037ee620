#!/usr/bin/env bash
# ruptures 1.1.10: Pelt looks at every fifth place by default.
#
# `jump=5` is not only a loss of resolution: where a step is large and lies between two multiples of
# five, Pelt reports two changes, one on either side, instead of one beside it.
#
# Seen: a step at 53 gives [50, 55, 103] by default and [53, 103] with jump=1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ruptures==1.1.10 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import sys

import numpy as np
import ruptures

generator = np.random.default_rng(0)
series = np.concatenate([generator.normal(0, 1, 53), generator.normal(20, 1, 50)])
default, every = (
    [int(end) for end in detector.fit(series).predict(pen=10)]
    for detector in (ruptures.Pelt("l2"), ruptures.Pelt("l2", jump=1))
)
print("by default", default, "with jump=1", every)
sys.exit(not (default == [50, 55, 103] and every == [53, 103]))
PYTHON
cd "$folder"
venv/bin/python show.py
