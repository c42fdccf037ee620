"""Limits by a run's own noise: weights that are calmer than the noisiest leave faults less room.

A protocol's limits hold for the noisiest weights of a dtype. What other weights need may be a
twentieth of them, and a lost head or a dropped key then hides below. But the unpacked side shows
each run's noise: its distance to FP32, on the set's sequences and on the probes'. What healthy
packed sides differ by is a multiple of that distance which hardly depends on weights, model or
device, so a protocol holds three times the largest such multiple, and the lower of both limits
counts. So a wrong unpacked side can loosen nothing, and one that is closer to FP32 than its dtype
can be, as fair-esm itself is in float32, tells nothing: then the protocol's limits stand.
"""

from collections.abc import Mapping, Sequence

from virnucpro_monitor.records import Json, ProbeDocument, SequenceResult

# Distance between 1 and the next smaller number: the coarsest rounding of one operation.
_ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
# A similarity falls with the square of a distance.
SQUARED = frozenset({"residue"})
OF_SEQUENCES = ("gain", "residue", "floor", "ceiling")
OF_PROBES = ("probes", "position", "order", "mask")
FOLLOWING = (*OF_SEQUENCES, *OF_PROBES)
"""The limits that follow the run's noise; "baseline" is that noise, "embedding" only rounds."""


def kind_of(limits_name: str) -> str:
    """ "half" or "float32", of a name from `limits_key`."""
    return "float32" if limits_name.startswith("float32") else "half"


def own_noise(
    sequences: Sequence[SequenceResult],
    probes: Mapping[str, ProbeDocument],
    limits_name: str,
    *,
    least: float,
) -> dict[str, float]:
    """Limit -> the distance that it is a multiple of; only those that the run can tell.

    Args:
        limits_name: from `limits_key`; tells the dtype.
        least: roundings of the dtype that a distance must reach to be noise of it.
    """
    of_sequences = [one.unpacked_relative_l2 for one in sequences]
    sides = probes["probes"].sides if "probes" in probes else None
    of_probes = [None if sides is None else sides[1]]
    dtype = limits_name.partition(",")[0].partition(" ")[0]
    smallest = least * _ROUNDING[dtype]
    found: dict[str, float] = {}
    for names, distances in ((OF_SEQUENCES, of_sequences), (OF_PROBES, of_probes)):
        known = [distance for distance in distances if distance is not None]
        if known and len(known) == len(distances) and max(known) >= smallest:
            found |= {name: max(known) ** (1 + (name in SQUARED)) for name in names}
    return found


def own_limits(
    limits: Mapping[str, float],
    sequences: Sequence[SequenceResult],
    probes: Mapping[str, ProbeDocument],
    content: Mapping[str, Json],
    limits_name: str,
) -> Mapping[str, float]:
    """A protocol's limits, or what the run's own noise allows where that is less.

    Args:
        content: of the protocol; one without "own_noise" keeps its limits as they are.
        limits_name: from `limits_key`.
    """
    rule = content.get("own_noise")
    if rule is None:
        return limits
    factors = rule["factors"][kind_of(limits_name)]
    noise = own_noise(sequences, probes, limits_name, least=rule["least"])
    return {
        name: min(limit, factors[name] * noise[name]) if name in noise else limit
        for name, limit in limits.items()
    }
