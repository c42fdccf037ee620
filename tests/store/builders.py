"""The builders of records for all tests; histories and samples elsewhere string them together."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, delete

from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Configuration,
    Culprit,
    Environment,
    Figures,
    GateResult,
    Outcome,
    ProteinSequence,
    Protocol,
    Run,
    RunReport,
    SequenceResult,
    Target,
    content_digest,
)
from virnucpro_monitor.store.chain import mark_removed
from virnucpro_monitor.store.connection import writing
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.models import RunRow
from virnucpro_monitor.store.writer import Writer

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TARGET = Target(
    name="sample",
    location="https://example.org/sample.git",
    package="sample",
    paths=("sample/models", "sample/data"),
    branch="main",
)
BENCHMARK = BenchmarkSet(
    name="seed",
    version=1,
    digest="b" * 64,
    description="three sequences",
    sequences=(
        ProteinSequence(id="short_1", residues="MKTAYIAK"),
        ProteinSequence(id="short_2", residues="VLSPADKTNV"),
        ProteinSequence(id="short_3", residues="MVHLT"),
    ),
)
CONFIGURATION = Configuration(
    model="esm2_t6_8M_UR50D",
    weights="synthetic",
    weights_digest="a" * 64,
    dtype="float32",
    device="cpu",
    backend="sdpa",
    token_budget=4096,
)
ENVIRONMENT = Environment(host="runner-1", platform="Linux", python="3.11.9", torch="2.13.0")
CONTENT = {"thresholds": {"strict": 0.999, "lenient": 0.995, "lenient_fraction": 0.01}}
PROTOCOL = Protocol(version="1", digest=content_digest(CONTENT), content=CONTENT)


def make_configuration(**changes: Any) -> Configuration:
    """`CONFIGURATION` with other fields."""
    return dataclasses.replace(CONFIGURATION, **changes)


def make_environment(**changes: Any) -> Environment:
    """`ENVIRONMENT` with other fields."""
    return dataclasses.replace(ENVIRONMENT, **changes)


def make_commit(number: int, **changes: Any) -> Commit:
    """The `number`-th commit of a history of one a day; its hash begins with the number in hex."""
    values: dict[str, Any] = {
        "hash": f"{number:04x}".ljust(40, "0"),
        "parents": (f"{number - 1:04x}".ljust(40, "0"),) if number else (),
        "subject": f"Change number {number}",
        "author": "A Tester",
        "authored_at": START + timedelta(days=number),
        "committed_at": START + timedelta(days=number, hours=1),
        "position": number,
    }
    return Commit(**{**values, **changes})


def make_gate(
    name: str, passed: bool | None = True, value: float | None = 0.0, **changes: Any
) -> GateResult:
    """A gate in relative L2 with a limit of 1e-3, whatever `passed` says of its value."""
    values: dict[str, Any] = {"limit": 1e-3, "unit": "relative L2"}
    return GateResult(name=name, passed=passed, value=value, **{**values, **changes})


def make_results(
    similarities: Sequence[float | None], benchmark: BenchmarkSet = BENCHMARK
) -> tuple[SequenceResult, ...]:
    return tuple(
        SequenceResult(
            index=index,
            sequence_id=benchmark.sequences[index].id,
            length=len(benchmark.sequences[index].residues),
            similarity=similarity,
            packed_similarity=similarity,
            relative_l2=1e-7,
            gain=1.0,
            worst_residue=2,
            pack=0,
            slot=index,
            offset=12 * index,
        )
        for index, similarity in enumerate(similarities)
    )


def make_figures(similarities: Sequence[float | None]) -> Figures:
    known = sorted(value for value in similarities if value is not None)
    num_strict = sum(value > 0.999 for value in known)
    return Figures(
        num_sequences=len(similarities),
        num_tokens=29,
        num_strict=num_strict,
        num_failed=len(similarities) - sum(value >= 0.995 for value in known),
        strict_pass_rate=num_strict / len(similarities),
        min_similarity=min(known, default=None),
        p01_similarity=min(known, default=None),
        median_similarity=known[len(known) // 2] if known else None,
        max_similarity=max(known, default=None),
        worst_sequence="short_1",
        seed_passed=num_strict == len(similarities),
        packed_s=0.25,
    )


def make_run(number: int = 0, **changes: Any) -> Run:
    """A passed run of the `number`-th commit without figures and gates."""
    values: dict[str, Any] = {
        "target": TARGET.name,
        "commit": changes.get("commit") or make_commit(number),
        "benchmark": BENCHMARK.name,
        "benchmark_version": BENCHMARK.version,
        "benchmark_digest": BENCHMARK.digest,
        "configuration": CONFIGURATION,
        "environment": ENVIRONMENT,
        "protocol_version": PROTOCOL.version,
        "protocol_digest": PROTOCOL.digest,
        "outcome": Outcome.PASSED,
        "started_at": START + timedelta(days=number, hours=2),
        "duration_s": 1.5,
    }
    return Run(**{**values, **changes})


def make_report(
    number: int = 0,
    similarities: Sequence[float | None] = (0.99999, 1.0, 0.9999999999999),
    *,
    target: Target = TARGET,
    benchmark: BenchmarkSet = BENCHMARK,
    protocol: Protocol = PROTOCOL,
    commit: Commit | None = None,
    failure: Any = None,
    documents: dict[str, Any] | None = None,
    **changes: Any,
) -> RunReport:
    """A run of the `number`-th commit; `changes` replace fields of its `Run`."""
    passed = all(value is not None and value > 0.999 for value in similarities)
    measured = bool(similarities)
    run = make_run(
        number,
        target=target.name,
        commit=commit or make_commit(number),
        benchmark=benchmark.name,
        benchmark_version=benchmark.version,
        benchmark_digest=benchmark.digest,
        protocol_version=protocol.version,
        protocol_digest=protocol.digest,
        outcome=Outcome.PASSED if passed else Outcome.FAILED,
        culprit=Culprit.NONE if passed else Culprit.PACKED,
        reason="All agree." if passed else "short_1 differs.",
        figures=make_figures(similarities) if measured else None,
        gates=(
            make_gate(
                "seed",
                passed,
                1e-5,
                unit="1 - cos",
                culprit=None if passed else Culprit.PACKED,
                detail="The seed's rule.",
            ),
            make_gate("leak", None, None, limit=0.0, unit="abs"),
        ),
        code_digest=f"code-{number}",
    )
    return RunReport(
        run=dataclasses.replace(run, **changes),
        target=target,
        benchmark=benchmark,
        protocol=protocol,
        sequences=make_results(similarities, benchmark),
        failure=failure,
        documents=documents or {},
    )


def remove_run(engine: Engine, run_id: int) -> None:
    """Delete a run as pruning does."""
    with writing(engine) as connection:
        connection.execute(delete(RunRow).where(RunRow.id == run_id))
        mark_removed(connection, [run_id])


def store_flips(url: str) -> int:
    """Make a database of code that passed, failed and passed again, and then of steady code.

    Returns:
        The steady run's id; the attempts before it have 1 to 3.
    """
    create_database(url)
    engine = open_engine(url)
    good, bad = (1.0, 1.0, 1.0), (0.9, 0.9, 0.9)
    for similarities in (good, bad, good):
        Writer(engine).save_run(make_report(0, similarities, code_digest="same"))
    steady = Writer(engine).save_run(make_report(1, good, code_digest="other"))
    engine.dispose()
    return steady
