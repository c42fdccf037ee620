"""What broke between A and B: incidents that began there, and what nobody looked at."""

from collections.abc import Sequence
from datetime import timedelta

import streamlit as st

from app import data, filters, links, markup, shell
from app.markup import Value
from app.text import one_line
from app.views.incidents import incident_table
from virnucpro_monitor.analysis.incidents import Incident
from virnucpro_monitor.analysis.regressions import (
    Bound,
    Regressions,
    SeriesNote,
    find_regressions,
)
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.report.sentences import (
    accuracy_move_sentence,
    movement_sentence,
    regressions_sentence,
)

SPANS = {
    "7": "Last week",
    "30": "Last month",
    "365": "Last year",
    "all": "Ever",
    "own": "From – to",  # noqa: RUF001
}
MAX_ROWS = 100


def show() -> None:
    shell.title("What broke?")
    if not data.load_series():
        shell.put(markup.nothing_yet(links.link("overview")))
        return
    targets = {"": "All targets"} | {
        target.name: one_line(target.name, 60) for target in data.load_targets()
    }
    given = bool(filters.parameter("since") or filters.parameter("until"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        span = filters.choose("When", SPANS, "span", default="own" if given else "365", style="row")
        target = filters.choose("Target", targets, "target", default="", width=240)
        since = until = ""
        if span == "own":
            since = filters.search("After", "since", placeholder="hash or date", width=170)
            until = filters.search("Up to", "until", placeholder="hash or date", width=170)
    if span == "own":
        start, end = _bound(since, target, is_end=False), _bound(until, target, is_end=True)
        if (since and start is None) or (until and end is None):
            return
    else:
        end = None
        start = None if span == "all" else shell.now() - timedelta(days=int(span))
    runs = [run for run in data.load_history() if target in ("", run.target)]
    incidents = [i for i in data.load_incidents() if target in ("", i.series.target)]
    _show(find_regressions(runs, incidents, since=start, until=end))


def _bound(text: str, target: str, *, is_end: bool) -> Bound | None:
    """A commit or a moment; says on the page where `text` is neither."""
    try:
        return data.find_bound(text, target or None, shell.reader_zone(), is_end=is_end)
    except MonitorError as error:
        shell.put(markup.note(one_line(str(error), 400)))
        return None


def _show(found: Regressions) -> None:
    shell.put(markup.paragraph(regressions_sentence(found)))
    _section("Broken and not fixed", found.broken, "Nothing that broke in this range is still so.")
    _section("Broken and fixed again", found.recovered, "")
    _section("Older, and fixed in this range", found.fixed, "")
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


def _section(title: str, incidents: Sequence[Incident], nothing: str) -> None:
    if not incidents and not nothing:
        return
    shell.heading(f"{title} ({len(incidents):,})")
    if not incidents:
        shell.put(markup.empty(nothing))
        return
    newest = list(reversed(incidents))
    shell.put(incident_table(newest[:MAX_ROWS], caption=title))
    if len(newest) > MAX_ROWS:
        shell.put(
            markup.paragraph(
                f"The newest {MAX_ROWS} of {len(newest):,}; choose a shorter range for the others.",
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
        markup.Column(name="", kind="wide"),
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
        markup.Column(name="", kind="wide"),
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
