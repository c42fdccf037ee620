"""The verdict: outcome, the side that is wrong, and one sentence that says why."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from virnucpro_monitor.records import (
    FAIR_ESM_ORACLE,
    GATE,
    NO_ORACLE,
    OWN_ORACLE,
    Culprit,
    Figures,
    GateResult,
    Json,
    Outcome,
    PacksDocument,
    Protocol,
    SequenceResult,
    SequenceStatus,
    Thresholds,
    Verdict,
    read_limits,
    read_oracle,
    read_packs,
    read_probes,
)
from virnucpro_monitor.validation.gates import judge_gates, over_limit, wrong_side
from virnucpro_monitor.validation.protocol import seed_rule

# Gates that hold packed against unpacked alone, where the oracle is none or unpacked's own.
_NEITHER = "neither is clearly closer to FP32"
_AGAINST_UNPACKED = frozenset({"seed", "gain", "residue", "oracle", "ceiling", "probes"})
_DIFFERS = "Packed does not give what unpacked gives, which counts as right, since"
_TAKEN_AS_RIGHT = {
    NO_ORACLE: f"{_DIFFERS} there is no oracle for this model",
    OWN_ORACLE: f"{_DIFFERS} the oracle is unpacked itself in FP64",
}
_OWN = f" against {OWN_ORACLE}, which has any fault that both sides share"


def judge(
    sequences: Sequence[SequenceResult],
    documents: Mapping[str, Json],
    protocol: Protocol,
    *,
    limits_name: str,
) -> Verdict:
    """Judge stored measures under a protocol: pure, no model and no GPU.

    Args:
        documents: "packs" and "probes" as `validate_subject` stored them; "trace" where there is
            one adds its finding to the reason.
        limits_name: which limits hold, from `limits_key`.

    Raises:
        ProtocolError: the protocol has no limits of that name.
    """
    oracle = read_oracle(documents) or FAIR_ESM_ORACLE
    gates = tuple(
        replace(gate, detail=_of_oracle(gate.detail, oracle))
        for gate in judge_gates(sequences, documents, protocol, limits_name=limits_name)
    )
    failing = [gate for gate in gates if gate.fails]
    figures = make_figures(sequences, read_packs(documents), gates, seed_rule(protocol))
    spoilt = any(probe.spoils_unpacked for probe in read_probes(documents).values())
    culprit = find_culprit(failing, spoilt=spoilt)
    return Verdict(
        outcome=Outcome.FAILED if failing else Outcome.PASSED,
        packed_outcome=_side_outcome(Culprit.PACKED, culprit),
        unpacked_outcome=_side_outcome(Culprit.UNPACKED, culprit),
        culprit=culprit,
        reason=_of_oracle(make_reason(sequences, gates, culprit, documents), oracle),
        figures=figures,
        gates=gates,
        sequences=tuple(sequences),
        documents=documents,
    )


def _side_outcome(side: Culprit, culprit: Culprit) -> Outcome:
    return Outcome.FAILED if culprit in (side, Culprit.BOTH) else Outcome.PASSED


def find_culprit(failing: Sequence[GateResult], *, spoilt: bool = False) -> Culprit:
    """One culprit from the failing gates; gates that know their side outrank inferred ones.

    Args:
        spoilt: the packed side changed what the unpacked side gives, so that it is the culprit of
            whatever was seen on either.
    """
    if not failing:
        return Culprit.NONE
    if spoilt:
        return Culprit.PACKED
    if any(gate.name == "weights" and gate.culprit is Culprit.UNPACKED for gate in failing):
        return Culprit.UNPACKED  # by a pass that changed the weights which both sides use
    sided = {side for gate in failing if (side := _own_side(gate))}
    named = sided or {gate.culprit for gate in failing if gate.culprit}
    if not named:
        # Without an oracle the unpacked side is the reference, as the seed has it.
        return Culprit.PACKED
    return next(iter(named)) if len(named) == 1 else Culprit.BOTH


def make_figures(
    sequences: Sequence[SequenceResult],
    packs: PacksDocument,
    gates: Sequence[GateResult],
    rule: Thresholds,
) -> Figures:
    known = [(s.similarity, s.sequence_id) for s in sequences if s.similarity is not None]
    values = [similarity for similarity, _ in known]
    num_strict = sum(value > rule.strict for value in values)
    num_failed = len(sequences) - sum(value >= rule.lenient for value in values)
    missing = [s.sequence_id for s in sequences if s.similarity is None]
    return Figures(
        num_sequences=len(sequences),
        num_tokens=packs.num_tokens,
        num_strict=num_strict,
        num_failed=num_failed,
        strict_pass_rate=num_strict / len(sequences) if sequences else 0.0,
        # A value that is missing is worse than any number, so that none stands for the worst.
        min_similarity=None if missing else min(values, default=None),
        p01_similarity=None if missing else percentile(values, 0.01),
        median_similarity=None if missing else percentile(values, 0.5),
        max_similarity=max(values, default=None),
        worst_sequence=missing[0] if missing else min(known)[1] if known else None,
        seed_passed=any(gate.name == "seed" and gate.passed is True for gate in gates),
        max_packed_relative_l2=_largest(s.packed_relative_l2 for s in sequences),
        max_unpacked_relative_l2=_largest(
            s.unpacked_relative_l2
            for s in sequences
            if s.status is not SequenceStatus.LOST  # which says nothing about the unpacked side
        ),
        unpacked_s=packs.unpacked_s,
        packed_s=packs.packed_s,
    )


def make_reason(
    sequences: Sequence[SequenceResult],
    gates: Sequence[GateResult],
    culprit: Culprit,
    documents: Mapping[str, Json],
) -> str:
    """One sentence: which side, by how much, what failed, and where it departs."""
    failing = {gate.name: gate for gate in gates if gate.fails}
    informing = [gate for gate in gates if gate.informs]
    cut = _cut_text(sequences) + _provisional_text(documents)
    if not failing:
        seed = next(gate for gate in gates if gate.name == "seed")
        told, rest = _informs_text(informing), cut
        if any(gate.passed is False for gate in informing):
            return f"Passed{told}; {_lower(seed.detail[:-1])}; all other gates hold{rest}."
        rest = told + rest
        oracle = read_oracle(documents)
        unprobed = "packs" in documents and "probes" not in documents  # a trial of an adapter
        if oracle == NO_ORACLE:
            return (
                f"Packed equals unpacked, correctness unknown, since there is no oracle for this "
                f"model: {_lower(seed.detail[:-1])}; all gates that could be judged hold{rest}."
            )
        all_gates = "all gates that need no probes" if unprobed else "all gates"
        if unknown := [gate.name for gate in gates if gate.passed is None and not gate.informs]:
            all_gates = f"{all_gates} but {', '.join(unknown)}, not judged,"
        held = {None: "", FAIR_ESM_ORACLE: "", OWN_ORACLE: _OWN}.get(oracle, f" against {oracle}")
        equal = f"Packed equals unpacked: {_lower(seed.detail[:-1])}"
        return f"{equal}; {all_gates} hold{held}{rest}."
    lead = {
        Culprit.PACKED: "Packed is the wrong side",
        Culprit.UNPACKED: "Unpacked is the wrong side",
        Culprit.BOTH: "Both sides are wrong",
        Culprit.NONE: "Something is wrong",
    }[culprit]
    if culprit is Culprit.PACKED and failing.keys() <= _AGAINST_UNPACKED:
        lead = _TAKEN_AS_RIGHT.get(read_oracle(documents) or "", lead)
    comparison = _by_side(failing.values()) if culprit is Culprit.BOTH else ""
    if lead not in _TAKEN_AS_RIGHT.values():
        comparison = comparison or compare_sides(sequences, culprit)
    if comparison == _NEITHER and not any(map(_own_side, failing.values())):
        # Each alone may be as near to FP32 as healthy models are: then neither is shown wrong.
        lead, comparison = (
            "Packed and unpacked differ",
            f"{_NEITHER}, so the wrong side is not known",
        )
    parts = [f"{lead}: {comparison}" if comparison else lead]
    finding = documents.get("trace", {}).get("finding")
    probes = read_probes(documents)
    embedding = probes.get("embedding")
    if not finding and embedding and embedding.looks_like and "embedding" in failing:
        finding = f"the embedding looks like {embedding.looks_like}"
    if finding:
        spoilt = any(probe.spoils_unpacked for probe in probes.values())
        parts.append(_since_changed(failing.get("weights"), spoilt) + str(finding))
    parts.append(_lower(most_telling(list(failing.values())).detail.rstrip(".")))
    parts.append(f"failed {'gate' if len(failing) == 1 else 'gates'}: {', '.join(failing)}")
    return "; ".join(parts) + _informs_text(informing) + cut + "."


def _since_changed(weights: GateResult | None, spoilt: bool) -> str:
    """What comes before a finding where one side's pass changed what both use."""
    if weights is None or weights.culprit not in (Culprit.PACKED, Culprit.UNPACKED):
        return "since a pass of packed changed what unpacked gives, " if spoilt else ""
    return f"since a pass of {weights.culprit} changed the weights that both use, "


