"""Make the next protocol's file from the last one's: new probes, the same thresholds and limits.

    python -m tests.benchmarks.make_protocol

For a new version set `LAST` and `NEXT`, and say below what is new in it; one that has its file is
refused. It was run once for each released version, and shows where the probe sequences come from.
Limits that the last protocol lacks are provisional until `freeze_protocol` is given evidence: the
limit of "position", the same distance between two passes, in FP32; in bfloat16 3 x one healthy run
on the CPU; in float16 a guess between the two, with no run behind it.
"""

import json
import random
import re
import sys
from pathlib import Path

from virnucpro_monitor.data.limits import RESIDUE_LETTERS
from virnucpro_monitor.records import GATES, content_digest

FOLDER = Path(__file__).resolve().parents[2] / "virnucpro_monitor" / "validation" / "protocols"
LAST, NEXT = "1", "2"
# Residues; a sequence has two tokens more. Kernels work in tiles of 16 to 512 tokens, and a pack's
# last tile is skipped where its longest sequence is counted one or two tokens short: so the longest
# of some packs has one token more than a tile, or fills the last one. A commit's cost is what these
# add up to, so that each length stands in one pack only, and only two packs are asked again.
SHORT = (62, 30, 14)
LONG = (511, 61, 30)
LONGEST = (1022, 256)
EDGES = (128, 126)
EXACT_TILE = 254
TINY = ("M", "MK", "A", "MQS", "W")  # of one length and different: an order restored wrongly shows
PROVISIONAL = {"float32": 5.5e-5, "float16": 1.6e-2, "bfloat16": 0.11}


def main() -> None:
    path = FOLDER / f"{NEXT}.json"
    if path.exists():
        sys.exit(f"Protocol {NEXT} is there already: set LAST and NEXT in this file.")
    content = json.loads((FOLDER / f"{LAST}.json").read_text(encoding="utf-8"))
    rng = random.Random(12)

    def text(length: int) -> str:
        """Mostly the 20 standard residues; every letter stands in every longer sequence."""
        letters = [rng.choice("ACDEFGHIKLMNPQRSTVWY") for _ in range(length)]
        letters[0] = "M"
        if length >= 30:
            for place, letter in zip(
                rng.sample(range(1, length), 25), RESIDUE_LETTERS, strict=True
            ):
                letters[place] = letter
        return "".join(letters)

    content["version"] = NEXT
    content["probes"] |= {
        "sequences": [text(length) for length in SHORT],
        "long": [text(length) for length in LONG],
        "longest": [text(length) for length in LONGEST],
        "smallest": "M",
        "witness": text(62),
        "shapes": [
            {"name": "one, 65 tokens", "sequences": [text(63)]},
            {"name": "two, 129 tokens", "sequences": [text(127), text(29)]},
            {"name": "two, 130 tokens", "sequences": [text(length) for length in EDGES]},
            {"name": "200 tiny", "sequences": list(TINY), "times": 40},
        ],
        "collator": {"sequences": 2050, "per_call": 100, "lengths": [1, 3, 5, 8, 11, 13]},
        "leak": "some sequences of a pack changed and masked, on memory of zeros after a pass on "
        "NaN: every other row bit-identical; every pair of neighbours in the short pack, every "
        "other sequence of the long one",
        "repeat": "the sequences that such a pass leaves alone",
        "unwritten": "likewise; a difference is told apart by further passes",
        "position": "the short pack turned by a third",
        "state": "smallest pack, longest, smallest; again after the set; one alone before any",
        "full": "the long pack under a budget of just its tokens; on a GPU the run's own budget "
        "too, and 34,000 tokens",
    }
    probes = content["probes"]
    # Exactly a tile of 256 tokens: it came later than the others, and takes one of 30's place.
    probes["long"][2] = "M" + probes["longest"][1][::-1][: EXACT_TILE - 1]
    content["metrics"] |= {
        "probes": "relative L2 over all residues of a probe sequence: packed against unpacked, "
        "and each side against the oracle",
        "collator": "probe sequences lost, doubled or with other tokens: none",
        "weights": "parameters and buffers that a pass changes, or that are not the checkpoint's",
        "unwritten": "largest absolute difference between poisoned and clean memory: exactly 0",
        "state": "largest absolute difference by what ran before: exactly 0",
    }
    content["exact"] |= dict.fromkeys(("collator", "weights", "unwritten", "state"), 0.0)
    for name, limits in content["limits"].items():
        for gate in GATES:
            if gate.limit:
                limits.setdefault(gate.limit, PROVISIONAL[re.split("[, ]", name)[0]])
    content["evidence"]["provisional"] = sorted(content["limits"])
    text_ = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text_, encoding="utf-8")
    print(f"protocol {NEXT}: {content_digest(content)}")


if __name__ == "__main__":
    main()
