"""Evidence for a protocol's limits: the worst values of many healthy runs.

A healthy run is the package's own model with its packs shuffled, under one of several token
budgets. Every third also takes one harmless rewriting of the self-test (positions not reset,
another attention, …), since a limit must not mistake another correct implementation for a fault.
In float32 every other run takes fair-esm itself as the unpacked side.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from virnucpro_monitor.records import (
    LIMIT_GATES,
    BenchmarkSet,
    Json,
    Protocol,
    SequenceResult,
    Verdict,
    error_of,
    read_probes,
    to_json,
)
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.faulty_subject import Fault, FaultySubject
from virnucpro_monitor.validation.harmless import CONTROLS
from virnucpro_monitor.validation.kill_matrix import headroom, narrowest
from virnucpro_monitor.validation.measure import measure
from virnucpro_monitor.validation.noise import names_of_limits, worst_of
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.own_noise import (
    FOLLOWING,
    own_noise,
)
from virnucpro_monitor.validation.probes import run_probes
from virnucpro_monitor.validation.protocol import limit_names, limits_key
from virnucpro_monitor.validation.selftest import RememberingSubject, healthy_variants
from virnucpro_monitor.validation.subject import Layers, PackedBatch, dtype_name
from virnucpro_monitor.validation.verdict import judge

SAFETY_FACTOR = 3.0
MIN_RUNS = 200
MIN_OWN_RUNS = 50
"""Of one model, for limits of its own; until `MIN_RUNS` a protocol says they are provisional."""


class ReferenceSubject(RememberingSubject):
    """The healthy packed side beside fair-esm itself as the unpacked side.

    Args:
        reference: fair-esm's ESM2 on the subject's device, in its dtype.
    """

    def __init__(self, subject: BuiltinSubject, reference: Any) -> None:
        super().__init__(subject)
        self._reference = reference

    @torch.inference_mode()
    def _alone(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        output = self._reference(tokens[None].to(self.device), repr_layers=list(layers))
        return {layer: rows[0] for layer, rows in output["representations"].items()}


def collect_evidence(
    subject: BuiltinSubject,
    benchmark: BenchmarkSet,
    oracle: Oracle,
    protocol: Protocol,
    *,
    num_runs: int,
    seed: int = 0,
    reference: Any = None,
    exact_probes: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Json]:
    """Run healthy variants and keep the worst value of each limited measure.

    Args:
        protocol: gives the probes; its limits decide only "failed" and "margins".
        seed: of the shuffles. Another one than froze a protocol makes a check of it.
        reference: fair-esm's model for every other run's unpacked side; None for our own only.
        exact_probes: whether leak and repeat run too. They have no limit to freeze, and take half
            the time.

    Returns:
        {"model", "weights", "dtype", "device", "backend", "torch", "gpu", "benchmark",
        "num_sequences", "num_runs", "seed", "worst": {limit: value}, "multiples": {limit: largest
        multiple of a run's own noise}, "margins": {gate: limit / worst value, None where that is
        0}, "failed": [reason]}
    """
    remembers = isinstance(subject, RememberingSubject)
    sides = [subject if remembers else RememberingSubject(subject)]
    if reference is not None:
        sides.append(ReferenceSubject(subject, reference))
    worst = dict.fromkeys(limit_names(protocol.version), 0.0)
    multiples = dict.fromkeys(FOLLOWING, 0.0)
    margins: dict[str, float | None] = {}
    key = limits_key(dtype_name(subject.dtype), subject.device.type, subject.model_name)
    failed: list[str] = []
    for number, fault in enumerate(healthy_runs(num_runs, seed)):
        side = FaultySubject(sides[number % len(sides)], fault)
        measured = measure(side, benchmark, oracle)
        probes = run_probes(side, protocol, oracle, exact=exact_probes)
        documents = {"packs": to_json(measured.packs), "probes": to_json(probes)}
        verdict = judge(measured.sequences, documents, protocol, limits_name=key)
        for name, value in limited_values(verdict).items():
            worst[name] = max(worst[name], value)
        for name, value in multiples_of_noise(verdict, key).items():
            multiples[name] = max(multiples[name], value)
        margins = narrowest([margins, headroom([verdict])])
        failed += [verdict.reason] if verdict.outcome == "failed" else []
        if on_progress:
            on_progress(number + 1, num_runs)
    on_gpu = subject.device.type == "cuda"
    return {
        "model": subject.model_name,
        "weights": oracle.weights_digest[:12],
        "dtype": dtype_name(subject.dtype),
        "device": subject.device.type,
        "gpu": torch.cuda.get_device_name(subject.device) if on_gpu else None,
        "backend": subject.backend,
        "torch": torch.__version__,
        "benchmark": f"{benchmark.label} ({benchmark.digest[:12]})",
        "num_sequences": len(benchmark.sequences),
        "num_runs": num_runs,
        "seed": seed,
        "worst": worst,
        "multiples": multiples,
        "margins": margins,
        "failed": failed,
    }


def limited_values(verdict: Verdict) -> dict[str, float]:
    """What each limit of the protocol bounds, as seen in one healthy run.

    Raises:
        ValueError: a measure is missing, so that the run was not healthy.
    """
    sequences, probes = verdict.sequences, read_probes(verdict.documents)

    def largest(measure: Callable[[SequenceResult], float | None]) -> float:
        values = [measure(s) for s in sequences]
        if None in values:
            raise ValueError("a healthy run lacks a measure, so it is no evidence")
        return max(0.0, *(value for value in values if value is not None))

    return {
        "gain": largest(lambda s: None if s.gain is None else abs(s.gain - 1.0)),
        "residue": largest(
            lambda s: (
                None if s.worst_residue_similarity is None else error_of(s.worst_residue_similarity)
            )
        ),
        "floor": largest(_difference_of_errors),
        "ceiling": largest(lambda s: s.packed_relative_l2),
        "baseline": largest(lambda s: s.unpacked_relative_l2),
        **{
            name: value
            for name, probe in probes.items()
            if (value := probe.value) is not None and name in LIMIT_GATES
        },
    }


def multiples_of_noise(verdict: Verdict, limits_name: str) -> dict[str, float]:
    """How many times its own noise each measure of one healthy run is; empty where that is 0."""
    noise = own_noise(verdict.sequences, read_probes(verdict.documents), limits_name, least=0.0)
    values = limited_values(verdict)
    return {name: values[name] / one for name, one in noise.items() if one and name in values}


def freeze_limits(
    evidence: Iterable[Mapping[str, Json]], *, min_runs: int = MIN_RUNS
) -> dict[str, dict[str, float]]:
    """Limits by `limits_key`: 3 x the worst value of all healthy runs, rounded up to two digits.

    What holds for every model comes from the runs of all; a model with `MIN_OWN_RUNS` has its own.

    Raises:
        ValueError: a dtype has fewer than `min_runs` healthy runs.
    """
    by_key: dict[str, list[Mapping[str, Json]]] = {}
    of_models: set[str] = set()
    for record in evidence:
        everyone, own = names_of_limits(record)
        of_models.add(own)
        for key in (everyone, own):
            by_key.setdefault(key, []).append(record)
    limits = {}
    for key, records in sorted(by_key.items()):
        runs = sum(record["num_runs"] for record in records)
        if key in of_models:
            if runs < MIN_OWN_RUNS:
                continue
        elif runs < min_runs:
            raise ValueError(f"{key} has {runs} healthy runs; a limit needs {min_runs}")
        limits[key] = {
            name: round_up(SAFETY_FACTOR * value) for name, value in worst_of(records).items()
        }
    return limits


def limits_beyond_evidence(content: Mapping[str, Json]) -> list[str]:
    """Limits that a protocol's own healthy runs do not ask for, as "float32 gain"."""
    runs = content.get("evidence", {}).get("runs", ())
    found = []
    for key, limits in content["limits"].items():
        of_key = [record for record in runs if key in names_of_limits(record)]
        worst = worst_of(of_key) if of_key else {}
        allowed = {name: round_up(SAFETY_FACTOR * value) for name, value in worst.items()}
        found += [f"{key} {name}" for name in limits if limits[name] > allowed.get(name, 0.0)]
    return found


