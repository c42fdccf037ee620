"""The exported tables: their columns, with a version, and batches of rows as Arrow tables.

`TABLES_VERSION` grows when a column is renamed, removed or means something else; new columns come
at the end without that. Unknown is null (empty in CSV); NaN (`NaN` as text in JSON lines) stands
where a value was computed and is not finite.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virnucpro_monitor.records import Run, SequenceStatus
from virnucpro_monitor.records.batches import SequenceBatch

TABLES_VERSION = 1


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an exported table.

    Attributes:
        kind: "int", "float" (64 bits), "bool", "text" or "time" (UTC, microseconds).
        about: what it holds, with its unit.
    """

    name: str
    kind: str
    about: str


_RUN = (
    Column("run_id", "int", "number of the run in the database"),
    Column("target", "text", "name of the watched repository"),
    Column("commit", "text", "full hash"),
    Column("position", "int", "0-based place in the first-parent history; null where unknown"),
    Column("benchmark", "text", "name of the benchmark set"),
    Column("benchmark_version", "int", "its version"),
    Column("configuration", "text", "digest of model, weights, dtype, device, backend and budget"),
)
RUNS: tuple[Column, ...] = (
    *_RUN,
    Column("subject", "text", "first line of the commit's message"),
    Column("author", "text", "author of the commit"),
    Column("committed_at", "time", "commit date"),
    Column("model", "text", "name of the model"),
    Column("weights", "text", "synthetic, official or the checkpoint's file name"),
    Column("weights_digest", "text", "SHA-256 of the weights"),
    Column("dtype", "text", "float32, float16 or bfloat16"),
    Column("device", "text", "cpu or cuda"),
    Column("backend", "text", "attention backend that really ran"),
    Column("token_budget", "int", "tokens in a pack, at most"),
    Column("environment", "text", "digest of host, card, driver and packages"),
    Column("host", "text", "where it ran"),
    Column("gpu", "text", "name of the card; null on a CPU"),
    Column("torch", "text", "version of torch"),
    Column("protocol", "text", "digest of the protocol"),
    Column("outcome", "text", "passed, failed, error, skipped or not_run"),
    Column("inherited_outcome", "text", "outcome that a skipped run inherits"),
    Column("inherited_from", "text", "full hash of the commit that it inherits from"),
    Column("culprit", "text", "side that is wrong: none, packed, unpacked or both"),
    Column("reason", "text", "one sentence"),
    Column("num_sequences", "int", "sequences asked for"),
    Column("num_tokens", "int", "tokens of the packed pass"),
    Column("num_strict", "int", "sequences above the strict threshold"),
    Column("num_failed", "int", "below the lenient threshold, not finite, lost or doubled"),
    Column("min_similarity", "float", "lowest cosine, packed against unpacked"),
    Column("p01_similarity", "float", "1st percentile of the cosines"),
    Column("median_similarity", "float", "median of the cosines"),
    Column("max_packed_relative_l2", "float", "worst distance of packed to FP32, relative L2"),
    Column("max_unpacked_relative_l2", "float", "worst distance of unpacked to FP32, relative L2"),
    Column("packed_s", "float", "seconds of the packed pass"),
    Column("unpacked_s", "float", "seconds of the unpacked pass"),
    Column("started_at", "time", "start of the run"),
    Column("duration_s", "float", "seconds of the whole run"),
)
SEQUENCES: tuple[Column, ...] = (
    *_RUN,
    Column("sequence_id", "text", "id in the benchmark set"),
    Column("sequence_index", "int", "0-based place in the benchmark set"),
    Column("length", "int", "residues compared, after truncation"),
    Column("truncated", "bool", "whether the sequence is longer than the limit"),
    Column("status", "text", "ok, not_finite, lost or doubled"),
    Column("similarity", "float", "pooled cosine, packed against unpacked; NaN if not finite"),
    Column("packed_similarity", "float", "pooled cosine of packed against FP32"),
    Column("unpacked_similarity", "float", "pooled cosine of unpacked against FP32"),
    Column("relative_l2", "float", "pooled relative L2, packed against unpacked"),
    Column("packed_relative_l2", "float", "pooled relative L2 of packed against FP32"),
    Column("unpacked_relative_l2", "float", "pooled relative L2 of unpacked against FP32"),
    Column("gain", "float", "norm of packed over norm of unpacked"),
    Column("worst_residue_similarity", "float", "lowest cosine of a residue"),
    Column("p01_residue_similarity", "float", "1st percentile of the residues' cosines"),
    Column("worst_residue", "int", "0-based residue with the lowest cosine"),
    Column("max_abs_difference", "float", "over residues and channels, packed against unpacked"),
    Column("pack", "int", "pack that it was in"),
    Column("slot", "int", "its place in the pack"),
    Column("offset", "int", "its first token's index in the pack"),
)
TABLES: Mapping[str, tuple[Column, ...]] = {"runs": RUNS, "sequences": SEQUENCES}


def arrow_schema(table: str) -> Any:
    """The `pyarrow.Schema` of a table; its metadata names table and version."""
    import pyarrow as pa

    kinds = {
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "text": pa.dictionary(pa.int32(), pa.string()),
        "time": pa.timestamp("us", tz="UTC"),
    }
    fields = [
        pa.field(column.name, kinds[column.kind], metadata={"about": column.about})
        for column in TABLES[table]
    ]
    return pa.schema(fields, metadata={"virnucpro_monitor": f"{table}/{TABLES_VERSION}"})


def run_batches(batches: Iterable[Sequence[Run]]) -> Iterator[Any]:
    """Arrow record batches of the table "runs"."""
    schema = arrow_schema("runs")
    for runs in batches:
        yield _batch(schema, {c.name: [_RUN_VALUES[c.name](run) for run in runs] for c in RUNS})


