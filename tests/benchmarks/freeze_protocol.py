"""Freeze a protocol's limits from evidence files.

    python -m tests.benchmarks.freeze_protocol evidence-*.json
    python -m tests.benchmarks.freeze_protocol --multiples evidence-*.json

Each limit becomes 3 x the worst value of all healthy runs of its dtype, rounded up, and a model
with 50 runs gets limits of its own. Evidence of one model, weights, dtype, device, backend and
benchmark set replaces what the file has of the same; the limits of other dtypes stay as they are.
The protocol file, the digest in `validation/protocol.py` and the one in its test are rewritten
together, so that `git diff` shows the whole change. Where there are fewer than 200 runs, the file
says that the limits are provisional. With `--multiples` the files tell only how many times a run's
own noise its measures are, and no limit moves.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from virnucpro_monitor.records import content_digest
from virnucpro_monitor.validation.evidence import MIN_RUNS, SAFETY_FACTOR, freeze_limits, round_up
from virnucpro_monitor.validation.noise import names_of_limits
from virnucpro_monitor.validation.own_noise import FOLLOWING, OF_SEQUENCES, SQUARED, kind_of
from virnucpro_monitor.validation.protocol import LATEST, limit_names

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "virnucpro_monitor" / "validation" / "protocols" / f"{LATEST}.json"
HOLDERS = (
    ROOT / "virnucpro_monitor" / "validation" / "protocol.py",
    ROOT / "tests" / "validation" / "test_protocol.py",
)
# Trained weights are off by 0.44 roundings and more in every dtype, fair-esm in float32 by none.
LEAST_ROUNDINGS = 0.25
# One pass asks all three, and what masks move is often nothing at all.
_MOVED = ("position", "order", "mask")
EVIDENCE_OF = ("model", "weights", "dtype", "device", "gpu", "backend", "benchmark")


def joined(
    records: list[dict[str, Any]], key: Callable[[dict[str, Any]], tuple[object, ...]]
) -> list[dict[str, Any]]:
    """One record of each set-up, over all its seeds."""
    found: dict[tuple[object, ...], dict[str, Any]] = {}
    for record in records:
        one = found.setdefault(
            key(record), {**record, "num_runs": 0, "seed": [], "worst": {}, "multiples": {}}
        )
        one["num_runs"] += record["num_runs"]
        one["seed"] = sorted({*one["seed"], record["seed"]})
        for kind in ("worst", "multiples"):
            for name, value in record.get(kind, {}).items():
                one[kind][name] = max(one[kind].get(name, 0.0), value)
    return list(found.values())


def freeze_factors(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{"half" or "float32": {limit: 3 x its largest multiple of a run's own noise, rounded up}}.

    Older records know the worst values of all their runs alone: these tell by how much the packed
    side, at worst, is off the set's sequences, and nothing of the probes.
    """
    worst: dict[str, dict[str, float]] = {}
    for record in records:
        found = record.get("multiples") or _multiples_of_worst(record["worst"])
        of_kind = worst.setdefault(kind_of(record["dtype"]), dict.fromkeys(FOLLOWING, 0.0))
        for name, multiple in found.items():
            of_kind[name] = max(of_kind[name], multiple)
    for of_kind in worst.values():
        moved = max(of_kind[name] for name in _MOVED)
        of_kind |= dict.fromkeys(_MOVED, moved)
    return {
        kind: {name: round_up(SAFETY_FACTOR * multiple) for name, multiple in of_kind.items()}
        for kind, of_kind in sorted(worst.items())
    }


def _multiples_of_worst(worst: Mapping[str, float]) -> dict[str, float]:
    return {
        name: worst[name] / worst["baseline"] ** (1 + (name in SQUARED)) for name in OF_SEQUENCES
    }


def main(paths: list[str]) -> int:
    content = json.loads(PROTOCOL.read_text(encoding="utf-8"))
    old_digest = content_digest(content)
    only_multiples = "--multiples" in paths
    files = [Path(path) for path in paths if path != "--multiples"]
    told = [record for file in files for record in json.loads(file.read_text())["evidence"]]
    new = [] if only_multiples else told
    for record in new:
        # How a run stands under the present limits says nothing about the new ones.
        record.pop("failed", None)
        record.pop("margins", None)

    def key(record: dict[str, object]) -> tuple[object, ...]:
        return tuple(record.get(name) for name in EVIDENCE_OF)

    multiples = [
        {name: record[name] for name in (*EVIDENCE_OF, "num_runs", "seed", "multiples")}
        for record in (
            sorted(joined(told, key), key=lambda r: [str(part) for part in key(r)])
            if only_multiples
            else content["evidence"].get("multiples", ())
        )
    ]
    # Evidence of an earlier protocol lacks what the present one measures.
    kept = [
        r
        for r in content["evidence"]["runs"]
        if key(r) not in {key(n) for n in new} and set(limit_names(LATEST)) <= r["worst"].keys()
    ]
    records = sorted([*kept, *joined(new, key)], key=lambda r: [str(part) for part in key(r)])
    counts: Counter[str] = Counter()
    for record in records:
        for name in names_of_limits(record):
            counts[name] += record["num_runs"]
    enough = {name for name, count in counts.items() if count >= MIN_RUNS}
    frozen = freeze_limits(records, min_runs=1)
    changed = {name for record in new for name in names_of_limits(record)} & frozen.keys()
    # Evidence decides; only what the new evidence is about may move.
    content["limits"] |= {name: frozen[name] for name in changed}
    moved = [name for name, limits in content["limits"].items() if limits != frozen.get(name)]
    if moved:
        print(f"not what the evidence gives: {', '.join(moved)}", file=sys.stderr)
        return 1
    content["evidence"] = {
        "rule": "3 x the worst value of all healthy runs of a dtype (half precision on the CPU "
        "apart), rounded up to two digits; a model with 50 runs has limits of its own",
        "provisional": sorted(content["limits"].keys() - enough),
        "runs": records,
        "multiples": multiples,
    }
    content["own_noise"] = {
        "rule": "the lower of a limit and its factor x the unpacked side's worst distance to FP32, "
        "on the set's sequences (gain, floor, ceiling; residue: squared) or on the probes' "
        "(probes, position, order, mask), where that is at least `least` roundings of the dtype; "
        "factors are 3 x the largest multiple of healthy runs, rounded up to two digits",
        "least": LEAST_ROUNDINGS,
        "factors": freeze_factors([*records, *multiples]),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    PROTOCOL.write_text(text, encoding="utf-8")
    digest = content_digest(content)
    for holder in HOLDERS:
        if holder.exists():
            source = holder.read_text(encoding="utf-8")
            holder.write_text(re.sub(old_digest, digest, source), encoding="utf-8")
    for dtype, limits in sorted(content["limits"].items()):
        state = "frozen" if dtype in enough else "provisional"
        print(f"{dtype}: {counts[dtype]} runs, {state}")
        for name, value in limits.items():
            print(f"    {name:10} {value:.1e}")
    print(f"protocol {content['version']}: {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
