"""Make the next protocol's file from the last one's: new probes, the same thresholds and limits.

    python -m tests.benchmarks.make_protocol

It was run once for each released version and is kept to show where the probe sequences come from.
Limits that the last protocol lacks are provisional until `freeze_protocol` is given evidence: the
limit of "position", the same distance between two passes, in FP32; in bfloat16 3 x one healthy run
on the CPU; in float16 a guess between the two, with no run behind it.
"""

import json
import random
from pathlib import Path

from virnucpro_monitor.records import GATES, content_digest
from virnucpro_monitor.validation.probe_packs import RESIDUE_LETTERS

FOLDER = Path(__file__).resolve().parents[2] / "virnucpro_monitor" / "validation" / "protocols"
LAST, NEXT = "1", "2"
# Residues; a sequence has two tokens more. Kernels work in tiles of 16 to 128 tokens, and a pack's
# last tile is skipped where its longest sequence is counted one or two tokens short, so that each
# edge is also the longest of some pack.
SHORT = (1, 14, 30, 62)
LONG = (126, 1022)
LENGTHS = (2, 29, 61, 63, 125, 127, 128, 191, 255, 256, 320, 511, 512, 895, 896)
TINY = (1, 2, 3, 4, 5)
PROVISIONAL = {"float32": 5.5e-5, "float16": 1.6e-2, "bfloat16": 0.11}


def main() -> None:
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
        "lengths": [text(length) for length in LENGTHS],
        "smallest": "M",
        "witness": text(62),
        "shapes": [
            {"name": "one, 65 tokens", "sequences": [text(63)]},
            {"name": "two, 130 tokens", "sequences": [text(128), text(31)]},
            {"name": "two, 257 tokens", "sequences": [text(47), text(255)]},
            {"name": "200 tiny", "sequences": [text(length) for length in TINY], "times": 40},
        ],
        "collator": {"sequences": 2050, "per_call": 100, "lengths": [1, 3, 5, 8, 11, 13]},
        "repeat": "the same packs again, on memory of zeros",
        "unwritten": "packs on memory filled with NaN against memory of zeros",
        "state": "smallest pack, longest, smallest; again after the set; one alone before any",
        "full": "every length, again until the token budget is filled; on a GPU 34,000 tokens too",
    }
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
                limits.setdefault(gate.limit, PROVISIONAL[name.partition(" ")[0]])
    content["evidence"]["provisional"] = sorted(content["limits"])
    text_ = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{NEXT}.json").write_text(text_, encoding="utf-8")
    print(f"protocol {NEXT}: {content_digest(content)}")


if __name__ == "__main__":
    main()
