"""Between rows and records."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Configuration,
    Culprit,
    Environment,
    Figures,
    GateResult,
    Json,
    ProteinSequence,
    Run,
    SequenceResult,
    Target,
)
from virnucpro_monitor.store.models import (
    BenchmarkSequenceRow,
    BenchmarkSetRow,
    CommitRow,
    ConfigurationRow,
    EnvironmentRow,
    ProtocolRow,
    RunRow,
    SequenceResultRow,
    TargetRow,
)
from virnucpro_monitor.store.results import RESULT_NAMES

FIGURE_NAMES = tuple(field.name for field in dataclasses.fields(Figures))
TARGET_COLUMNS = tuple(getattr(TargetRow, field.name) for field in dataclasses.fields(Target))
COMMIT_NAMES = tuple(field.name for field in dataclasses.fields(Commit))
COMMIT_COLUMNS = tuple(getattr(CommitRow, name) for name in COMMIT_NAMES)
RUN_COLUMNS = (
    RunRow.id,
    RunRow.target_id,
    RunRow.commit_id,
    RunRow.benchmark_set_id,
    RunRow.configuration_id,
    RunRow.environment_id,
    RunRow.protocol_id,
    RunRow.outcome,
    RunRow.culprit,
    RunRow.reason,
    RunRow.gates,
    RunRow.inherited_from,
    RunRow.inherited_outcome,
    RunRow.inherited_run_id,
    RunRow.packed_outcome,
    RunRow.unpacked_outcome,
    RunRow.code_digest,
    RunRow.bridge,
    RunRow.digest,
    RunRow.started_at,
    RunRow.duration_s,
    *(getattr(RunRow, name) for name in FIGURE_NAMES),
)
RESULT_COLUMNS = (
    SequenceResultRow.sequence_index,
    BenchmarkSequenceRow.sequence_id,
    *(getattr(SequenceResultRow, name) for name in RESULT_NAMES),
)


def target_from_row(row: Row[Any]) -> Target:
    values = dict(zip((field.name for field in dataclasses.fields(Target)), row, strict=True))
    return Target(**{**values, "paths": tuple(values["paths"])})


def commit_from_row(row: Sequence[Any]) -> Commit:
    """`row` holds `COMMIT_COLUMNS`."""
    hash_, parents, *rest = row
    return Commit(
        hash=hash_,
        parents=tuple(parents),
        **dict(zip(COMMIT_NAMES[2:], rest, strict=True)),
    )


def result_from_row(row: Sequence[Any]) -> SequenceResult:
    """`row` holds `RESULT_COLUMNS`."""
    index, sequence_id, *rest = row
    return SequenceResult(
        index=index, sequence_id=sequence_id, **dict(zip(RESULT_NAMES, rest, strict=True))
    )


def figures_from_values(values: Sequence[Any]) -> Figures | None:
    """`values` in the order of `FIGURE_NAMES`; None where the run has no figures."""
    if values[0] is None:
        return None
    return Figures(**dict(zip(FIGURE_NAMES, values, strict=True)))


def gates_to_json(gates: Iterable[GateResult]) -> Json:
    return [
        [
            gate.name,
            gate.passed if gate.passed is None else bool(gate.passed),
            gate.value if gate.value is None else float(gate.value),
            gate.limit if gate.limit is None else float(gate.limit),
            gate.unit,
            gate.culprit and gate.culprit.value,
            gate.detail,
            *([gate.informs] if gate.informs else []),
        ]
        for gate in gates
    ]


def gates_from_json(content: Json) -> tuple[GateResult, ...]:
    return tuple(
        GateResult(
            name=name,
            passed=passed,
            value=value,
            limit=limit,
            unit=unit,
            culprit=culprit and Culprit(culprit),
            detail=detail,
            informs=informs[0] if informs else "",
        )
        for name, passed, value, limit, unit, culprit, detail, *informs in content
    )


def refuse_not_finite(owner: str, values: Mapping[str, Any]) -> None:
    """Raise `StoreError` if a number among `values` is NaN or infinite."""
    for name, value in values.items():
        if hasattr(value, "__float__") and not math.isfinite(value):
            raise StoreError(
                f"The {name} of {owner} is {value}, which is not stored: give None where a value "
                "is not known."
            )


class RunReader:
    """Makes `Run` records; reads each small table that they refer to once."""

    def __init__(self, connection: Connection) -> None:
        self._targets: dict[int, str] = {
            row.id: row.name for row in connection.execute(select(TargetRow.id, TargetRow.name))
        }
        self._benchmarks: dict[int, tuple[str, int, str]] = {
            row.id: (row.name, row.version, row.digest)
            for row in connection.execute(
                select(
                    BenchmarkSetRow.id,
                    BenchmarkSetRow.name,
                    BenchmarkSetRow.version,
                    BenchmarkSetRow.digest,
                )
            )
        }
        self._protocols: dict[int, tuple[str, str]] = {
            row.id: (row.version, row.digest)
            for row in connection.execute(
                select(ProtocolRow.id, ProtocolRow.version, ProtocolRow.digest)
            )
        }
        self.configurations: dict[int, Configuration] = _read_all(
            connection, ConfigurationRow, Configuration
        )
        self._environments: dict[int, Environment] = _read_all(
            connection, EnvironmentRow, Environment
        )
        self._commits: dict[int, Commit] = {}

    def benchmark(self, benchmark_set_id: int) -> tuple[str, int]:
        name, version, _ = self._benchmarks[benchmark_set_id]
        return name, version

    def target(self, target_id: int) -> str:
        return self._targets[target_id]

    def run_from_row(self, row: Sequence[Any]) -> Run:
        """`row` holds `RUN_COLUMNS`, then `COMMIT_COLUMNS`."""
        (
            id_,
            target_id,
            commit_id,
            benchmark_set_id,
            configuration_id,
            environment_id,
            protocol_id,
            outcome,
            culprit,
            reason,
            gates,
            inherited_from,
            inherited_outcome,
            inherited_run_id,
            packed_outcome,
            unpacked_outcome,
            code_digest,
            bridge,
            digest,
            started_at,
            duration_s,
        ) = row[: len(RUN_COLUMNS) - len(FIGURE_NAMES)]
        figures = row[len(RUN_COLUMNS) - len(FIGURE_NAMES) : len(RUN_COLUMNS)]
        commit = self._commits.get(commit_id)
        if commit is None:
            commit = self._commits[commit_id] = commit_from_row(row[len(RUN_COLUMNS) :])
        benchmark, version, benchmark_digest = self._benchmarks[benchmark_set_id]
        protocol_version, protocol_digest = self._protocols[protocol_id]
        return Run(
            id=id_,
            target=self._targets[target_id],
            commit=commit,
            benchmark=benchmark,
            benchmark_version=version,
            benchmark_digest=benchmark_digest,
            configuration=self.configurations[configuration_id],
            environment=None if environment_id is None else self._environments[environment_id],
            protocol_version=protocol_version,
            protocol_digest=protocol_digest,
            outcome=outcome,
            culprit=culprit,
            reason=reason,
            figures=figures_from_values(figures),
            gates=gates_from_json(gates),
            inherited_from=inherited_from,
            inherited_outcome=inherited_outcome,
            inherited_run_id=inherited_run_id,
            packed_outcome=packed_outcome,
            unpacked_outcome=unpacked_outcome,
            code_digest=code_digest,
            bridge=bridge,
            digest=digest,
            started_at=started_at,
            duration_s=duration_s,
        )


def _read_all(connection: Connection, table: Any, record: Any) -> dict[int, Any]:
    names = [field.name for field in dataclasses.fields(record)]
    columns = [getattr(table, name) for name in names]
    return {
        row[0]: record(**dict(zip(names, row[1:], strict=True)))
        for row in connection.execute(select(table.id, *columns))
    }


def read_benchmark(connection: Connection, row: Row[Any]) -> BenchmarkSet:
    """The whole set of one row of `benchmark_sets`."""
    sequences = connection.execute(
        select(BenchmarkSequenceRow.sequence_id, BenchmarkSequenceRow.residues)
        .where(BenchmarkSequenceRow.benchmark_set_id == row.id)
        .order_by(BenchmarkSequenceRow.sequence_index)
    )
    return BenchmarkSet(
        name=row.name,
        version=row.version,
        digest=row.digest,
        description=row.description,
        sequences=tuple(ProteinSequence(id=id_, residues=text) for id_, text in sequences),
    )
