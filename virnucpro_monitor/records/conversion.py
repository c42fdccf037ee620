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
        TypeError: a field is missing or unknown.
    """
    return typing.cast(_Record, _revive(kind, value))


def _revive(kind: Any, value: Json) -> Any:
    if value is None or kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _revive(next(part for part in arguments if part is not type(None)), value)
    if origin is tuple:
        return tuple(_revive(arguments[0], item) for item in value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {name: _revive(hints.get(name, Any), item) for name, item in value.items()}
        return typing.cast(Any, kind)(**known)
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(value)
    return value
