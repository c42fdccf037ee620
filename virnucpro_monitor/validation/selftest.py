"""The kill matrix: inject every known fault and see which gates notice.

A fault that survives, a harmless control that fires, an injected change that was never reached, or
a gate that fires on the healthy model fails the self-test. An arithmetic fault may survive in half
precision only where its effect lies below the noise, that is below the limit, which is 3 x the
worst healthy value.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from virnucpro_monitor.errors import DeviceError
from virnucpro_monitor.records import (
    GATE,
    BenchmarkSet,
    Culprit,
    NoiseDocument,
    Outcome,
    Protocol,
    Verdict,
    from_json,
    read_probes,
)
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.faults import FAULTS
from virnucpro_monitor.validation.faulty_subject import Fault, FaultySubject, fault_installed
from virnucpro_monitor.validation.gates import over_limit
from virnucpro_monitor.validation.harmless import CONTROLS
from virnucpro_monitor.validation.noise import healthy_noise, refuse_tighter_than_noise
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.perturb import reorder
from virnucpro_monitor.validation.planting import Witness, idle_parts
from virnucpro_monitor.validation.probe_texts import with_light_probes
from virnucpro_monitor.validation.protocol import limits_for, limits_key
from virnucpro_monitor.validation.selftest_material import (
    SMALL_TOKEN_BUDGET,
    USUAL_LENGTHS,
    WHOLE_LENGTHS,
    Material,
    with_short_probes,
)
from virnucpro_monitor.validation.subject import Layers, PackedBatch, dtype_name
from virnucpro_monitor.validation.validate import validate_subject

_BUDGETS = (450, 512, 700, 1200, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultResult:
    """What the yardstick said of one injected change.

    Attributes:
        killed_by: the gates that failed.
        margin: the largest value / limit among them; None where they have no finite ratio (an
            exact gate, or a value that is missing).
        seed_killed: whether the seed's own rule alone fails.
        below_noise: an arithmetic fault that survives in half precision below the noise floor.
        effect: the largest value / limit over all gates with a limit but the seed's, at
            `effect_gate`.
        floor: the same gate's largest value / limit over healthy runs, these and those of the
            protocol's evidence: the measured noise.
        idle: parts of the change that never acted, which proves nothing of the yardstick.
        reason: the verdict's sentence.
        group: the short name of the sequences that it strikes, from the trace.
        signature: the recognised fault's short name, from the trace or, for `<mask>` tokens,
            from the probe of the embedding layer.
    """

    name: str
    kind: str
    killed_by: tuple[str, ...]
    margin: float | None
    culprit: Culprit
    seed_killed: bool
    below_noise: bool
    effect: float | None
    reason: str
    signature: str | None = None
    effect_gate: str | None = None
    floor: float | None = None
    idle: tuple[str, ...] = ()
    group: str | None = None

    @property
    def as_expected(self) -> bool:
        if self.idle:
            return self.kind == "range"
        if self.kind in ("control", "healthy"):
            return not self.killed_by
        return bool(self.killed_by) or self.below_noise


@dataclass(frozen=True, slots=True, kw_only=True)
class SelftestReport:
    """The kill matrix.

    Attributes:
        healthy: gate -> limit / worst value over the healthy runs, None where that value is 0.
        num_healthy_runs: with shuffled packs and several token budgets.
    """

    model: str
    dtype: str
    device: str
    backend: str
    protocol: str
    faults: tuple[FaultResult, ...]
    controls: tuple[FaultResult, ...]
    healthy: dict[str, float | None]
    healthy_failures: tuple[str, ...] = ()
    num_healthy_runs: int = 0
    gates: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        results = (*self.faults, *self.controls)
        return all(result.as_expected for result in results) and not self.healthy_failures

    @property
    def num_killed(self) -> int:
        return sum(bool(result.killed_by) for result in self.faults)

    @property
    def num_killed_by_seed(self) -> int:
        return sum(result.seed_killed for result in self.faults)


class RememberingSubject(BuiltinSubject):
    """The healthy model, whose unpacked side is computed once per sequence and layer."""

    def __init__(self, subject: BuiltinSubject) -> None:
        super().__init__(
            subject.model,
            subject.batch_converter,
            model_name=subject.model_name,
            token_budget=subject.token_budget,
        )
        self._remembered: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        ids = tuple(tokens.tolist())
        missing = [layer for layer in layers if (ids, layer) not in self._remembered]
        if missing:
            found = self._alone(tokens, missing)
            self._remembered |= {(ids, layer): rows for layer, rows in found.items()}
        return {layer: self._remembered[ids, layer] for layer in layers}

    def _alone(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        return super().embed_unpacked_layers(tokens, layers)


def healthy_variants(count: int, seed: int = 0) -> Iterator[Fault]:
    """`count` healthy runs: packs shuffled each in another way, and several token budgets."""
    rng = random.Random(seed)
    for number in range(count):
        yield Fault(
            name=f"healthy {number + 1}",
            kind="healthy",
            on_batch=_shuffler(rng.randrange(2**31)),
            token_budget=_BUDGETS[number % len(_BUDGETS)],
        )


def run_selftest(
    subject: BuiltinSubject,
    benchmark: BenchmarkSet,
    oracle: Oracle,
    protocol: Protocol,
    *,
    num_healthy_runs: int = 10,
    faults: Sequence[Fault] = FAULTS,
    controls: Sequence[Fault] = CONTROLS,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> SelftestReport:
    """Run the healthy model, every fault and every control.

    Args:
        subject: the healthy model; its token budget should give several packs.
        oracle: of `benchmark` and the subject's weights.
        on_progress: called with (runs done, all runs, name of the next).

    Raises:
        ProtocolError: the protocol is tighter than the noise of this machine.
        DeviceError: a change brought the device down.
    """
    healthy = subject if isinstance(subject, RememberingSubject) else RememberingSubject(subject)
    dtype = dtype_name(subject.dtype)
    limits_name = limits_key(dtype, subject.device.type, subject.model_name)
    plain = Fault(name="healthy", kind="healthy")
    material = Material(benchmark, oracle)
    part, its_oracle = material.part(WHOLE_LENGTHS)
    first = validate_subject(healthy, part, oracle=its_oracle, protocol=protocol)
    noise = from_json(NoiseDocument, first.documents["noise"])
    refuse_tighter_than_noise(protocol, limits_name, noise)
    variants = [plain, *healthy_variants(num_healthy_runs - 1)] if num_healthy_runs else []
    jobs = [*variants, *faults, *controls]
    verdicts: list[Verdict] = []
    results: list[FaultResult] = []
    for number, fault in enumerate(jobs):
        if on_progress:
            on_progress(number, len(jobs), fault.name)
        try:
            verdict, witness = judge_fault(fault, healthy, material, protocol)
        except torch.AcceleratorError as error:  # no more can be asked of it by this process
            raise DeviceError(
                f"The device failed at {fault.name!r}: {str(error).splitlines()[0]}. "
                "It tells of some failures late; with CUDA_LAUNCH_BLOCKING=1 the name is right."
            ) from error
        verdicts.append(verdict)
        results.append(summarise(fault, verdict, dtype, witness))
    runs = len(variants)
    margins = headroom(verdicts[:runs])
    floors = _floors(protocol, limits_name, margins)
    results = [replace(result, floor=floors.get(result.effect_gate or "")) for result in results]
    return SelftestReport(
        model=subject.model_name,
        dtype=dtype,
        device=subject.device.type,
        backend=subject.backend,
        protocol=protocol.version,
        faults=tuple(results[runs : runs + len(faults)]),
        controls=tuple(results[runs + len(faults) :]),
        healthy=margins,
        healthy_failures=tuple(
            f"{result.name}: {result.reason}" for result in results[:runs] if result.killed_by
        ),
        num_healthy_runs=runs,
        gates=tuple(gate.name for gate in first.gates),
    )


def judge_fault(
    fault: Fault, healthy: BuiltinSubject, material: Material, protocol: Protocol
) -> tuple[Verdict, Witness]:
    """Validate the healthy model with one injected change.

    What must pass is asked everything. A fault is shown a few sequences that it strikes, and the
    probes only where these see nothing or the probes are the point.
    """
    witness = Witness()
    whole = fault.kind in ("healthy", "control")
    benchmark, oracle = material.part(WHOLE_LENGTHS if whole else fault.lengths or USUAL_LENGTHS)
    # The healthy model was asked of every length and pack shape; that takes longer than all else.
    light = with_light_probes(protocol)
    asked = light if whole else with_short_probes(light)
    with fault_installed(fault, witness):
        subject = FaultySubject(healthy, fault, witness)
        if not whole and fault.token_budget is None:
            subject.token_budget = SMALL_TOKEN_BUDGET
        try:
            for probes in (False, True):
                if not probes and (whole or fault.probes):
                    continue
                verdict = validate_subject(
                    subject, benchmark, oracle=oracle, protocol=asked, probes=probes
                )
                if verdict.outcome is Outcome.FAILED:
                    break
        finally:
            subject.mend()
    return verdict, witness


def summarise(
    fault: Fault, verdict: Verdict, dtype: str, witness: Witness | None = None
) -> FaultResult:
    """One row of the kill matrix. A healthy run's shuffle need not have found two to exchange."""
    failing = [gate for gate in verdict.gates if gate.passed is False]
    ratios = [ratio for ratio in map(over_limit, failing) if ratio is not None and ratio > 1.0]
    all_ratios = {
        gate.name: ratio
        for gate in verdict.gates
        if gate.name != "seed" and (ratio := over_limit(gate)) is not None
    }
    largest = max(all_ratios, key=lambda name: all_ratios[name], default=None)
    half = dtype != "float32"
    return FaultResult(
        name=fault.name,
        kind=fault.kind,
        killed_by=tuple(gate.name for gate in failing),
        margin=max(ratios, default=None),
        culprit=verdict.culprit,
        seed_killed=not verdict.figures.seed_passed,
        below_noise=half and fault.kind == "arithmetic" and verdict.outcome is Outcome.PASSED,
        effect=None if largest is None else all_ratios[largest],
        effect_gate=largest,
        reason=verdict.reason,
        signature=_signature(verdict),
        group=((verdict.documents.get("trace") or {}).get("group") or {}).get("name"),
        idle=() if witness is None or fault.kind == "healthy" else idle_parts(witness),
    )


