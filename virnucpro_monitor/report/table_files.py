"""Write an exported table to Parquet, CSV or JSON lines, batch by batch."""

import json
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.report.tables import arrow_schema
from virnucpro_monitor.report.text import csv_text

TABLE_FORMATS = (".parquet", ".csv", ".jsonl")


def write_table(path: Path, table: str, batches: Iterable[Any]) -> int:
    """Write record batches of a table of `report.tables`; the file appears when it is complete.

    Args:
        path: its ending says the format.

    Returns:
        The number of rows.

    Raises:
        ConfigurationError: another ending, or the file cannot be written.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise ConfigurationError(
            f"{path.name!r} does not say a format: end it with {', '.join(TABLE_FORMATS)}."
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        rows = write(partial, table, batches)
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"{path} cannot be written ({reason}): choose another file."
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _write_parquet(path: Path, table: str, batches: Iterable[Any]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(table)
    # Floats seldom repeat: trying to make a dictionary of them costs half of the writing. With
    # their bytes sorted by rank LZ4 makes the file smaller than Zstandard does, in half its time.
    texts = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    rows = 0
    with (
        pq.ParquetWriter(
            path, schema, compression="lz4", use_dictionary=texts, use_byte_stream_split=floats
        ) as writer,
        ThreadPoolExecutor(max_workers=1) as writing,
    ):
        written = None
        for batch in batches:  # the next one is read while this one is written
            if written is not None:
                written.result()
            written = writing.submit(writer.write_batch, batch)
            rows += batch.num_rows
        if written is not None:
            written.result()
    return rows


def _write_csv(path: Path, table: str, batches: Iterable[Any]) -> int:
    import pyarrow as pa
    from pyarrow import csv

    schema = pa.schema(
        [
            pa.field(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
            for field in arrow_schema(table)
        ]
    )
    rows = 0
    with csv.CSVWriter(path, schema) as writer:
        for batch in batches:
            columns = [
                _safe_texts(column) if pa.types.is_dictionary(column.type) else column
                for column in batch.columns
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
            rows += batch.num_rows
    return rows


def _safe_texts(column: Any) -> Any:
    """A spreadsheet must not compute what a target's author wrote; each text is looked at once."""
    import pyarrow as pa

    texts = [None if text is None else csv_text(text) for text in column.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(column.indices)


def _write_json_lines(path: Path, table: str, batches: Iterable[Any]) -> int:
    rows = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for batch in batches:
            names = batch.schema.names
            columns = [[_json_value(v) for v in column.to_pylist()] for column in batch.columns]
            for values in zip(*columns, strict=True):
                file.write(json.dumps(dict(zip(names, values, strict=True)), allow_nan=False))
                file.write("\n")
            rows += batch.num_rows
    return rows


def _json_value(value: Any) -> Any:
    """JSON knows neither NaN nor moments: they are text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value.isoformat() if isinstance(value, datetime) else value


_WRITERS: dict[str, Callable[[Path, str, Iterable[Any]], int]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
}
