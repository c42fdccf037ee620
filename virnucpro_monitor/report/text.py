"""Foreign text made harmless for each format, and numbers made readable.

Commit subjects, authors, sequence ids and tracebacks come from other people's repositories. In a
report they are shown character by character: nothing in them acts as HTML, Markdown, XML, a
spreadsheet formula, a terminal escape or a change of writing direction.
"""

import html
import math
import re
import unicodedata
from datetime import datetime, timedelta

MAX_INLINE_CHARACTERS = 300
MAX_BLOCK_CHARACTERS = 40_000
UNKNOWN = "–"  # noqa: RUF001 (an en dash stands for a value that is not known)
# Bare addresses are linked by some renderers; a list or heading begins only at a line's start.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&@]|:(?=//)|(?<=www)\.|^[-+=])", re.IGNORECASE)
_FORMULA_STARTS = ("=", "+", "-", "@")


def visible(text: str) -> str:
    """Show control and direction characters instead of obeying them; keep newlines and tabs."""
    return "".join(
        character if character in "\n\t" or _is_harmless(character) else _picture(character)
        for character in text
    )


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _picture(character: str) -> str:
    code = ord(character)
    # Unicode has pictures of the control characters: U+241B shows ESC.
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def one_line(text: str, limit: int = MAX_INLINE_CHARACTERS) -> str:
    """Visible text on one line, cut at `limit` characters; a very long one's length is said."""
    shown = " ".join(visible(text[: limit + 1]).split())
    if len(text) <= limit:
        return shown
    length = f" ({len(text):,} characters)" if len(text) > 10 * limit else ""
    return f"{shown[:limit].rstrip()}…{length}"


def block(text: str, limit: int = MAX_BLOCK_CHARACTERS) -> str:
    """Visible text of several lines; of a long one the end, where a traceback says what broke."""
    if len(text) <= limit:
        return visible(text)
    return f"… (the last {limit:,} of {len(text):,} characters)\n{visible(text[-limit:])}"


def markdown(text: str, limit: int = MAX_INLINE_CHARACTERS) -> str:
    """One line inside a Markdown paragraph or table cell."""
    return _MARKDOWN.sub(r"\\\1", one_line(text, limit))


def markdown_block(text: str, limit: int = MAX_BLOCK_CHARACTERS) -> str:
    """A fenced block whose fence is longer than any run of backticks inside."""
    shown = block(text, limit)
    longest = max((len(found) for found in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def html_text(text: str, limit: int = MAX_INLINE_CHARACTERS) -> str:
    """One line between HTML tags or in a quoted attribute."""
    return html.escape(one_line(text, limit), quote=True)


def csv_text(text: str) -> str:
    """A cell that a spreadsheet shows instead of computing."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA_STARTS) else shown


def format_error(error: float | None) -> str:
    """An error such as 1 - cos, with two digits: "4.6e-3"; "0" only where it is exactly zero."""
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
    if 0.9995 < value < 1.0:
        text = f"1 - {format_error(1.0 - value)}"  # a cosine that must not read as 1
    elif value == 0.0 or 0.01 <= abs(value) < 100_000:
        text = f"{value:.4g}"
    else:
        text = format_error(value)
    return f"{text} {unit}".strip()


def format_share(part: int, whole: int) -> str:
    """ "199 of 200 (99.5 %)"; rounded, but 100 % means all of them and 0 % none."""
    if whole == 0:
        return "0 of 0"
    percent = round(part / whole * 100, 1)
    if 0 < part < whole:
        percent = min(max(percent, 0.1), 99.9)
    return f"{part:,} of {whole:,} ({percent:g} %)"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """ "1 sequence", "2 sequences"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def format_age(moment: datetime | None, now: datetime) -> str:
    """How long ago, in one unit: "3 min ago"."""
    if moment is None:
        return UNKNOWN
    age = now - moment
    if age < timedelta(minutes=1):
        return "just now"
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "min")):
        number = int(age.total_seconds() // size)
        if number:
            return f"{count(number, name, 'min' if name == 'min' else None)} ago"
    return "just now"
