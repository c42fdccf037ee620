"""Gates: stored measures against a protocol's limits, each with its own pass or fail.

All are pure functions of records and JSON documents, so that stored runs can be judged again under
another protocol without a GPU. A measure that is missing fails its gate; it is never skipped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from virnucpro_monitor.records import (
    GATE,
    NO_ORACLE,
    Culprit,
    GateResult,
    Json,
    PacksDocument,
    ProbeDocument,
    Protocol,
    SequenceResult,
    SequenceStatus,
    Thresholds,
    error_of,
    informing_gates,
    read_limits,
    read_oracle,
    read_packs,
    read_probes,
)
from virnucpro_monitor.validation.family_limits import marked, widened
from virnucpro_monitor.validation.own_noise import own_limits
from virnucpro_monitor.validation.protocol import limits_for, seed_rule

# One side is the wrong one where it is this many times further from the oracle than the other.
CLEAR_FACTOR = 2.0

# What each gate of the sequences measures, for the sentences that a person reads.
GAIN = "difference in norm between packed and unpacked"
RESIDUE = "difference of the worst residue, packed against unpacked"
ORACLE = "packed's distance to FP32 beyond twice unpacked's"
DISTANCE = "{side}'s distance to FP32"

# Units in which a probe counts; the others are distances.
_COUNTED = ("sequences", "tensors")

_Value = Callable[[SequenceResult], float | None]


def judge_gates(
    sequences: Sequence[SequenceResult],
    documents: Mapping[str, Json],
    protocol: Protocol,
    *,
    limits_name: str,
) -> tuple[GateResult, ...]:
    """Judge every gate; probes and packs come from `documents`.

    Args:
        limits_name: from `limits_key`.

    Raises:
        ProtocolError: the protocol has no limits of that name.
    """
    provisional = read_limits(documents)
    limits = limits_for(protocol, limits_name)
    if provisional is None:
        content = protocol.content
        limits = own_limits(limits, sequences, read_probes(documents), content, limits_name)
    limits = widened(limits, provisional)
    packs = read_packs(documents)
    gates = [
        coverage_gate(sequences, packs),
        finite_gate(sequences, packs),
        tokens_gate(packs),
        seed_gate(sequences, seed_rule(protocol)),
        _pooled_gate("gain", sequences, _gain_error, limits["gain"], GAIN),
        residue_gate(sequences, packs, limits["residue"]),
    ]
    oracle = read_oracle(documents)
    # A run that names its oracle is judged by it whatever values are missing; older runs name none.
    if oracle != NO_ORACLE and (oracle is not None or has_oracle(sequences)):
        factor = float(protocol.content["oracle_factor"])
        gates += [
            oracle_gate(sequences, factor, limits["floor"]),
            _side_gate("ceiling", sequences, Culprit.PACKED, limits["ceiling"]),
            _side_gate("baseline", sequences, Culprit.UNPACKED, limits["baseline"]),
        ]
    elif oracle == NO_ORACLE:
        gates += [
            GateResult(
                name=name,
                passed=None,
                value=None,
                limit=None,
                unit="relative L2",
                detail="Not judged: there is no oracle for this model.",
            )
            for name in ("oracle", "ceiling", "baseline")
        ]
    gates += probe_gates(read_probes(documents), limits)
    informing = informing_gates(protocol.content)
    return tuple(
        replace(marked(gate, provisional), informs=informing.get(gate.name, "")) for gate in gates
    )


def over_limit(gate: GateResult) -> float | None:
    """value / limit, above 1 where the gate fails; None where there is no finite ratio."""
    if gate.value is None or not gate.limit:
        return None
    if gate.unit == "cosine":
        return (1.0 - gate.value) / (1.0 - gate.limit)
    return max(0.0, gate.value) / gate.limit


def has_oracle(sequences: Sequence[SequenceResult]) -> bool:
    return any(
        s.packed_relative_l2 is not None or s.unpacked_relative_l2 is not None for s in sequences
    )


def wrong_side(packed: float | None, unpacked: float | None) -> Culprit | None:
    """The side that is clearly further from the oracle; BOTH where neither is clearly closer."""
    if packed is None or unpacked is None:
        return None
    if packed > CLEAR_FACTOR * unpacked:
        return Culprit.PACKED
    if unpacked > CLEAR_FACTOR * packed:
        return Culprit.UNPACKED
    return Culprit.BOTH


def coverage_gate(sequences: Sequence[SequenceResult], packs: PacksDocument) -> GateResult:
    """Every id comes back from the packed path exactly once, and no other."""
    lost = [s.sequence_id for s in sequences if s.status is SequenceStatus.LOST]
    doubled = [s.sequence_id for s in sequences if s.status is SequenceStatus.DOUBLED]
    unknown = list(packs.unknown_ids)
    found = [
        f"{len(ids)} {what} ({_some(ids)})"
        for what, ids in (("lost", lost), ("doubled", doubled), ("unknown", unknown))
        if ids
    ]
    bad = len(lost) + len(doubled) + len(unknown)
    return GateResult(
        name="coverage",
        passed=bad == 0,
        value=float(bad),
        limit=0.0,
        unit="sequences",
        culprit=Culprit.PACKED if bad else None,
        detail=f"The packed path returned ids wrongly: {', '.join(found)}."
        if bad
        else f"{_all_of(sequences)} came back once.",
    )


def finite_gate(sequences: Sequence[SequenceResult], packs: PacksDocument) -> GateResult:
    """No NaN or infinity on either side."""
    bad = [s.sequence_id for s in sequences if s.status is SequenceStatus.NOT_FINITE]
    packed, unpacked = bool(packs.not_finite.packed), bool(packs.not_finite.unpacked)
    zero = next((s for s in sequences if s.status is SequenceStatus.NOT_FINITE), None)
    culprit = None
    if packed or unpacked:
        culprit = _side(packed, unpacked)
    elif zero is not None:
        culprit = _sequence_side(zero) or Culprit.PACKED
    where = "both sides" if culprit is Culprit.BOTH else f"the {culprit} side"
    return GateResult(
        name="finite",
        passed=not bad,
        value=float(len(bad)),
        limit=0.0,
        unit="sequences",
        culprit=culprit,
        detail=f"Values are NaN, infinite or all zero on {where} in {len(bad)} of "
        f"{len(sequences)} sequences ({_some(bad)})."
        if bad
        else "Every value is finite.",
    )


def tokens_gate(packs: PacksDocument) -> GateResult:
    """The tokens between two boundaries are the sequence's own: <cls>, residues, <eos>."""
    bad = list(packs.other_tokens)
    return GateResult(
        name="tokens",
        passed=not bad,
        value=float(len(bad)),
        limit=0.0,
        unit="sequences",
        culprit=Culprit.PACKED if bad else None,
        detail=f"The pack holds other tokens than the sequence's own: {_some(bad)}."
        if bad
        else "Each pack holds the sequences' own tokens.",
    )