def sequence_batches(batches: Iterable[SequenceBatch]) -> Iterator[Any]:
    """Arrow record batches of the table "sequences"."""
    import numpy as np
    import pyarrow as pa

    schema = arrow_schema("sequences")
    own = {column.name for column in _RUN}
    for batch in batches:
        # Few runs, many rows: what is true of a run is written once, and pointed at.
        run_ids = batch.columns["run_id"].to_numpy()  # in order
        is_first = np.diff(run_ids, prepend=run_ids[:1] - 1) != 0
        runs, run_of = run_ids[is_first], np.cumsum(is_first) - 1
        members = [batch.runs[int(run_id)] for run_id in runs]
        places = pa.array(run_of, pa.int32())
        columns: dict[str, Any] = {}
        for field in schema:
            if field.name in own:
                values = [_RUN_VALUES[field.name](run) for run in members]
                columns[field.name] = _spread(values, places, field.type)
            elif field.name in batch.columns:
                columns[field.name] = batch.columns[field.name].cast(_plain_type(field.type))
        columns["similarity"] = _with_nan(columns["similarity"], columns["status"])
        columns["sequence_id"] = _sequence_ids(batch, runs, run_of)
        yield pa.RecordBatch.from_arrays(
            [_encoded(columns[field.name], field.type) for field in schema], schema=schema
        )


def _spread(values: Sequence[object], places: Any, kind: Any) -> Any:
    """values[places] as an Arrow array of `kind`."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        texts = pa.array(values, pa.string()).dictionary_encode()
        return pa.DictionaryArray.from_arrays(texts.indices.take(places), texts.dictionary)
    return pa.array(values, kind).take(places)


def _sequence_ids(batch: SequenceBatch, runs: Any, run_of: Any) -> Any:
    """Each row's id, as a place in the ids of its benchmark set."""
    import numpy as np
    import pyarrow as pa

    starts: dict[int, int] = {}  # by the identity of a set's ids, which its runs share
    texts: list[str] = []
    first = []
    for run_id in runs:
        ids = batch.sequence_ids[int(run_id)]
        if id(ids) not in starts:
            starts[id(ids)] = len(texts)
            texts += ids
        first.append(starts[id(ids)])
    places = np.asarray(first)[run_of] + batch.columns["sequence_index"].to_numpy()
    kind = arrow_schema("sequences").field("sequence_id").type
    return _spread([_text(text) for text in texts], pa.array(places, pa.int32()), kind)


def _plain_type(kind: Any) -> Any:
    import pyarrow as pa

    return pa.string() if pa.types.is_dictionary(kind) else kind


def _encoded(column: Any, kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        return column.dictionary_encode()
    return column


def _with_nan(similarity: Any, status: Any) -> Any:
    """NaN where a similarity was computed and is not finite: the database has no such value."""
    import pyarrow as pa
    from pyarrow import compute

    not_finite = compute.equal(status, SequenceStatus.NOT_FINITE.value)
    missing = compute.and_(not_finite, compute.is_null(similarity))
    return compute.if_else(missing, pa.scalar(math.nan, pa.float64()), similarity)


def _batch(schema: Any, columns: Mapping[str, Sequence[object]]) -> Any:
    import pyarrow as pa

    arrays = [
        _encoded(pa.array(columns[field.name], _plain_type(field.type)), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _text(value: object) -> str | None:
    """Foreign text may hold halves of UTF-16 pairs, which no UTF-8 file can."""
    return None if value is None else str(value).encode("utf-8", "replace").decode("utf-8")


def _figure(name: str) -> Callable[[Run], Any]:
    return lambda run: getattr(run.figures, name) if run.figures is not None else None


def _environment(name: str) -> Callable[[Run], Any]:
    return lambda run: getattr(run.environment, name) if run.environment is not None else None


def _configuration(name: str) -> Callable[[Run], Any]:
    return lambda run: getattr(run.configuration, name)


_RUN_VALUES: dict[str, Callable[[Run], Any]] = {
    "run_id": lambda run: run.id,
    "target": lambda run: _text(run.target),
    "commit": lambda run: run.commit.hash,
    "position": lambda run: run.commit.position,
    "benchmark": lambda run: run.benchmark,
    "benchmark_version": lambda run: run.benchmark_version,
    "configuration": lambda run: run.configuration.digest,
    "subject": lambda run: _text(run.commit.subject),
    "author": lambda run: _text(run.commit.author),
    "committed_at": lambda run: run.commit.committed_at,
    "environment": _environment("digest"),
    "protocol": lambda run: run.protocol_digest,
    "outcome": lambda run: run.outcome.value,
    "inherited_outcome": lambda run: run.inherited_outcome and run.inherited_outcome.value,
    "inherited_from": lambda run: run.inherited_from,
    "culprit": lambda run: run.culprit and run.culprit.value,
    "reason": lambda run: _text(run.reason),
    "started_at": lambda run: run.started_at,
    "duration_s": lambda run: run.duration_s,
    **{name: _configuration(name) for name in (
        "model", "weights", "weights_digest", "dtype", "device", "backend", "token_budget",
    )},
    **{name: _environment(name) for name in ("host", "gpu", "torch")},
    **{name: _figure(name) for name in (
        "num_sequences", "num_tokens", "num_strict", "num_failed", "min_similarity",
        "p01_similarity", "median_similarity", "max_packed_relative_l2",
        "max_unpacked_relative_l2", "packed_s", "unpacked_s",
    )},
}  # fmt: skip
