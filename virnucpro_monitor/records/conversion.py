"""Records to JSON values and back, with every type checked on the way in."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from virnucpro_monitor.records.runs import Json

_Record = TypeVar("_Record")
_MAX_INTEGER = 2**63  # what a database can hold


class RecordError(TypeError):
    """A JSON value is not the record that it should be; the text names the place."""


def to_json(record: Any) -> Json:
    """Turn a record (or a tuple or mapping of records) into JSON values, datetimes as ISO 8601."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(value) for value in record]
    if isinstance(record, datetime):
        return record.isoformat()
    if isinstance(record, StrEnum):
        return record.value
    return record


def from_json(kind: type[_Record], value: Json) -> _Record:
    """Rebuild a record of `kind` from what `to_json` made.

    Raises:
        RecordError: a field is missing, unknown or of another type, or a number is not finite.
    """
    return typing.cast(_Record, _revive(kind, value, kind.__name__))


def _revive(kind: Any, value: Json, place: str) -> Any:
    if kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _revive_one_of(arguments, value, place)
    if origin is tuple:
        return _revive_tuple(arguments, value, place)
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(value, Mapping), value, "an object", place)
        return {
            _revive(arguments[0], key, place): _revive(arguments[1], item, f"{place}.{key}")
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return _revive_record(typing.cast(Any, kind), value, place)
    return _revive_plain(kind, value, place)


def _revive_one_of(kinds: tuple[Any, ...], value: Json, place: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    left = [kind for kind in kinds if kind is not type(None)]
    for kind in left[:-1]:
        try:
            return _revive(kind, value, place)
        except RecordError:
            continue
    return _revive(left[-1], value, place)


def _revive_tuple(kinds: tuple[Any, ...], value: Json, place: str) -> tuple[Any, ...]:
    _require(isinstance(value, (list, tuple)), value, "a list", place)
    if kinds[-1] is not Ellipsis:
        _require(len(value) == len(kinds), value, f"a list of {len(kinds)}", place)
        return tuple(_revive(*one, f"{place}[]") for one in zip(kinds, value, strict=True))
    return tuple(_revive(kinds[0], item, f"{place}[{index}]") for index, item in enumerate(value))


def _revive_record(kind: Any, value: Json, place: str) -> Any:
    _require(isinstance(value, Mapping), value, "an object", place)
    hints = _hints(kind)
    unknown = [name for name in value if name not in hints]
    if unknown:
        raise RecordError(f"{place} has no field {str(unknown[0])[:80]!r}.")
    known = {name: _revive(hints[name], item, f"{place}.{name}") for name, item in value.items()}
    try:
        return kind(**known)
    except TypeError as error:  # names the fields that are missing
        raise RecordError(f"{place}: {error}.") from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _revive_plain(kind: type, value: Json, place: str) -> Any:
    if kind is datetime:
        try:
            return datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise _refusal(value, "a date and time", place) from None
    if issubclass(kind, StrEnum):
        try:
            return kind(value)
        except ValueError:
            raise _refusal(value, f"one of {', '.join(kind)}", place) from None
    if kind is float:
        good = isinstance(value, float) or _is_integer(value)
        _require(good and math.isfinite(value), value, "a finite number", place)
        return float(value)
    if kind is int:
        _require(_is_integer(value), value, "a whole number", place)
        return value
    names = {str: "a text", bool: "true or false", list: "a list", dict: "an object"}
    _require(isinstance(value, kind), value, names.get(kind, kind.__name__), place)
    return value


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_INTEGER


def _require(holds: bool, value: Json, wanted: str, place: str) -> None:
    if not holds:
        raise _refusal(value, wanted, place)


def _refusal(value: Json, wanted: str, place: str) -> RecordError:
    if value is None:
        shown = "null"
    elif isinstance(value, int) and abs(value) >= _MAX_INTEGER:
        shown = "a number too large"
    elif isinstance(value, (str, int, float)):
        shown = repr(value[:80] if isinstance(value, str) else value)
    else:
        shown = "a list" if isinstance(value, (list, tuple)) else "an object"
    return RecordError(f"{place} is {shown}, not {wanted}.")
