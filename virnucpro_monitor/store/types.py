"""Column types that behave alike on SQLite and PostgreSQL."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Dialect, Enum, Text
from sqlalchemy.types import TypeDecorator

from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.records import Json


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, stored in UTC and read back aware: SQLite forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise StoreError(f"The time {value.isoformat()} has no time zone: give it one.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class CleanText(TypeDecorator[str]):
    """Text that both databases accept: NUL and lone surrogates become U+FFFD.

    Logs, tracebacks and commit subjects come from other people's programs, and a byte that cannot
    be stored must not cost the run that it describes.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value)


def clean_text(value: str) -> str:
    """The text as `CleanText` stores it."""
    if value.isascii() and "\0" not in value:
        return value
    return (
        value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


# Made once: `json.dumps` makes one each time.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def json_text(value: Json) -> str:
    """The JSON value as `JsonText` stores it.

    Raises:
        StoreError: it is no JSON value, or holds NaN or infinity.
    """
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"A value cannot be stored as JSON ({error}): give None where it is not known."
        ) from error


class JsonText(TypeDecorator[Json]):
    """A JSON value as text, alike in both databases: None is `null`, NaN and infinity refused."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Json, dialect: Dialect) -> str | None:
        return json_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Json:
        return None if value is None else json.loads(value)


class OptionalJsonText(JsonText):
    """As `JsonText`, but None is NULL."""

    cache_ok = True

    def process_bind_param(self, value: Json, dialect: Dialect) -> str | None:
        return None if value is None else super().process_bind_param(value, dialect)


def enum_type(kind: type[StrEnum]) -> Enum:
    """Store a `StrEnum` by its value in a plain string column.

    A native PostgreSQL enum would outlive a downgrade that drops its tables.
    """
    return Enum(
        kind,
        native_enum=False,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )
