#!/usr/bin/env bash
# plotly 7.1.0, numpy 2.4.6: what a masked array hides is drawn.
#
# numpy.ma marks values as not measured and keeps whatever number lies beneath (often 0, 1e20 or the last
# one). Figures take the numbers without the mask: a line runs through them, a heatmap colours them, an
# axis makes room for them. matplotlib leaves them out, and `filled(nan)` does so in plotly.
#
# Seen: the y of a line and the z of a heatmap made of (1, masked 1e20, 3) hold 1e20; numpy's own mean
# of the same array is 2; filled with NaN the figure holds NaN there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q plotly==7.1.0 numpy==2.4.6
cat >"$folder/show.py" <<'PYTHON'
import base64
import json
import sys
import warnings

import numpy as np
import plotly.graph_objects as go

warnings.simplefilter("error")
similarity = np.ma.array([1.0, 1e20, 3.0], mask=[False, True, False])


def sent(trace, name):
    """What the browser is given."""
    values = json.loads(go.Figure(trace).to_json())["data"][0][name]
    return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])


found = {
    "line": sent(go.Scatter(y=similarity), "y"),
    "heatmap": sent(go.Heatmap(z=similarity[None]), "z"),
    "filled": sent(go.Scatter(y=similarity.filled(np.nan)), "y"),
}
for way, values in found.items():
    print(f"{way}: {values.tolist()}; numpy's mean is {similarity.mean()}")
good = found["line"][1] == found["heatmap"][1] == 1e20 and similarity.mean() == 2
sys.exit(not (good and np.isnan(found["filled"][1])))
PYTHON
cd "$folder"
venv/bin/python show.py