def _informs_text(informing: Sequence[GateResult]) -> str:
    """What a policy lets through, so that nobody loosens a gate in silence."""
    told = ""
    for gate in informing:
        found = {True: "it holds", None: "it is not judged"}.get(gate.passed, gate.detail)
        told += f"; gate {gate.name} informs by {gate.informs} ({_lower(found.rstrip('.'))})"
    return told


def _provisional_text(documents: Mapping[str, Json]) -> str:
    """That a family's limits are not frozen from healthy runs of it, where they are not."""
    limits = read_limits(documents)
    return "" if limits is None else f"; limits are provisional for {limits.family}"


def _cut_text(sequences: Sequence[SequenceResult]) -> str:
    """That sequences were cut to the limit, where some were."""
    cut = [one for one in sequences if one.truncated]
    if not cut:
        return ""
    return (
        f"; {len(cut)} of {len(sequences)} sequences were cut to their first {cut[0].length:,} "
        f"residues ({cut[0].sequence_id})"
    )


def _own_side(gate: GateResult) -> Culprit | None:
    """The side that it names by itself, rather than by the distances to FP32."""
    return gate.culprit if GATE[gate.name].knows_side else None


def _by_side(failing: Iterable[GateResult]) -> str:
    """Which gates each side fails; empty unless both fail one that names them alone."""
    of_side: dict[Culprit | None, list[str]] = {}
    for gate in failing:
        of_side.setdefault(gate.culprit, []).append(gate.name)
    alone = [side for side in (Culprit.PACKED, Culprit.UNPACKED) if side in of_side]
    if len(alone) < 2:
        return ""
    return " and ".join(f"{side} fails {', '.join(of_side[side])}" for side in alone)


