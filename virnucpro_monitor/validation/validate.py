"""Validate a subject: measure it, probe it, judge it, and say where it departs."""

import time
from collections.abc import Callable
from dataclasses import replace

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.models.families import ESM2, FamilyFacts
from virnucpro_monitor.records import (
    NO_ORACLE,
    BenchmarkSet,
    Json,
    OracleDocument,
    Outcome,
    ProbeDocument,
    Protocol,
    Verdict,
    to_json,
    write_embeddings,
)
from virnucpro_monitor.validation.family_limits import limits_of_family
from virnucpro_monitor.validation.kept_inputs import KeptInputs
from virnucpro_monitor.validation.measure import measure
from virnucpro_monitor.validation.memory import halving_packs
from virnucpro_monitor.validation.noise import judge_within_noise, noise_of
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.probe_rows import not_judged
from virnucpro_monitor.validation.probes import open_probes, probe_batches, run_probes
from virnucpro_monitor.validation.protocol import limits_for, limits_key
from virnucpro_monitor.validation.residue_trace import trace_residues
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.signatures import INPUT_CHANGED
from virnucpro_monitor.validation.subject import Subject, dtype_name
from virnucpro_monitor.validation.trace import trace

_ESM2 = ESM2.facts
_PASSES_AFTER = 6 / 8  # of the probes after a set, but for shapes, by those before it: protocol 2


def validate_subject(
    subject: Subject,
    benchmark: BenchmarkSet,
    *,
    oracle: Oracle | None,
    protocol: Protocol,
    weights_digest: str = "",
    on_progress: Callable[[int, int], None] | None = None,
    probes: bool = True,
    keep_embeddings: bool = False,
    family: FamilyFacts = _ESM2,
    on_nearing_end: Callable[[], None] = lambda: None,
    loading_s: float = 0.0,
) -> Verdict:
    """Validate one model on one benchmark set; out of memory halves the packs.

    Args:
        oracle: what both sides are held against; without it the oracle gates are not judged.
        weights_digest: of the weights that the subject runs with; checked against the oracle's.
        on_progress: called with (sequences done, all sequences).
        probes: whether to run the probes (leak, position, order, …) too.
        keep_embeddings: whether the verdict holds both sides' pooled embeddings as documents.
        family: of encoders that the subject belongs to.
        on_nearing_end: called once the set is embedded, or earlier: as long as a next model takes
            to load before only the shapes of packs and what explains a failure are left. Called
            again where all is begun anew.
        loading_s: seconds of that.

    Raises:
        ConfigurationError: the oracle belongs to another benchmark set, model or weights.
        TargetError: the subject breaks the interface.
        ProtocolError: the protocol has no limits for the subject's dtype, or one below the noise.
    """
    if oracle is not None:
        _check_oracle(oracle, subject, benchmark, weights_digest)
    return halving_packs(
        subject,
        lambda: _validate(
            subject,
            benchmark,
            oracle,
            protocol,
            on_progress,
            probes,
            keep_embeddings,
            family,
            on_nearing_end,
            loading_s,
        ),
    )


def _validate(
    subject: Subject,
    benchmark: BenchmarkSet,
    oracle: Oracle | None,
    protocol: Protocol,
    on_progress: Callable[[int, int], None] | None,
    probes: bool,
    keep_embeddings: bool,
    family: FamilyFacts,
    on_nearing_end: Callable[[], None],
    loading_s: float,
) -> Verdict:
    limits = limits_key(dtype_name(subject.dtype), subject.device.type, subject.model_name)
    subject = inputs = KeptInputs(subject)
    nearing = _Nearing(on_nearing_end, loading_s)
    opening = open_probes(subject, protocol) if probes else None
    nearing.set_begins()
    found: dict[str, ProbeDocument] = {}

    def probe() -> None:
        nearing.tell()
        if probes:
            found.update(run_probes(subject, protocol, oracle, opening=opening))

    measured = measure(subject, benchmark, oracle, on_progress, nearing.pack_ends, probe)
    named = OracleDocument(
        kind=NO_ORACLE if oracle is None else oracle.kind,
        digest="" if oracle is None else oracle.digest,
    )
    documents: dict[str, Json] = {"packs": to_json(measured.packs), "oracle": to_json(named)}
    if probes:
        if not family.hides_residues:
            reason = f"No token of {family.name} hides a residue."
            found["mask"] = not_judged(reason, found["mask"].unit)
        documents["probes"] = to_json(found)
        documents["noise"] = to_json(noise_of(found))
    if family != _ESM2:
        noise = noise_of(found) if probes else None
        own = limits_of_family(family.name, noise, limits_for(protocol, limits))
        documents["limits"] = to_json(own)
    verdict = judge_within_noise(measured.sequences, documents, protocol, limits_name=limits)
    if verdict.outcome is Outcome.FAILED:
        failing = {gate.name: gate.limit for gate in verdict.gates if gate.fails}
        if opening is not None and set(failing) == {"collator"}:
            documents["trace"] = _told(opening.problems.signature)
        elif set(failing) == {"state"} and inputs.changed:
            documents["trace"] = _told(INPUT_CHANGED)
        else:
            documents["trace"] = trace(
                subject,
                measured.worst,
                measured.batches,
                oracle,
                benchmark=benchmark,
                failing=failing,
                probe_batches=lambda: probe_batches(subject, protocol, opening, failing),
            )
        documents["residues"] = trace_residues(benchmark, measured.worst, oracle)
        verdict = judge_within_noise(measured.sequences, documents, protocol, limits_name=limits)
    if keep_embeddings:
        kept = write_embeddings(measured.pooled)
        verdict = replace(verdict, documents={**verdict.documents, **kept})
    return verdict


class _Nearing:
    """Tells once that a validation nears its end, `loading_s` before its last own passes.

    Those after the set that ask what the shapes of packs do not are taken to last as long as their
    share of the passes before it.
    """

    def __init__(self, tell: Callable[[], None], loading_s: float) -> None:
        self._tell, self._loading_s = tell, loading_s
        self._told = False
        self._begun = time.monotonic()

    def set_begins(self) -> None:
        now = time.monotonic()
        self._probing_s, self._begun = _PASSES_AFTER * (now - self._begun), now

    def pack_ends(self, share_left: float) -> None:
        spent_s = time.monotonic() - self._begun
        left_s = spent_s * share_left / max(1 - share_left, 1e-9)
        if left_s + self._probing_s <= self._loading_s:
            self.tell()

    def tell(self) -> None:
        if not self._told:
            self._told = True
            self._tell()


def _told(named: Signature | None) -> dict[str, Json]:
    """Where the collator, or what a pass does to its input, is wrong alone: no layer is."""
    if named is None:
        return {}
    return {"finding": named.text, "signature": named.name, "sequences": []}


def _check_oracle(
    oracle: Oracle, subject: Subject, benchmark: BenchmarkSet, weights_digest: str
) -> None:
    if oracle.benchmark_digest != benchmark.digest:
        raise ConfigurationError(
            f"The oracle was made from another benchmark set than {benchmark.name}@"
            f"{benchmark.version}: prepare it again."
        )
    if weights_digest and oracle.weights_digest not in ("", weights_digest):
        raise ConfigurationError(
            f"The oracle was made from weights {oracle.weights_digest[:12]}, the model runs with "
            f"{weights_digest[:12]}: prepare it again."
        )
    if oracle.model_name and oracle.model_name != subject.model_name:
        raise ConfigurationError(
            f"The oracle was made from {oracle.model_name}, the model is {subject.model_name}: "
            "prepare it again."
        )
