"""Stores runs within one transaction.

A run is written often and its statements are many, so that they are built once, and what many runs
share (target, benchmark set, protocol, configuration, environment) is looked up once for each
transaction.
"""

import dataclasses
import operator
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Double,
    Integer,
    and_,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.types import Text

from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import BenchmarkSet, Outcome, Run, RunReport, Target
from virnucpro_monitor.store.chain import Chains
from virnucpro_monitor.store.digests import digest_run
from virnucpro_monitor.store.inheritance import measured_run_id, settle_waiting
from virnucpro_monitor.store.models import (
    ConfigurationRow,
    DocumentRow,
    EnvironmentRow,
    FailureRow,
    RunRow,
    SequenceResultRow,
)
from virnucpro_monitor.store.results import Results
from virnucpro_monitor.store.rows import FIGURE_NAMES, gates_to_json, refuse_not_finite
from virnucpro_monitor.store.statements import (
    Prepared,
    ensure_benchmark,
    ensure_commit,
    ensure_digested,
    ensure_protocol,
    ensure_target,
    insert_rows,
    lock_target,
    table_of,
)
from virnucpro_monitor.store.types import clean_text, json_text

_RUNS = table_of(RunRow)
_CURRENT = and_(
    _RUNS.c.commit_id == bindparam("of_commit"),
    _RUNS.c.benchmark_set_id == bindparam("of_set"),
    _RUNS.c.configuration_id == bindparam("of_configuration"),
    _RUNS.c.superseded.is_(False),
)
_FIND_CURRENT = Prepared(select(_RUNS.c.outcome).where(_CURRENT))
# The digest holds the time to the microsecond, benchmark set and configuration.
_SAME_RUN = select(_RUNS.c.id).where(
    _RUNS.c.commit_id == bindparam("of_commit"), _RUNS.c.digest == bindparam("of_digest")
)
_SUPERSEDE = update(_RUNS).where(_CURRENT).values(superseded=True)
# JSON comes as text: it has been made for the digest.
_INSERT_RUN = Prepared(
    insert(_RUNS).values(gates=bindparam("gates", type_=Text())).returning(_RUNS.c.id),
    [column.name for column in _RUNS.c if column.name != "id"],
)
_INSERT_FAILURE = insert(table_of(FailureRow))

_PLAIN: dict[type, Callable[[Any], Any]] = {
    Boolean: bool,
    Double: lambda value: float(value) + 0.0,  # SQLite stores -0.0 as 0
    Integer: operator.index,
}
_CONVERSIONS = {
    column.name: next((to for kind, to in _PLAIN.items() if isinstance(column.type, kind)), None)
    for column in _RUNS.c
}


class _Digests:
    """The digests of the records seen last: runs share few, and comparing is quicker."""

    def __init__(self) -> None:
        self._seen: deque[tuple[Any, str]] = deque(maxlen=4)

    def digest_of(self, record: Any) -> str:
        for seen, digest in tuple(self._seen):
            if seen is record or seen == record:
                return digest
        self._seen.append((record, record.digest))
        return str(record.digest)


_CONFIGURATIONS, _ENVIRONMENTS = _Digests(), _Digests()
_get_place = operator.attrgetter("index", "sequence_id")
_places: deque[tuple[BenchmarkSet, list[tuple[int, str]]]] = deque(maxlen=4)


def _places_of(benchmark: BenchmarkSet) -> list[tuple[int, str]]:
    """(index, id) of a set's sequences; kept for the sets seen last."""
    for seen, places in tuple(_places):
        if seen is benchmark:
            return places
    _places.append((benchmark, [(n, one.id) for n, one in enumerate(benchmark.sequences)]))
    return _places[-1][1]


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A report checked and converted, before any transaction begins.

    Attributes:
        values: the run's own columns of `runs`, as they are stored; `gates` as JSON text.
        documents: JSON text by name.
    """

    report: RunReport
    values: dict[str, Any]
    results: Results
    documents: dict[str, str]
    failure: dict[str, str] | None
    configuration_digest: str
    environment_digest: str | None

    @classmethod
    def of(cls, report: RunReport) -> "Draft":
        """Raises `StoreError` where the report cannot be stored as it is."""
        _check_results(report)
        failure = report.failure
        results = Results.of_records(report.sequences)
        return cls(
            report=report,
            values={**_run_values(report.run), "num_results": len(results)},
            results=results,
            documents={
                clean_text(name): json_text(content) for name, content in report.documents.items()
            },
            failure=None
            if failure is None
            else {
                field.name: clean_text(getattr(failure, field.name))
                for field in dataclasses.fields(failure)
            },
            configuration_digest=_CONFIGURATIONS.digest_of(report.run.configuration),
            environment_digest=None
            if report.run.environment is None
            else _ENVIRONMENTS.digest_of(report.run.environment),
        )

    @property
    def digest(self) -> str:
        """The digest that the stored run will have."""
        report, run = self.report, self.report.run
        behind = {
            "target": clean_text(report.target.name),
            "commit": clean_text(run.commit.hash),
            "benchmark_digest": report.benchmark.digest,
            "configuration_digest": self.configuration_digest,
            "environment_digest": self.environment_digest,
            "protocol_digest": report.protocol.digest,
        }
        return digest_run({**behind, **self.values}, self.results, self.documents, self.failure)


class Saving:
    """Stores drafts in one open transaction; `finish` ends it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chains = Chains(connection)
        self._targets: dict[str, int] = {}
        self._shared: dict[tuple[str, ...], int] = {}

    def save(self, draft: Draft, *, again: bool = False) -> int:
        """Store one run with all that belongs to it, and return its id.

        Args:
            again: the very same run may be stored already: it is looked for first.
        """
        connection, report = self._connection, draft.report
        run = report.run
        ids: dict[str, Any] = {"target_id": self._target(report.target)}
        ids["commit_id"] = ensure_commit(connection, ids["target_id"], run.commit)
        ids["benchmark_set_id"] = self._benchmark(report.benchmark)
        ids["protocol_id"] = self._digested("protocol", report.protocol.digest, report)
        ids["configuration_id"] = self._digested(
            "configuration", draft.configuration_digest, report
        )
        ids["environment_id"] = draft.environment_digest and self._digested(
            "environment", draft.environment_digest, report
        )
        ids["inherited_run_id"] = measured_run_id(connection, run, ids)
        digest = draft.digest
        if again:
            given = {"of_commit": ids["commit_id"], "of_digest": digest}
            found = connection.execute(_SAME_RUN, given).scalar()
            if found is not None:
                return int(found)
        values = {
            **draft.values,
            **ids,
            "superseded": self._supersede(run, ids),
            "digest": digest,
        }
        run_id = int(_INSERT_RUN.first(connection, values)[0])
        self._chains.add(ids, run_id, digest)
        settle_waiting(connection, run, run_id, ids)
        if len(draft.results):
            rest, shared = draft.results, {"run_id": run_id, **draft.results.shared}
            insert_rows(connection, SequenceResultRow, rest.names, rest.rows(), shared)
        if draft.failure is not None:
            connection.execute(_INSERT_FAILURE, {"run_id": run_id, **draft.failure})
        if draft.documents:
            rows = ((run_id, name, content) for name, content in draft.documents.items())
            insert_rows(connection, DocumentRow, ("run_id", "name", "content"), rows)
        return run_id

    def finish(self) -> None:
        """Store what is written once for all runs."""
        self._chains.write()

    def _supersede(self, run: Run, ids: dict[str, Any]) -> bool:
        """Make way for a new current run; whether the new one itself says too little for that."""
        current = {
            "of_commit": ids["commit_id"],
            "of_set": ids["benchmark_set_id"],
            "of_configuration": ids["configuration_id"],
        }
        before = _FIND_CURRENT.first(self._connection, current)
        if before is None:
            return False
        if run.outcome is Outcome.NOT_RUN and before[0] != Outcome.NOT_RUN:
            return True
        self._connection.execute(_SUPERSEDE, current)
        return False

    def _target(self, target: Target) -> int:
        if target.name not in self._targets:
            target_id = ensure_target(self._connection, target)
            # Runs of one target are chained one after the other.
            lock_target(self._connection, target_id)
            self._targets[target.name] = target_id
        return self._targets[target.name]

    def _benchmark(self, benchmark: BenchmarkSet) -> int:
        key = ("benchmark", benchmark.name, str(benchmark.version), benchmark.digest)
        if key not in self._shared:
            self._shared[key] = ensure_benchmark(self._connection, benchmark)
        return self._shared[key]

    def _digested(self, kind: str, digest: str, report: RunReport) -> int:
        key = (kind, digest)
        if key not in self._shared:
            self._shared[key] = self._ensure(kind, digest, report)
        return self._shared[key]

    def _ensure(self, kind: str, digest: str, report: RunReport) -> int:
        if kind == "protocol":
            return ensure_protocol(self._connection, report.protocol)
        record: Any = getattr(report.run, kind)
        row = {"configuration": ConfigurationRow, "environment": EnvironmentRow}[kind]
        return ensure_digested(self._connection, row, digest, lambda: dataclasses.asdict(record))


def _run_values(run: Run) -> dict[str, Any]:
    """The columns of `runs` that hold the run's own values, not ids."""
    figures: dict[str, Any] = (
        dict.fromkeys(FIGURE_NAMES)
        if run.figures is None
        else {name: getattr(run.figures, name) for name in FIGURE_NAMES}
    )
    owner = f"the run of {run.target} at {run.commit.short}"
    refuse_not_finite(owner, {**figures, "duration_s": run.duration_s})
    for gate in run.gates:
        refuse_not_finite(f"gate {gate.name!r}", {"value": gate.value, "limit": gate.limit})
    values = {
        "outcome": run.outcome,
        "culprit": run.culprit,
        "reason": run.reason,
        "inherited_from": run.inherited_from,
        "inherited_outcome": run.inherited_outcome,
        "packed_outcome": run.packed_outcome,
        "unpacked_outcome": run.unpacked_outcome,
        "code_digest": run.code_digest,
        "bridge": run.bridge,
        "started_at": run.started_at,
        "duration_s": run.duration_s,
        **figures,
    }
    return {
        "gates": json_text(gates_to_json(run.gates)),
        **{name: _plain(owner, name, value) for name, value in values.items()},
    }


def _plain(owner: str, name: str, value: Any) -> Any:
    """A value as it is stored: NumPy's numbers as plain ones, text that both databases accept."""
    if value is None:
        return None
    if type(value) is str:
        return clean_text(value)
    convert = _CONVERSIONS[name]
    try:
        return value if convert is None else convert(value)
    except (TypeError, ValueError) as error:
        raise StoreError(f"The {name} of {owner} cannot be stored: {error}.") from error


def _check_results(report: RunReport) -> None:
    """Each result must be of the sequence that its index names: only the index is stored."""
    sequences = report.benchmark.sequences
    found = list(map(_get_place, report.sequences))
    if found == _places_of(report.benchmark)[: len(found)]:
        return  # each in its place: the usual case, in a fraction of the time
    for result in report.sequences:
        in_set = 0 <= result.index < len(sequences)
        if not in_set or sequences[result.index].id != result.sequence_id:
            raise StoreError(
                f"The result of sequence {result.sequence_id!r} has index {result.index}, which is "
                f"not its place in benchmark {report.benchmark.label}."
            )
