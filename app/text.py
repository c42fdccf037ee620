"""Turn stored values into text for a reader, and foreign text into text that does nothing.

Commit subjects, authors, sequence ids and tracebacks come from other people's repositories. They
are shown character by character: nothing in them may act as HTML, Markdown, a terminal escape or a
change of writing direction.
"""

import html
import math
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MAX_INLINE_CHARACTERS = 300
MAX_BLOCK_CHARACTERS = 40_000
UNKNOWN = "–"  # noqa: RUF001 (an en dash stands for a value that is not known)
_MARKDOWN_CHARACTERS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&@])")


def visible(text: str) -> str:
    """Show control and direction characters instead of obeying them; keep newlines and tabs."""
    return "".join(
        character if character in "\n\t" or _is_harmless(character) else _picture(character)
        for character in text
    )


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's control pictures: U+241B shows ESC
    return f"⟨U+{code:04X}⟩"


def one_line(text: str, limit: int = MAX_INLINE_CHARACTERS) -> str:
    """Visible text on one line, cut at `limit` characters with its full length said."""
    cut = text[: limit + 1]
    shown = " ".join(visible(cut).split())
    if len(text) <= limit:
        return shown
    return f"{shown[:limit]}… ({len(text):,} characters)"


def block(text: str, limit: int = MAX_BLOCK_CHARACTERS) -> str:
    """Visible text of several lines; of a long one the end, where a traceback says what broke."""
    if len(text) <= limit:
        return visible(text)
    return f"… (the last {limit:,} of {len(text):,} characters)\n{visible(text[-limit:])}"


def html_text(text: str, limit: int = MAX_INLINE_CHARACTERS) -> str:
    """One line that can stand in HTML, between tags or in a quoted attribute."""
    return html.escape(one_line(text, limit), quote=True)


def hover_text(text: str, limit: int = 120) -> str:
    """One line for Plotly, which reads a few HTML tags and entities in any text."""
    return html.escape(one_line(text, limit), quote=False)


def markdown_text(text: str, limit: int = MAX_INLINE_CHARACTERS) -> str:
    """One line for a Streamlit label, which reads Markdown."""
    return _MARKDOWN_CHARACTERS.sub(r"\\\1", one_line(text, limit))


def short_hash(commit: str) -> str:
    return commit[:10]


def format_error(error: float | None) -> str:
    """An error such as 1 - cos, with two digits: "3.1e-6", "0" only where it is exactly zero."""
    if error is None:
        return UNKNOWN
    if error == 0.0:
        return "0"
    if not math.isfinite(error):
        return "not finite"
    mantissa, exponent = f"{error:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_value(value: float | None, unit: str = "") -> str:
    """A gate's value or limit: plain where that is readable, else with an exponent."""
    if value is None:
        return UNKNOWN
    if value == 0.0 or (0.01 <= abs(value) < 100_000):
        text = f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    else:
        text = format_error(value) if value > 0 else f"-{format_error(-value)}"
    return f"{text} {unit}".strip()


def format_similarity(similarity: float | None) -> str:
    """Cut, not rounded: 0.99999996 must not read as 1."""
    if similarity is None:
        return UNKNOWN
    if similarity >= 1.0:
        return "1"
    return f"{math.floor(similarity * 1e8) / 1e8:.8f}"


def format_share(part: int, whole: int) -> str:
    """ "199 of 200 (99.5 %)"; cut, so that 100 % means all of them."""
    if whole == 0:
        return "0 of 0"
    return f"{part:,} of {whole:,} ({format_percent(part / whole)})"


def format_percent(share: float) -> str:
    percent = math.floor(share * 1000 + 1e-9) / 10
    return f"{percent:g} %"


def format_count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


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
    return f"{seconds / 86_400:.0f} days"


def format_age(moment: datetime | None, now: datetime) -> str:
    """How long ago, in one unit: "3 min ago"."""
    if moment is None:
        return UNKNOWN
    age = now - moment
    if age < timedelta(minutes=1):
        return "just now"
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "min")):
        count = int(age.total_seconds() // size)
        if count:
            return f"{count:,} {name if count == 1 or name == 'min' else name + 's'} ago"
    return "just now"


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
