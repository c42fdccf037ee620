"""transformers' `EsmModel` in padded batches, as it was measured release by release.

`transformers_padded.json` holds the rows of `virnucpro-monitor run` (protocol 2, ESM-2 8M,
synthetic weights, FP32, set `seed`) for twelve releases. From outside it is known that 4.56 lost
the rescale of `<mask>` in padded batches and that 5.3 got it back (transformers 44162, 44163).
"""

import json
import random
from dataclasses import replace
from pathlib import Path

from tests.analysis.histories import START
from tests.store.builders import make_commit, make_figures, make_gate, make_run
from virnucpro_monitor.analysis.incidents import derive_incidents
from virnucpro_monitor.records import Culprit, Outcome, Run

ROWS = json.loads(Path(__file__).with_name("transformers_padded.json").read_text())
BROKEN = ["4.56.2", "4.57.6", "5.1.0", "5.2.0"]


def stored() -> list[Run]:
    return [
        make_run(
            row["position"],
            commit=make_commit(
                row["position"],
                hash=row["release"],
                parents=(),
                committed_at=None,
                authored_at=None,
            ),
            outcome=Outcome(row["outcome"]),
            culprit=Culprit(row["culprit"]),
            figures=make_figures([row["min_similarity"]]),
            gates=tuple(
                replace(make_gate(name, name not in row["failed"], value), culprit=Culprit.PACKED)
                for name, value in row["gates"].items()
            ),
        )
        for row in ROWS
    ]


def test_one_incident_from_4_56_to_5_2_and_5_3_mended_it() -> None:
    runs = stored()
    assert [one.commit.hash for one in runs if one.outcome is Outcome.FAILED] == BROKEN
    random.Random(4).shuffle(runs)  # measured in whatever order, as a bisection does
    by_position = sorted(runs, key=lambda run: run.commit.position or 0)
    (incident,) = derive_incidents(by_position, now=START)
    assert incident.first_bad.commit.hash == "4.56.2"
    assert incident.last_good is not None
    assert incident.last_good.commit.hash == "4.55.4"
    assert incident.fixed_by is not None
    assert incident.fixed_by.commit.hash == "5.3.0"
    assert (incident.culprit, set(incident.gates)) == ("packed", {"embedding", "mask"})
    assert incident.num_suspects == 3  # 4.56.0 and 4.56.1 were not measured
    # What the seed's own rule sees of it: nothing.
    assert min(row["min_similarity"] for row in ROWS) > 0.999
