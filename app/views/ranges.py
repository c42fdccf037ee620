"""Which stretch of time the incidents are asked for, and what else moved in it."""

from collections.abc import Sequence
from datetime import timedelta

from app import data, filters, links, markup, shell
from app.markup import Value
from app.text import one_line
from virnucpro_monitor.analysis.regressions import (
    Bound,
    Regressions,
    SeriesNote,
)
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.report.sentences import accuracy_move_sentence, movement_sentence

SPANS = {
    "all": "Ever",
    "7": "Last week",
    "30": "Last month",
    "365": "Last year",
    "own": "From – to",  # noqa: RUF001
}
MAX_ROWS = 100


class NotARangeError(Exception):
    """What the reader typed is no commit and no moment; the page has said so."""


def choose_range(target: str, default: str) -> tuple[Bound | None, Bound | None] | None:
    """The chosen ends; None for all time. To be called within a row of filters.

    Raises:
        NotARangeError: an end is neither a commit nor a moment.
    """
    given = bool(filters.parameter("since") or filters.parameter("until"))
    span = filters.choose("When", SPANS, "span", default="own" if given else default, width=150)
    if span == "all":
        return None
    if span != "own":
        today = shell.now().replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=int(span)), None
    since = filters.search("After", "since", placeholder="hash or date", width=150)
    until = filters.search("Up to", "until", placeholder="hash or date", width=150)
    return _bound(since, target, is_end=False), _bound(until, target, is_end=True)


def _bound(text: str, target: str, *, is_end: bool) -> Bound | None:
    """A commit or a moment; says on the page where `text` is neither."""
    try:
        return data.find_bound(text, target or None, shell.reader_zone(), is_end=is_end)
    except MonitorError as error:
        shell.put(markup.note(one_line(str(error), 400)))
        raise NotARangeError from error


def put_beside(found: Regressions) -> None:
    """What moved without failing, and what was not measured."""
    _moved(found)
    _notes("Vanished: measured before, not in this range", found.vanished)
    _notes("Measured without any verdict", found.unjudged)
    if found.appeared:
        shell.put(
            markup.paragraph(
                f"{len(found.appeared):,} series had a verdict for the first "
                "time in this range: what they were before is not known.",
                kind="quiet",
            )
        )


def _moved(found: Regressions) -> None:
    """What changed its level without failing a gate, with a link to the first run there."""
    lines = [
        (one.movement.run, one.key.benchmark_label, movement_sentence(one.movement))
        for one in found.moved
    ]
    lines += [
        (move.after, move.after.benchmark_label, accuracy_move_sentence(move))
        for move in found.accuracy
    ]
    if not lines:
        return
    shell.heading(f"Moved below the gates ({len(lines):,})")
    columns = [
        markup.Column(name="Series", kind="nowrap"),
        markup.Column(name="First run", kind="nowrap"),
        markup.Column(name="What moved", kind="wide"),
    ]
    rows: list[list[Value]] = [
        [
            f"{one_line(run.target, 60)} · {one_line(label, 40)}",
            markup.anchor(links.run_link(run), run.commit.short),
            sentence,
        ]
        for run, label, sentence in lines[:MAX_ROWS]
    ]
    shell.put(markup.table(columns, rows, caption="Moved below the gates"))


def _notes(title: str, notes: Sequence[SeriesNote]) -> None:
    if not notes:
        return
    shell.heading(f"{title} ({len(notes):,})")
    columns = [
        markup.Column(name="Series", kind="wide"),
        markup.Column(name="Latest run", kind="nowrap"),
        markup.Column(name="What is known", kind="wide"),
    ]
    rows: list[list[Value]] = [
        [
            markup.anchor(
                links.link("overview", **links.series_parameters(note.latest)),
                f"{one_line(note.key.target, 60)} · {one_line(note.key.benchmark, 40)} · "
                f"{data.configuration_label(note.latest.configuration)}",
            ),
            markup.outcome_label(note.latest),
            one_line(note.note, 300),
        ]
        for note in notes[:MAX_ROWS]
    ]
    shell.put(markup.table(columns, rows, caption=title))
