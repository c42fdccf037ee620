"""Pieces of HTML for `st.html`. Every value goes in through `html_text`; nothing else does."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

from app.marks import MARKS, Mark
from app.text import UNKNOWN, format_age, format_time, format_utc, html_text, one_line
from virnucpro_monitor.records import Outcome, Run, short_hash

MAX_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Html:
    """Text that is already HTML, so that it is not escaped again."""

    code: str

    def __add__(self, other: "Html") -> "Html":
        return Html(self.code + other.code)


Value = Html | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    name: str
    kind: str = ""  # CSS class: "num", "wide", "nowrap", "mono"
    help: str = ""
    spoken: str = ""  # the name for readers of screens, where none is to be seen


def render(value: Value) -> str:
    return (
        value.code if isinstance(value, Html) else f"<bdi>{html_text(value, MAX_CHARACTERS)}</bdi>"
    )


def join(parts: Iterable[Value], separator: str = " ") -> Html:
    return Html(separator.join(render(part) for part in parts))


def page(*parts: Html) -> str:
    """A whole fragment for `st.html`."""
    return f'<div class="vm">{"".join(part.code for part in parts)}</div>'


def anchor(address: str, text: Value, *, title: str = "", outside: bool = False) -> Html:
    target = ' target="_blank" rel="noopener noreferrer"' if outside else ' target="_self"'
    hint = f' title="{html_text(title)}"' if title else ""
    return Html(f'<a href="{escape(address, quote=True)}"{target}{hint}>{render(text)}</a>')


def quiet(text: Value) -> Html:
    return Html(f'<span class="quiet">{render(text)}</span>')


def mono(text: Value) -> Html:
    return Html(f'<span class="mono">{render(text)}</span>')


def with_ids(text: str, ids: Container[str]) -> Html:
    """A sentence in which each word that is a sequence's id is set as code: `tiny` is a name."""
    shown = []
    for part in re.split(r"([\s,;:()]+)", one_line(text, MAX_CHARACTERS)):
        name = part.rstrip(".")
        if name and name in ids:
            shown.append(mono(name).code + part[len(name) :])
        else:
            shown.append(escape(part))
    return Html(f"<bdi>{''.join(shown)}</bdi>")


def paragraph(*parts: Value, kind: str = "") -> Html:
    return Html(f'<div class="{escape(kind)}">{join(parts).code}</div>')


def mark_label(mark: Mark, word: str | None = None) -> Html:
    glyph = (
        f'<span class="glyph" style="color:{mark.colour}" aria-hidden="true">{mark.glyph}</span>'
    )
    return Html(f'<span class="mark">{glyph} {html_text(word or mark.word)}</span>')


def outcome_label(run: Run) -> Html:
    """The outcome's mark and word; of a skipped run also the outcome it inherits."""
    word = MARKS[run.outcome].word
    if run.outcome is Outcome.SKIPPED and run.inherited_outcome is not None:
        word = f"{word} ({MARKS[run.inherited_outcome].word})"
    return mark_label(MARKS[run.outcome], word)


def tone(run: Run) -> str:
    return MARKS[run.effective_outcome].colour


def yes_no(passed: bool | None) -> Html:
    if passed is None:
        return mark_label(MARKS[Outcome.NOT_RUN], "not judged")
    return mark_label(MARKS[Outcome.PASSED if passed else Outcome.FAILED])


def when(moment: datetime | None, reader_zone: ZoneInfo) -> Html:
    """A time in the reader's zone, UTC on hover."""
    if moment is None:
        return Html(UNKNOWN)
    iso = moment.isoformat()
    return Html(
        f'<time datetime="{escape(iso)}" title="{format_utc(moment)}">'
        f"{format_time(moment, reader_zone)}</time>"
    )


def age(moment: datetime | None, now: datetime) -> Html:
    """How long ago, UTC on hover."""
    if moment is None:
        return Html(UNKNOWN)
    return Html(
        f'<time datetime="{escape(moment.isoformat())}" title="{format_utc(moment)}">'
        f"{format_age(moment, now)}</time>"
    )


def commit_label(commit_hash: str, subject: str, address: str | None = None) -> Html:
    name = mono(short_hash(commit_hash))
    name = anchor(address, name, title=commit_hash) if address else name
    return join([name, subject])


def banner(title: Value, *lines: Value, colour: str) -> Html:
    body = "".join(f"<div>{render(line)}</div>" for line in lines)
    return Html(
        f'<div class="vm-banner" style="--tone:{colour}">'
        f'<div class="title">{render(title)}</div>{body}</div>'
    )


def tiles(values: Sequence[tuple[str, Value, Value]]) -> Html:
    """Figures side by side: (name, value, note)."""
    cells = "".join(
        f'<div class="vm-tile"><div class="name">{html_text(name)}</div>'
        f'<div class="value">{render(value)}</div><div class="note">{render(note)}</div></div>'
        for name, value, note in values
    )
    return Html(f'<div class="vm-tiles">{cells}</div>')


def facts(values: Sequence[tuple[str, Value]]) -> Html:
    rows = "".join(f"<dt>{html_text(name)}</dt><dd>{render(value)}</dd>" for name, value in values)
    return Html(f'<dl class="facts">{rows}</dl>')


def spoken(text: str) -> Html:
    """What only a reader of screens is told: a column's name where the eye needs none."""
    return Html(f'<span class="sr">{html_text(text)}</span>')


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Value]],
    *,
    caption: str,
    changed: frozenset[int] = frozenset(),
    is_grid: bool = False,
) -> Html:
    """A table that scrolls sideways by itself. `changed` are the indices of rows to set off.

    On a narrow screen the sheet lays each row out as a block, each cell with its column's name;
    the roles are spelled out, since a browser forgets a table's own where its display changes.
    `is_grid` keeps the columns there, but those of kind "extra".
    """
    head = "".join(
        f'<th scope="col" role="columnheader" class="{escape(column.kind)}" '
        f'title="{html_text(column.help)}">'
        f"{html_text(column.name) or spoken(column.spoken).code}</th>"
        for column in columns
    )
    body = []
    for index, row in enumerate(rows):
        cells = "".join(
            f'<td role="cell" class="{escape(column.kind)}" data-name="{html_text(column.name)}">'
            f"{render(value)}</td>"
            for column, value in zip(columns, row, strict=True)
        )
        body.append(f'<tr role="row" class="{"changed" if index in changed else ""}">{cells}</tr>')
    kind = "grid" if is_grid else ""
    return Html(
        f'<div class="vm-scroll"><table role="table" class="{kind}" '
        f'aria-label="{html_text(caption)}">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(body)}</tbody></table></div>'
    )


def note(text: Value) -> Html:
    return Html(f'<div class="vm-note">{render(text)}</div>')


def empty(title: str, *lines: Value) -> Html:
    body = "".join(f"<div>{render(line)}</div>" for line in lines)
    return Html(f'<div class="vm-empty"><strong>{html_text(title)}</strong>{body}</div>')


def nothing_yet(overview: str) -> Html:
    """The empty state of a database without runs; the overview says how to begin."""
    return empty("Nothing has been validated yet.", anchor(overview, "How to begin"))
