"""Stores runs within one transaction.

A run is written often and its statements are many, so that they are built once, and what many runs
share (target, benchmark set, protocol, configuration, environment) is looked up once for each
transaction.
"""

import dataclasses
import math
import operator
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Enum,
    Integer,
    and_,
    bindparam,
    insert,
    select,
    update,
)
from sqlalchemy.types import Text

from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import BenchmarkSet, Figures, Outcome, Run, RunReport
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
    find_shared,
    insert_rows,
    lock_target,
    table_of,
)
from virnucpro_monitor.store.types import CleanText, JsonText, clean_text, json_text

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
# Text and JSON have been made for the digest as they are stored.
_INSERT_RUN = Prepared(
    insert(_RUNS)
    .values(
        {
            column.name: bindparam(column.name, type_=Text())
            for column in _RUNS.c
            if isinstance(column.type, (CleanText, JsonText, Enum))
        }
    )
    .returning(_RUNS.c.id),
    [column.name for column in _RUNS.c if column.name != "id"],
)
_INSERT_FAILURE = insert(table_of(FailureRow))


def _finite(value: Any) -> float:
    number = float(value) + 0.0  # SQLite stores -0.0 as 0
    if not math.isfinite(number):
        raise ValueError("it is not finite")
    return number


def _conversion(column: Column[Any]) -> Callable[[Any], Any]:
    """What makes a value storable: NumPy's numbers plain, text that both databases accept."""
    if isinstance(column.type, Enum):
        kind: Any = column.type.enum_class
        return lambda value: kind(value).value
    plain: dict[type, Callable[[Any], Any]] = {
        Boolean: bool,
        Double: _finite,
        Integer: operator.index,
        CleanText: clean_text,
    }
    return next((to for kind, to in plain.items() if isinstance(column.type, kind)), _unchanged)


def _unchanged(value: Any) -> Any:
    return value


_OWN_CONVERSIONS = {
    name: _conversion(_RUNS.c[name])
    for name in (
        "outcome",
        "culprit",
        "reason",
        "inherited_from",
        "inherited_outcome",
        "packed_outcome",
        "unpacked_outcome",
        "code_digest",
        "bridge",
        "started_at",
        "duration_s",
    )
}
_FIGURE_CONVERSIONS = {name: _conversion(_RUNS.c[name]) for name in FIGURE_NAMES}
_NO_FIGURES = dict.fromkeys(FIGURE_NAMES)


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
_ids: deque[tuple[BenchmarkSet, list[str]]] = deque(maxlen=4)


def _ids_of(benchmark: BenchmarkSet) -> list[str]:
    """Ids of a set's sequences; kept for the sets seen last."""
    for seen, ids in tuple(_ids):
        if seen is benchmark:
            return ids
    _ids.append((benchmark, [one.id for one in benchmark.sequences]))
    return _ids[-1][1]


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
        self._shared: dict[tuple[Any, ...], int] = {}

    def save(self, draft: Draft, *, again: bool = False) -> int:
        """Store one run with all that belongs to it, and return its id.

        Args:
            again: the very same run may be stored already: it is looked for first.
        """
        connection, report = self._connection, draft.report
        run = report.run
        if report.target.name not in self._targets:
            self._meet(draft)
        ids: dict[str, Any] = {"target_id": self._targets[report.target.name]}
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
            shared = {"run_id": run_id, **draft.results.shared}
            insert_rows(connection, SequenceResultRow, draft.results.columns, shared)
        if draft.failure is not None:
            connection.execute(_INSERT_FAILURE, {"run_id": run_id, **draft.failure})
        if draft.documents:
            documents = {
                "name": list(draft.documents),
                "content": list(draft.documents.values()),
            }
            insert_rows(connection, DocumentRow, documents, {"run_id": run_id})
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

    def _meet(self, draft: Draft) -> None:
        """Find the target, and what else is there of what runs share: mostly everything is."""
        report = draft.report
        digests = {
            "protocol": report.protocol.digest,
            "configuration": draft.configuration_digest,
            "environment": draft.environment_digest,
        }
        target_id, set_id, *others = find_shared(
            self._connection, report.target.name, report.benchmark, digests
        )
        keys = (_key_of(report.benchmark), *digests.items())
        for key, id_ in zip(keys, (set_id, *others), strict=True):
            if id_ is not None:
                self._shared[key] = id_
        if target_id is None:
            target_id = ensure_target(self._connection, report.target)
        # Runs of one target are chained one after the other.
        lock_target(self._connection, target_id)
        self._targets[report.target.name] = target_id

    def _benchmark(self, benchmark: BenchmarkSet) -> int:
        key = _key_of(benchmark)
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


def _key_of(benchmark: BenchmarkSet) -> tuple[Any, ...]:
    return ("benchmark", benchmark.name, benchmark.version, benchmark.digest)


def _run_values(run: Run) -> dict[str, Any]:
    """The columns of `runs` that hold the run's own values, not ids."""
    for gate in run.gates:
        refuse_not_finite(f"gate {gate.name!r}", {"value": gate.value, "limit": gate.limit})
    figures = _NO_FIGURES if run.figures is None else _plain(run, run.figures, _FIGURE_CONVERSIONS)
    return {
        "gates": json_text(gates_to_json(run.gates)),
        **_plain(run, run, _OWN_CONVERSIONS),
        **figures,
    }


def _plain(
    run: Run, record: Run | Figures, conversions: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any]:
    """Some values of a run as they are stored."""
    values = {}
    name, value = "", None
    try:
        for name, convert in conversions.items():
            value = getattr(record, name)
            values[name] = None if value is None else convert(value)
    except (TypeError, ValueError, AttributeError) as error:
        owner = f"the run of {run.target} at {run.commit.short}"
        refuse_not_finite(owner, {name: value})
        raise StoreError(f"The {name} of {owner} cannot be stored: {error}.") from error
    return values


def _check_results(report: RunReport) -> None:
    """Each result must be of the sequence that its index names: only the index is stored."""
    sequences = report.benchmark.sequences
    number = len(report.sequences)
    if [one.index for one in report.sequences] == list(range(number)) and [
        one.sequence_id for one in report.sequences
    ] == _ids_of(report.benchmark)[:number]:
        return  # each in its place: the usual case, in a fraction of the time
    for result in report.sequences:
        in_set = 0 <= result.index < len(sequences)
        if not in_set or sequences[result.index].id != result.sequence_id:
            raise StoreError(
                f"The result of sequence {result.sequence_id!r} has index {result.index}, which is "
                f"not its place in benchmark {report.benchmark.label}."
            )
