"""Whether stored verdicts follow from the measures that are stored with them."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from virnucpro_monitor.errors import MonitorError, NotFoundError, StoreError
from virnucpro_monitor.records import (
    VERDICTS,
    Figures,
    Json,
    Protocol,
    Run,
    RunReport,
    SequenceResult,
)
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import Engine, open_engine
from virnucpro_monitor.store.maintenance import MAX_PROBLEMS, DatabaseCheck, check_database
from virnucpro_monitor.validation.protocol import limits_of
from virnucpro_monitor.validation.verdict import judge


def check_everything(url: str) -> DatabaseCheck:
    """As the store's `check_database`, and each verdict judged again from its measures.

    Raises:
        ConfigurationError, StoreError: as `check_database`.
    """
    found = check_database(url)
    engine = open_engine(url, read_only=True)
    try:
        unfounded = tuple(islice(find_unfounded(engine), MAX_PROBLEMS))
    # What cannot be read, or not be found, is named by the store's own checks, too.
    except (StoreError, NotFoundError) as error:
        unfounded = (str(error),)
    finally:
        engine.dispose()
    return replace(found, problems=(*found.problems, *unfounded))


def find_unfounded(engine: Engine) -> Iterator[str]:
    """One sentence for each measured run whose verdict or roll-ups its measures do not give."""
    protocols: dict[str, Protocol] = {}
    for run in reader.load_runs(engine, outcomes=VERDICTS, all_attempts=True):
        digest = run.protocol_digest
        if digest not in protocols:
            protocols[digest] = reader.load_protocol(engine, digest)
        run_id = run.row_id
        sequences = reader.load_sequences(engine, run_id)
        documents = reader.load_documents(engine, run_id)
        for what in contradictions(run, sequences, documents, protocols[digest]):
            yield f"Run {run_id} is not what its measures say: {what}."


def require_founded(report: RunReport) -> None:
    """Refuse a report whose verdict does not follow from its own measures.

    Raises:
        StoreError: saying which part does not.
    """
    run = report.run
    if run.outcome not in VERDICTS:
        return
    for what in contradictions(run, report.sequences, report.documents, report.protocol):
        raise StoreError(
            f"The result of {run.commit.short} on {run.benchmark_label} was not stored, since its "
            f"measures do not say so: {what}."
        )


# Older builds took these over the sequences whose value is known; now none stands for the missing.
_ONCE_OVER_THE_KNOWN = (
    "p01_similarity",
    "median_similarity",
    "max_packed_relative_l2",
    "max_unpacked_relative_l2",
)


def contradictions(
    run: Run,
    sequences: Sequence[SequenceResult],
    documents: Mapping[str, Json],
    protocol: Protocol,
) -> Iterator[str]:
    """What a measured run says and its measures do not. Nothing where its protocol has no limits.

    Gates that the run lacks are no contradiction: they may be newer than the run.
    """
    try:
        if "limits" not in protocol.content:
            return
        name = limits_of(run.configuration)
        verdict = judge(sequences, documents, protocol, limits_name=name)
    except (MonitorError, LookupError, TypeError, ValueError, AttributeError) as error:
        yield f"it cannot be judged again ({type(error).__name__}: {error})"
        return
    for what, stored, now in (
        ("outcome", run.outcome, verdict.outcome),
        ("culprit", run.culprit, verdict.culprit),
    ):
        if stored != now:
            yield f"its {what} is stored as {stored} and would be {now}"
    judged = {gate.name: gate for gate in verdict.gates}
    # Under protocol 1 a number was kept beside values that are missing; now none stands for them.
    kept_numbers = run.protocol_version == "1"
    for gate in run.gates:
        again = judged.get(gate.name)
        if again is not None and (
            gate.passed is not again.passed
            or not (_alike(gate.value, again.value) or (kept_numbers and again.value is None))
            or not _alike(gate.limit, again.limit)
        ):
            yield f"its gate {gate.name!r} would be {_gate_text(again.passed)} by {again.value}"
    if run.figures is None:
        yield "it has no figures"
        return
    for field in dataclasses.fields(Figures):
        old, new = getattr(run.figures, field.name), getattr(verdict.figures, field.name)
        kept = kept_numbers or field.name in _ONCE_OVER_THE_KNOWN
        if not _alike(old, new) and not (kept and new is None):
            yield f"its {field.name} is stored as {old} and would be {new}"


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=0.0)
    return bool(one == other)


def _gate_text(passed: bool | None) -> str:
    return {True: "passed", False: "failed", None: "not judged"}[passed]
