"""Per-sequence results between records and rows, column by column.

Columns are converted at once rather than row by row: it is as quick as the driver itself, gives
plain Python numbers whatever came in (SQLite stores a NumPy integer as a blob), finds NaN, and is
what the digest of a run is made of.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import SequenceResult, SequenceStatus

COLUMN_KINDS = {
    "sequence_index": "q",
    "length": "q",
    "truncated": "?",
    "status": "status",
    "similarity": "d",
    "packed_similarity": "d",
    "unpacked_similarity": "d",
    "relative_l2": "d",
    "packed_relative_l2": "d",
    "unpacked_relative_l2": "d",
    "gain": "d",
    "worst_residue_similarity": "d",
    "p01_residue_similarity": "d",
    "worst_residue": "q",
    "max_abs_difference": "d",
    "pack": "q",
    "slot": "q",
    "offset": "q",
}
"""Columns of `sequence_results` but `run_id`, in their order: "q" integers, "d" doubles."""

RESULT_NAMES = tuple(COLUMN_KINDS)[1:]

_STATUS_CODES = {status.value: code for code, status in enumerate(SequenceStatus)}
_NO_INTEGER = -(2**63)
_MINUS_ZERO = bytes(7) + b"\x80"


class Results:
    """The results of one run as columns of plain values.

    Attributes:
        shared: the columns that have one value in all rows, as status and truncation mostly do,
            with that value.
        columns: the other columns by name.
        digested: the bytes that stand for all of them in a digest.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], digested: bytes) -> None:
        self.columns = {
            name: column for name, column in columns.items() if not _is_uniform(name, column)
        }
        self.shared = {
            name: column[0] for name, column in columns.items() if name not in self.columns
        }
        self.digested = digested

    def __len__(self) -> int:
        return len(self.columns["sequence_index"]) if self.columns else 0

    @classmethod
    def of_records(cls, results: Sequence[SequenceResult]) -> "Results":
        """Convert what is to be stored.

        Raises:
            StoreError: a value is not a number of its column's kind, is NaN or infinite, or does
                not fit the database.
        """
        try:
            return cls.of_rows(_rows_of(results))
        except _Unfit as unfit:
            owner = f"sequence {results[unfit.place].sequence_id!r}"
            raise StoreError(f"The {unfit.name} of {owner} {unfit.what}.") from unfit

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[Any]]) -> "Results":
        """Convert rows as they are stored, without their `run_id`."""
        columns: dict[str, Sequence[Any]] = {}
        digested = []
        # Without rows there are no columns.
        for (name, kind), values in zip(
            COLUMN_KINDS.items(), zip(*rows, strict=True), strict=False
        ):
            columns[name], content = _convert(name, kind, values)
            digested.append(content)
        return cls(columns, b"".join(digested))


def _rows_of(results: Sequence[SequenceResult]) -> list[tuple[Any, ...]]:
    """The values of `COLUMN_KINDS`; spelled out, which takes half of an `attrgetter`'s time."""
    return [
        (
            one.index,
            one.length,
            one.truncated,
            one.status,
            one.similarity,
            one.packed_similarity,
            one.unpacked_similarity,
            one.relative_l2,
            one.packed_relative_l2,
            one.unpacked_relative_l2,
            one.gain,
            one.worst_residue_similarity,
            one.p01_residue_similarity,
            one.worst_residue,
            one.max_abs_difference,
            one.pack,
            one.slot,
            one.offset,
        )
        for one in results
    ]


def _is_uniform(name: str, column: Sequence[Any]) -> bool:
    if name == "sequence_index" or column[0] != column[-1]:  # most columns show it at once
        return False
    return column.count(column[0]) == len(column)


class _Unfit(ValueError):
    """The value of column `name` at `place` that cannot be stored."""

    def __init__(self, name: str, place: int, what: str) -> None:
        super().__init__(f"The {name} of row {place} {what}.")
        self.name, self.place, self.what = name, place, what


def _convert(name: str, kind: str, values: tuple[Any, ...]) -> tuple[Sequence[Any], bytes]:
    """(plain values, the bytes that stand for them in a digest)."""
    if kind == "status":
        return _convert_statuses(values)
    if kind == "?":
        if values.count(False) == len(values):  # nearly always, and much quicker
            return [False] * len(values), bytes(len(values))
        truths = [bool(value) for value in values]
        return truths, bytes(truths)
    form = f"<{len(values)}{kind}"
    try:
        content = struct.pack(form, *values)
        if kind == "q" or (math.isfinite(sum(values)) and _MINUS_ZERO not in content):
            return struct.unpack(form, content), content
    except (TypeError, ValueError, OverflowError, struct.error):
        pass  # some are None, or do not fit
    _check_each(name, kind, values)
    unknown = math.nan if kind == "d" else _NO_INTEGER
    # SQLite stores -0.0 as 0.
    content = struct.pack(form, *(unknown if value is None else value + 0 for value in values))
    plain = struct.unpack(form, content)
    column = [None if value is None else plain[place] for place, value in enumerate(values)]
    return column, content


def _convert_statuses(values: tuple[Any, ...]) -> tuple[Sequence[Any], bytes]:
    if values.count(SequenceStatus.OK) == len(values):
        return [SequenceStatus.OK.value] * len(values), bytes(len(values))
    texts = [SequenceStatus(value).value for value in values]
    return texts, bytes([_STATUS_CODES[text] for text in texts])


def _check_each(name: str, kind: str, values: Iterable[Any]) -> None:
    """Find the value that spoils a column; none may, where finite values add up to infinity."""
    for place, value in enumerate(values):
        if value is None:
            continue
        try:
            (number,) = struct.unpack(f"<{kind}", struct.pack(f"<{kind}", value))
        except (TypeError, ValueError, OverflowError, struct.error) as error:
            raise _Unfit(name, place, f"is {value!r}, which cannot be stored: {error}") from error
        if not math.isfinite(number):
            raise _Unfit(
                name, place, f"is {number}, which is not stored: give None where it is not known"
            )
