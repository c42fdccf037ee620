"""Texts that only the dashboard needs: hover texts, labels, times and durations.

What foreign text must not do, and how numbers read, is the same in reports: see `report.text`.
"""

import html
import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from virnucpro_monitor.report.text import (
    UNKNOWN,
    block,
    format_age,
    format_error,
    format_share,
    format_value,
    html_text,
    one_line,
    visible,
)
from virnucpro_monitor.report.text import count as format_count
from virnucpro_monitor.report.text import markdown as markdown_text

__all__ = [
    "UNKNOWN",
    "block",
    "format_age",
    "format_bytes",
    "format_count",
    "format_duration",
    "format_error",
    "format_share",
    "format_similarity",
    "format_time",
    "format_utc",
    "format_value",
    "hover_text",
    "html_text",
    "markdown_text",
    "one_line",
    "shortened",
    "visible",
    "zone",
]


def hover_text(text: str, limit: int = 120) -> str:
    """One line for Plotly, which reads a few HTML tags and entities in any text."""
    plain = text.isascii() and text.isprintable() and len(text) <= limit
    return html.escape(text if plain else shortened(text, limit), quote=False)


def shortened(text: str, limit: int) -> str:
    """One line for a place with little room, cut at `limit` characters."""
    shown = one_line(text, 4 * limit)
    return shown if len(shown) <= limit else f"{shown[: limit - 1].rstrip()}…"


def format_similarity(similarity: float | None) -> str:
    """Cut, not rounded: 0.99999996 must not read as 1."""
    if similarity is None:
        return UNKNOWN
    if similarity >= 1.0:
        return "1"
    return f"{math.floor(similarity * 1e8) / 1e8:.8f}"


def format_duration(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    days = seconds / 86_400
    # As ages do, whole days count what is over: "3 days ago" has not lasted four.
    return f"{days:.1f} days" if days < 10 else f"{int(days):,} days"


def zone(name: str | None) -> ZoneInfo:
    """The reader's time zone, UTC where the browser does not say or says nonsense."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def format_time(moment: datetime | None, reader_zone: ZoneInfo) -> str:
    if moment is None:
        return UNKNOWN
    return moment.astimezone(reader_zone).strftime("%Y-%m-%d %H:%M")


def format_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_bytes(size: int) -> str:
    amount = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:,.0f} {unit}" if unit == "bytes" else f"{amount:,.1f} {unit}"