def _all_of(sequences: Sequence[SequenceResult]) -> str:
    return "The one sequence" if len(sequences) == 1 else f"All {len(sequences)} sequences"


def seed_gate(sequences: Sequence[SequenceResult], rule: Thresholds) -> GateResult:
    """The seed's rule: none below lenient, at most floor(fraction * n) not above strict.

    `value` is the similarity that decides: the lowest, or, where that one may lie below strict,
    the lowest that may not.
    """
    judged = sorted(sequences, key=lambda s: -1.0 if s.similarity is None else s.similarity)
    missing = [s for s in judged if s.similarity is None]
    not_strict = [s for s in judged if s.similarity is None or s.similarity <= rule.strict]
    failed = [s for s in judged if s.similarity is None or s.similarity < rule.lenient]
    allowed = rule.allowance(len(sequences))
    passed = bool(sequences) and not failed and len(not_strict) <= allowed
    by_strict = not failed and (len(not_strict) > allowed or allowed == 0)
    deciding = judged[allowed if by_strict else 0] if judged else None
    if not not_strict and judged:
        verb = "is" if len(judged) == 1 else "are"
        detail = f"{_all_of(judged)} {verb} more similar than {rule.strict:g}"
    else:
        detail = (
            f"{len(not_strict)} of {len(sequences)} sequences "
            f"{'is' if len(not_strict) == 1 else 'are'} not more similar than "
            f"{rule.strict:g}, where {allowed or 'none'} may be"
        )
    if deciding is not None:
        worst = judged[0]
        shown = "no similarity" if worst.similarity is None else _cosine_text(worst.similarity)
        detail += f"; the lowest is {worst.sequence_id} with {shown}"
    return GateResult(
        name="seed",
        passed=passed,
        value=None if missing or deciding is None else deciding.similarity,
        limit=rule.strict if by_strict else rule.lenient,
        unit="cosine",
        culprit=None if passed or deciding is None else _sequence_side(judged[0]),
        detail=detail + ".",
    )


def residue_gate(
    sequences: Sequence[SequenceResult], packs: PacksDocument, limit: float
) -> GateResult:
    """The worst single residue; the side is told by the oracle's own residue."""
    gate = _pooled_gate("residue", sequences, _residue_error, limit, RESIDUE)
    worst = _worst(sequences, _residue_error)
    if gate.passed or worst is None or (_residue_error(worst) or 0.0) <= limit:
        return gate
    errors = packs.residue_errors.get(worst.sequence_id)
    return GateResult(
        name="residue",
        passed=False,
        value=gate.value,
        limit=limit,
        unit=gate.unit,
        culprit=wrong_side(*errors) if errors else _sequence_side(worst),
        detail=f"{gate.detail[:-1]}, at residue {(worst.worst_residue or 0) + 1} of {worst.length}."
        if worst.worst_residue is not None
        else gate.detail,
    )


def oracle_gate(sequences: Sequence[SequenceResult], factor: float, floor: float) -> GateResult:
    """Packed error <= factor x unpacked error + floor, for each sequence."""

    def excess(s: SequenceResult) -> float | None:
        if s.packed_relative_l2 is None or s.unpacked_relative_l2 is None:
            return None
        return s.packed_relative_l2 - factor * s.unpacked_relative_l2

    gate = _pooled_gate("oracle", sequences, excess, floor, ORACLE)
    if gate.passed:
        return gate
    over = [s for s in sequences if (e := excess(s)) is not None and e > floor]
    packed_missing = any(s.packed_relative_l2 is None for s in sequences)
    culprit = Culprit.PACKED if over or packed_missing else Culprit.UNPACKED
    detail = gate.detail
    if over:
        worst = max(over, key=lambda s: excess(s) or 0.0)
        detail = (
            f"Packed is further from FP32 than {factor:g} x unpacked + {number_text(floor)} in "
            f"{len(over)} of {len(sequences)} sequences, most in {worst.sequence_id}: packed "
            f"{number_text(worst.packed_relative_l2 or 0.0)}, unpacked "
            f"{number_text(worst.unpacked_relative_l2 or 0.0)} (relative L2)."
        )
    return GateResult(
        name="oracle",
        passed=False,
        value=gate.value,
        limit=floor,
        unit=gate.unit,
        culprit=culprit,
        detail=detail,
    )


def probe_gates(
    probes: Mapping[str, ProbeDocument], limits: Mapping[str, float]
) -> list[GateResult]:
    """Gates of the probes that ran.

    Not judged is one whose probe could not run, or for which an older protocol has no limit yet.
    """
    gates = []
    for name, probe in probes.items():
        limit_name = GATE[name].limit
        if is_unknown := bool(limit_name) and limit_name not in limits:
            probe = replace(probe, not_judged="Not judged: the protocol has no limit for it.")
        limit = limits.get(limit_name, 0.0) if limit_name else 0.0
        value, reason = probe.value, probe.not_judged
        passed = None if reason else value is not None and value <= limit
        culprit = None
        if passed is False:
            culprit = probe.culprit or Culprit.PACKED
            over = [side is None or side > limit for side in probe.sides or ()]
            if any(over):
                culprit = _side(*over)
        detail = reason or probe.detail
        if passed is False and value is None:
            detail = f"The {name} probe gave values that are not finite."
        elif not reason:
            allowed = f"up to {number_text(limit)} is allowed" if limit else "it must be exactly 0"
            if probe.unit in _COUNTED:
                allowed = "" if passed else "none may be"
            detail = f"{detail.removesuffix('.')}{f'; {allowed}' if allowed else ''}."
        if probe.covers and not reason:
            detail = f"{detail.removesuffix('.')} (asked of {probe.covers})."
        gates.append(
            GateResult(
                name=name,
                passed=passed,
                value=value,
                limit=None if is_unknown else limit,
                unit=probe.unit,
                culprit=culprit,
                detail=detail,
            )
        )
    return gates


