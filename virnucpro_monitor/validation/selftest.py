"""The kill matrix: inject every known fault and see which gates notice.

A fault that survives, a harmless control that fires, an injected change that was never reached, or
a gate that fires on the healthy model fails the self-test. An arithmetic fault may survive in half
precision only where its effect lies below the noise, that is below the limit, which is 3 x the
worst healthy value.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

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
from virnucpro_monitor.validation.kill_matrix import (
    DEVICE,
    FaultResult,
    Lost,
    Row,
    SelftestReport,
    headroom,
    narrowest,
)
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


OnRow = Callable[[int, int, FaultResult], None]
Judges = Callable[["Bench"], Iterator[tuple[int, "Row | Lost"]]]
"""What has every job of a bench judged, in any order: (its number, its row)."""


class Bench:
    """The healthy model with what it is asked, and the list of changes to judge.

    Args:
        subject: the healthy model; its token budget should give several packs.
        oracle: of `benchmark` and the subject's weights.
    """

    def __init__(
        self,
        subject: BuiltinSubject,
        benchmark: BenchmarkSet,
        oracle: Oracle,
        protocol: Protocol,
        *,
        num_healthy_runs: int = 10,
        faults: Sequence[Fault] = FAULTS,
        controls: Sequence[Fault] = CONTROLS,
    ) -> None:
        self.healthy = (
            subject if isinstance(subject, RememberingSubject) else RememberingSubject(subject)
        )
        self.protocol = protocol
        self.dtype = dtype_name(subject.dtype)
        self.limits_name = limits_key(self.dtype, subject.device.type, subject.model_name)
        self._material = Material(benchmark, oracle)
        plain = Fault(name="healthy", kind="healthy")
        runs = [plain, *healthy_variants(num_healthy_runs - 1)] if num_healthy_runs else []
        self.jobs: tuple[Fault, ...] = (*runs, *faults, *controls)
        self.num_healthy_runs = len(runs)
        self.num_faults = len(faults)

    def open(self) -> tuple[str, ...]:
        """Judge the healthy model once: the names of all gates.

        Raises:
            ProtocolError: the protocol is tighter than the noise of this machine.
        """
        part, its_oracle = self._material.part(WHOLE_LENGTHS)
        first = validate_subject(self.healthy, part, oracle=its_oracle, protocol=self.protocol)
        noise = from_json(NoiseDocument, first.documents["noise"])
        refuse_tighter_than_noise(self.protocol, self.limits_name, noise)
        return tuple(gate.name for gate in first.gates)

    def judge(self, number: int) -> Row | Lost:
        """The row of one job."""
        fault = self.jobs[number]
        try:
            verdict, witness = judge_fault(fault, self.healthy, self._material, self.protocol)
        except torch.AcceleratorError as error:
            return Lost(reason=str(error).splitlines()[0])
        found = summarise(fault, verdict, self.dtype, witness)
        return Row(result=found, headroom=headroom([verdict]) if fault.kind == "healthy" else {})

    def lost(self, number: int, lost: Lost) -> Row:
        """The row of a change that took the device down: nobody could overlook it."""
        fault = self.jobs[number]
        return Row(
            result=FaultResult(
                name=fault.name,
                kind=fault.kind,
                killed_by=(DEVICE,),
                margin=None,
                culprit=Culprit.PACKED,
                seed_killed=False,
                below_noise=False,
                effect=None,
                reason=f"The device failed: {lost.reason}",
            )
        )

    def report(self, rows: Sequence[Row], gates: tuple[str, ...]) -> SelftestReport:
        """The matrix of all jobs' rows, in their order."""
        runs = rows[: self.num_healthy_runs]
        margins = narrowest([row.headroom for row in runs])
        floors = _floors(self.protocol, self.limits_name, margins)
        results = [
            replace(row.result, floor=floors.get(row.result.effect_gate or "")) for row in rows
        ]
        controls = self.num_healthy_runs + self.num_faults
        return SelftestReport(
            model=self.healthy.model_name,
            dtype=self.dtype,
            device=self.healthy.device.type,
            backend=self.healthy.backend,
            protocol=self.protocol.version,
            faults=tuple(results[self.num_healthy_runs : controls]),
            controls=tuple(results[controls:]),
            healthy=margins,
            healthy_failures=tuple(
                f"{row.result.name}: {row.result.reason}" for row in runs if row.result.killed_by
            ),
            num_healthy_runs=self.num_healthy_runs,
            gates=gates,
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
    judges: Judges | None = None,
    on_row: OnRow | None = None,
) -> SelftestReport:
    """Run the healthy model, every fault and every control.

    Args:
        subject, benchmark, oracle, protocol: of `Bench`.
        judges: who judges the changes; this process, one after another, by default.
        on_row: called with (rows made, all rows, the one made last).

    Raises:
        ProtocolError: the protocol is tighter than the noise of this machine.
        DeviceError: a change brought the device down, and no other process goes on.
    """
    bench = Bench(
        subject,
        benchmark,
        oracle,
        protocol,
        num_healthy_runs=num_healthy_runs,
        faults=faults,
        controls=controls,
    )
    gates = bench.open()
    rows: dict[int, Row] = {}
    for number, found in (judges or _one_by_one)(bench):
        rows[number] = bench.lost(number, found) if isinstance(found, Lost) else found
        if on_row:
            on_row(len(rows), len(bench.jobs), rows[number].result)
    return bench.report([rows[number] for number in range(len(bench.jobs))], gates)


def _one_by_one(bench: Bench) -> Iterator[tuple[int, Row | Lost]]:
    for number, fault in enumerate(bench.jobs):
        found = bench.judge(number)
        if isinstance(found, Lost):
            raise DeviceError(
                f"The device failed at {fault.name!r}: {found.reason}. "
                "It tells of some failures late; with CUDA_LAUNCH_BLOCKING=1 the name is right."
            )
        yield number, found


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


def _shuffler(seed: int) -> Callable[[PackedBatch], PackedBatch]:
    rng = random.Random(seed)

    def shuffle(batch: PackedBatch) -> PackedBatch:
        order = list(range(len(batch.sequence_ids)))
        rng.shuffle(order)
        return reorder(batch, order)

    return shuffle