def round_up(value: float, digits: int = 2) -> float:
    """Round up to `digits` significant digits."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return float(f"{math.ceil(value / step * (1 - 1e-12)) * step:.{digits}g}")


def _difference_of_errors(s: SequenceResult) -> float | None:
    """How far the packed error lies above the unpacked one: what the floor must allow."""
    if s.packed_relative_l2 is None or s.unpacked_relative_l2 is None:
        return None
    return s.packed_relative_l2 - s.unpacked_relative_l2


def healthy_runs(count: int, seed: int) -> Iterator[Fault]:
    """Healthy variants, every third one with a harmless rewriting too, all of them in turn.

    The next `seed` goes on with the rewritings where this one ends: parts of 20 runs that all began
    with the first would never see the last ones.
    """
    rewritings: Sequence[Fault] = CONTROLS
    first = seed * (count // 3)
    for number, variant in enumerate(healthy_variants(count, seed)):
        if number % 3 == 2:
            yield _also(rewritings[(first + number // 3) % len(rewritings)], variant)
        else:
            yield variant


def _also(rewriting: Fault, variant: Fault) -> Fault:
    """A harmless rewriting of shuffled packs; its own token budget, where it has one, holds."""

    def on_batch(batch: PackedBatch) -> PackedBatch:
        for change in (variant.on_batch, rewriting.on_batch):
            batch = change(batch) if change else batch
        return batch

    return replace(
        rewriting,
        on_batch=on_batch,
        token_budget=rewriting.token_budget or variant.token_budget,
    )