def number_text(value: float) -> str:
    """Three digits at most; a power of ten where that is shorter."""
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def _pooled_gate(
    name: str,
    sequences: Sequence[SequenceResult],
    value: _Value,
    limit: float,
    measured: str,
) -> GateResult:
    """Every sequence's `value` must be there and at most `limit`; `measured` says it in words."""
    missing = [s for s in sequences if value(s) is None]
    worst = _worst(sequences, value)
    largest = None if worst is None else value(worst)
    over = [s for s in sequences if (v := value(s)) is not None and v > limit]
    passed = largest is not None and not missing and not over
    blamed = [worst] if over and worst is not None else missing
    unit = GATE[name].unit
    what = f"{measured[:1].upper()}{measured[1:]} ({unit}):"
    if over and worst is not None:
        detail = (
            f"{what} above {number_text(limit)} in {len(over)} of {len(sequences)} sequences, "
            f"most in {worst.sequence_id} with {number_text(largest or 0.0)}."
        )
    elif missing:
        ids = [s.sequence_id for s in missing]
        detail = (
            f"{what} unknown for {len(missing)} of {len(sequences)} sequences ({_some(ids)}), "
            "which are lost, not finite, or of another number of residues."
        )
    elif worst is not None:
        detail = (
            f"{what} at most {number_text(max(0.0, largest or 0.0))} ({worst.sequence_id}); up to "
            f"{number_text(limit)} is allowed."
        )
    else:
        detail = "There is nothing to judge."
    return GateResult(
        name=name,
        passed=passed,
        # The value that decided: what is missing fails the gate, and no number stands for it.
        value=largest if over or not missing else None,
        limit=limit,
        unit=unit,
        culprit=None if passed or not blamed else _sequence_side(blamed[0]),
        detail=detail,
    )


def _side_gate(
    name: str, sequences: Sequence[SequenceResult], side: Culprit, limit: float
) -> GateResult:
    """One side's error against the oracle is at most `limit` for each sequence."""

    def error(s: SequenceResult) -> float | None:
        return s.packed_relative_l2 if side is Culprit.PACKED else s.unpacked_relative_l2

    # A sequence that the packed path lost says nothing about the baseline.
    judged = [s for s in sequences if side is Culprit.PACKED or s.status is not SequenceStatus.LOST]
    gate = _pooled_gate(name, judged, error, limit, DISTANCE.format(side=side))
    passed = gate.passed or not judged
    return GateResult(
        name=name,
        passed=passed,
        value=gate.value,
        limit=limit,
        unit=gate.unit,
        culprit=None if passed else side,
        detail=gate.detail,
    )


def _gain_error(s: SequenceResult) -> float | None:
    return None if s.gain is None else abs(s.gain - 1.0)


def _residue_error(s: SequenceResult) -> float | None:
    worst = s.worst_residue_similarity
    return None if worst is None else error_of(worst)


def _worst(sequences: Sequence[SequenceResult], value: _Value) -> SequenceResult | None:
    known = [s for s in sequences if value(s) is not None]
    return max(known, key=lambda s: value(s) or 0.0) if known else None


def _sequence_side(s: SequenceResult) -> Culprit | None:
    if s.status in (SequenceStatus.LOST, SequenceStatus.DOUBLED):
        return Culprit.PACKED
    if (s.packed_relative_l2 is None) != (s.unpacked_relative_l2 is None):
        return Culprit.PACKED if s.packed_relative_l2 is None else Culprit.UNPACKED
    return wrong_side(s.packed_relative_l2, s.unpacked_relative_l2)


def _side(packed: bool, unpacked: bool) -> Culprit:
    if packed and not unpacked:
        return Culprit.PACKED
    return Culprit.UNPACKED if unpacked and not packed else Culprit.BOTH


def _cosine_text(similarity: float) -> str:
    """As many digits as it takes to tell it from 1."""
    error = error_of(similarity)
    return f"{similarity:.4f}" if error >= 1e-4 else f"1 - {error:.1e}" if error else "exactly 1"


def _some(ids: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(ids[:most])
    return shown if len(ids) <= most else f"{shown} and {len(ids) - most} more"