def _signature(verdict: Verdict) -> str | None:
    traced = verdict.documents.get("trace", {}).get("signature")
    failing = {gate.name for gate in verdict.gates if gate.passed is False}
    if traced or "embedding" not in failing:
        return None if traced is None else str(traced)
    return read_probes(verdict.documents)["embedding"].signature


def _floors(
    protocol: Protocol, limits_name: str, margins: Mapping[str, float | None]
) -> dict[str, float]:
    """Gate -> largest healthy value / limit, of the protocol's evidence and of these runs."""
    limits = limits_for(protocol, limits_name)
    floors = {
        gate: value / limits[GATE[gate].limit or gate]
        for gate, value in healthy_noise(protocol, limits_name).items()
    }
    for gate, margin in margins.items():
        floors[gate] = max(floors.get(gate, 0.0), 0.0 if margin is None else 1.0 / margin)
    return floors


def headroom(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """Gate -> limit / worst value over `verdicts`; None where the worst value is 0."""
    worst: dict[str, float] = {}
    for verdict in verdicts:
        for gate in verdict.gates:
            worst[gate.name] = max(worst.get(gate.name, 0.0), over_limit(gate) or 0.0)
    return {name: 1.0 / ratio if ratio > 0 else None for name, ratio in worst.items()}


def _shuffler(seed: int) -> Callable[[PackedBatch], PackedBatch]:
    rng = random.Random(seed)

    def shuffle(batch: PackedBatch) -> PackedBatch:
        order = list(range(len(batch.sequence_ids)))
        rng.shuffle(order)
        return reorder(batch, order)

    return shuffle