def most_telling(failing: Sequence[GateResult]) -> GateResult:
    """The failing gate to quote: what everybody understands first, then the largest excess."""

    def telling(gate: GateResult) -> tuple[float, float]:
        rank, ratio = GATE[gate.name].rank, over_limit(gate)
        return (math.inf if rank is None else rank, -math.inf if ratio is None else -ratio)

    return min(failing, key=telling)


def compare_sides(sequences: Sequence[SequenceResult], culprit: Culprit) -> str:
    """How many times closer to FP32 one side is, at the sequence where they differ most.

    Empty where that would not bear out the culprit.
    """
    both = [
        s
        for s in sequences
        if s.packed_relative_l2 is not None and s.unpacked_relative_l2 is not None
    ]
    if not both:
        return ""
    worst = max(both, key=lambda s: s.relative_l2 or 0.0)
    packed, unpacked = worst.packed_relative_l2 or 0.0, worst.unpacked_relative_l2 or 0.0
    side = wrong_side(packed, unpacked)
    if side not in (culprit, Culprit.PACKED, Culprit.UNPACKED):
        return ""
    if culprit is not Culprit.BOTH and side is not culprit:
        return ""
    if side is Culprit.BOTH:
        return _NEITHER
    closer, nearer, further = (
        ("packed", packed, unpacked) if side is Culprit.UNPACKED else ("unpacked", unpacked, packed)
    )
    other = "unpacked" if closer == "packed" else "packed"
    if nearer == 0.0:
        return f"{closer} equals FP32 exactly"
    return f"{closer} is {_factor_text(further / nearer)} x closer to FP32 than {other}"


def _factor_text(factor: float) -> str:
    return f"{factor:.1f}" if factor < 100 else f"{factor:,.0f}"


def _largest(values: Iterable[float | None]) -> float | None:
    """None as soon as one is missing: 6.9e-7 over two of 14 would read as a healthy run's."""
    known = list(values)
    return None if None in known else max((v for v in known if v is not None), default=None)


def _of_oracle(text: str, oracle: str) -> str:
    """What is said of the usual oracle, said of another."""
    return text if oracle == FAIR_ESM_ORACLE else text.replace("FP32", "the oracle")


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def percentile(values: list[float], fraction: float) -> float | None:
    """Linear-interpolated percentile of `values`; None where there is none."""
    if not values:
        return None
    ordered = sorted(values)
    place = fraction * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
