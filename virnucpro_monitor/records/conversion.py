"""Records to JSON values and back."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from virnucpro_monitor.records.runs import Json

_Record = TypeVar("_Record")


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
        TypeError: a field is missing, unknown, or of another type.
    """
    return typing.cast(_Record, _revive(kind, value))


def _revive(kind: Any, value: Json) -> Any:
    if value is None or kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _revive(next(part for part in arguments if part is not type(None)), value)
    if origin is tuple:
        _expect(value, (list, tuple), kind)
        return tuple(_revive(arguments[0], item) for item in value)
    if origin is Mapping:
        _expect(value, Mapping, kind)
        return {key: _revive(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        _expect(value, Mapping, kind)
        hints = typing.get_type_hints(kind)
        known = {name: _revive(hints.get(name, Any), item) for name, item in value.items()}
        return typing.cast(Any, kind)(**known)
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    if kind in (str, int, float, bool):
        # JSON has one kind of number, and True is none.
        _expect(value, (int, float) if kind is float else kind, kind)
        if kind in (int, float) and isinstance(value, bool):
            raise TypeError(f"{value!r} is not {_name(kind)}")
    return value


def _expect(value: Json, accepted: Any, kind: Any) -> None:
    if not isinstance(value, accepted):
        raise TypeError(f"{str(value)[:60]!r} is not {_name(kind)}")


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
