"""Noise: what healthy runs differ by, and the refusal of limits that lie below it.

A limit below the noise fires on healthy models, and whoever sees that loosens the next limit too.
"""

from collections.abc import Iterable, Mapping, Sequence

from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.records import (
    GATE,
    LIMIT_GATES,
    Json,
    NoiseDocument,
    ProbeDocument,
    Protocol,
    SequenceResult,
    Verdict,
)
from virnucpro_monitor.validation.protocol import (
    RELEASED_DIGESTS,
    limits_for,
    limits_key,
    limits_named,
    load_protocol,
)
from virnucpro_monitor.validation.verdict import judge

# Limits that measure one thing each, on either side or in either order, share the worst value.
_SHARED = (("ceiling", "baseline"), ("position", "order", "mask"))


def noise_of(probes: Mapping[str, ProbeDocument]) -> NoiseDocument:
    """The noise floor that the probes saw."""
    packed, unpacked = probes["repeat"].sides or (None, None)
    moved = [probes[name].value for name in ("position", "order")]
    known = [value for value in moved if value is not None]
    return NoiseDocument(
        packed_repeat=packed, unpacked_repeat=unpacked, reordered=max(known, default=None)
    )


def worst_of(evidence: Iterable[Mapping[str, Json]]) -> dict[str, float]:
    """The worst healthy value for each limit, over records of `evidence.collect_evidence`."""
    records = list(evidence)
    names = set.intersection(*(set(record["worst"]) for record in records))
    worst = {name: max(float(r["worst"][name]) for r in records) for name in sorted(names)}
    for shared in _SHARED:
        worst.update(dict.fromkeys(shared, max(worst[name] for name in shared)))
    return worst


def names_of_limits(record: Mapping[str, Json]) -> tuple[str, str]:
    """The limits that a record of evidence is for: those of every model, and its model's own."""
    of = record["dtype"], record["device"]
    return limits_key(*of), limits_key(*of, record["model"])


def healthy_noise(protocol: Protocol, limits_name: str) -> dict[str, float]:
    """Gate -> the worst value of the healthy runs in a protocol's evidence; empty without any.

    Args:
        limits_name: from `limits_key`.
    """
    name = limits_named(protocol.content, limits_name)
    evidence = [
        record
        for record in protocol.content.get("evidence", {}).get("runs", ())
        if name in names_of_limits(record)
    ]
    if not evidence:
        return {}
    return {LIMIT_GATES[name].name: value for name, value in worst_of(evidence).items()}


def refuse_tighter_than_noise(protocol: Protocol, limits_name: str, noise: NoiseDocument) -> None:
    """Refuse a protocol whose limits this machine's own noise exceeds.

    Args:
        noise: from `noise_of`, of a model known to be healthy.

    Raises:
        ProtocolError: with the limit and the noise.
    """
    limits = limits_for(protocol, limits_name)
    allowed = (
        ("packed repeat", noise.packed_repeat, 0.0),
        ("unpacked repeat", noise.unpacked_repeat, 0.0),
        ("reordered", noise.reordered, min(limits["position"], limits["order"])),
    )
    for name, value, limit in allowed:
        if value is not None and value > limit:
            raise ProtocolError(
                f"Protocol {protocol.version} allows {limit:.1e} for {name} in {limits_name}, "
                f"but a healthy model moves by {value:.1e} here: use a protocol that was frozen "
                "with evidence from such a machine."
            )


def judge_within_noise(
    sequences: Sequence[SequenceResult],
    documents: Mapping[str, Json],
    protocol: Protocol,
    *,
    limits_name: str,
) -> Verdict:
    """`verdict.judge`, but a user's protocol that fires on healthy noise is refused.

    It fires on noise where a gate fails although its value is one that healthy runs, in the
    evidence of the released protocol, or of a calibrated one's own, have had too.

    Args:
        limits_name: from `limits_key`.

    Raises:
        ProtocolError: the protocol has no limits of that name, or one that lies below the noise.
    """
    verdict = judge(sequences, documents, protocol, limits_name=limits_name)
    if protocol.digest in RELEASED_DIGESTS.values():
        return verdict
    calibrated = "calibrated" in protocol.content
    healthy = healthy_noise(protocol if calibrated else load_protocol(), limits_name)
    # What a run's own noise allows may be less, and says nothing of the protocol.
    limits = limits_for(protocol, limits_name)
    for gate in verdict.gates:
        noise, limit = healthy.get(gate.name), limits.get(GATE[gate.name].limit or "")
        if gate.passed is not False or gate.value is None or limit is None or noise is None:
            continue
        # A gate that fails within its limit fails for a value that is missing.
        if limit < gate.value <= noise:
            raise ProtocolError(
                f"Protocol {protocol.version} is tighter than the noise: its {gate.name} gate "
                f"allows {limit:.1e} in {limits_name} and would fail this run for "
                f"{gate.value:.1e}, but healthy runs have had up to {noise:.1e}: raise that limit."
            )
    return verdict
