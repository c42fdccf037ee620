"""One sequence over all commits: first bad, last good, flips, and the neighbours it had."""

from collections.abc import Sequence
from itertools import pairwise

import streamlit as st

from app import data, filters, links, markup, shell
from app.history_figures import sequence_figure, worse_than_before
from app.marks import MARKS
from app.markup import Value
from app.sequence_figures import LEVELS
from app.text import format_count, format_error, one_line, shortened
from app.views.sequence_letters import put_letters
from app.views.series_choice import choose_series
from virnucpro_monitor.analysis.comparison import Level, Thresholds
from virnucpro_monitor.analysis.series import commit_date, error_of
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.records import SequencePoint
from virnucpro_monitor.report.words import level_legend

RANGES = {"50": "Last 50", "200": "Last 200", "1000": "Last 1,000", "all": "All"}
MAX_LISTED = 30
MAX_OFFERED = 200
MAX_NEIGHBOURS = 40


def show() -> None:
    shell.title("One sequence over all commits")
    cards = data.load_series()
    if not cards:
        shell.put(markup.nothing_yet(links.link("overview")))
        return
    card = choose_series(cards)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = filters.search("Sequence", "sequence", placeholder="id", width=320)
        window = filters.choose("Range", RANGES, "last", default="200", width=130)
    if not name:
        _offer(card)
        return
    try:
        points = data.load_sequence_history(card, name, None if window == "all" else int(window))
    except NotFoundError:
        shell.put(
            markup.empty(
                f"Benchmark {one_line(card.key.benchmark, 60)} has no sequence "
                f"{one_line(name, 120)!r}."
            )
        )
        _offer(card, name)
        return
    if not points:
        shell.put(markup.empty("No run in this range has measured the sequence."))
        return
    _history(points, card)


def _offer(card: data.SeriesCard, words: str = "") -> None:
    """Sequences of the benchmark to choose from, the worst of the latest run first."""
    run = next(
        (run for run in reversed(data.load_series_runs(card, 50)) if run.figures is not None), None
    )
    if run is None:
        shell.put(markup.empty("No run of this series has measures."))
        return
    results = data.load_sequences(
        data.load_measured(run), search=words, order="worst", limit=MAX_OFFERED
    ) or data.load_sequences(data.load_measured(run), order="worst", limit=MAX_OFFERED)
    columns = [
        markup.Column(name="Sequence", kind="wide"),
        markup.Column(name="Length", kind="num"),
        markup.Column(name="1 - cos", kind="num"),
    ]
    rows: list[list[Value]] = [
        [
            markup.anchor(
                links.sequence_link(run, result.sequence_id), one_line(result.sequence_id, 120)
            ),
            f"{result.length:,}",
            format_error(error_of(result.similarity)),
        ]
        for result in results
    ]
    shell.put(
        markup.paragraph(
            f"Choose a sequence; these are the worst of {run.commit.short}.",
            kind="quiet",
        ),
        markup.table(columns, rows, caption="Sequences"),
    )


def _history(points: Sequence[SequencePoint], card: data.SeriesCard) -> None:
    thresholds = data.load_thresholds([point.run for point in points])
    levels = [thresholds[point.run.protocol_digest].level(point.result) for point in points]
    latest = points[-1]
    _summary(points, levels)
    zone = shell.reader_zone()
    measured = hash(tuple(data.identity(point.run) for point in points))
    shell.clickable_chart(
        shell.prepared(
            lambda: sequence_figure(points, thresholds, zone),
            "sequence",
            latest.result.sequence_id,
            zone.key,
            measured,
        ),
        key="sequence-history",
        alt=f"Error of the sequence in {len(points)} runs",
        on_click=shell.open_run,
    )
    shell.put(
        markup.paragraph(
            f"{format_count(len(points), 'run')} that measured it; {latest.result.length:,} "
            f"residues{', truncated' if latest.result.truncated else ''}. "
            "Click a mark to open its run.",
            kind="quiet",
        ),
        markup.paragraph(level_legend(thresholds[latest.run.protocol_digest]), kind="quiet"),
    )
    put_letters(points, card, thresholds)
    _packs(points, levels)
    _table(points, thresholds)


def _summary(points: Sequence[SequencePoint], levels: Sequence[Level]) -> None:
    """When it was last fine, first bad, and how often it changed between the two."""
    bad = [level is not Level.STRICT for level in levels]
    changes = sum(before != after for before, after in pairwise(bad))
    first_bad = _start_of_last_bad_stretch(bad)
    values: list[tuple[str, Value, Value]] = [
        (
            "Now",
            LEVELS[levels[-1]][0],
            f"1 - cos {format_error(error_of(points[-1].result.similarity))}",
        ),
        ("Does not agree", f"in {sum(bad):,} of {len(bad):,}", "runs"),
        ("Changed", f"{changes:,} x", "between agreeing and not"),
    ]
    if first_bad is not None:
        values.append(("First bad", _commit(points[first_bad]), "of its last bad stretch"))
        if first_bad > 0:
            values.append(("Last good", _commit(points[first_bad - 1]), "before that"))
    shell.put(markup.tiles(values))


def _start_of_last_bad_stretch(bad: Sequence[bool]) -> int | None:
    last = next((place for place in reversed(range(len(bad))) if bad[place]), None)
    if last is None:
        return None
    while last > 0 and bad[last - 1]:
        last -= 1
    return last


def _commit(point: SequencePoint) -> Value:
    run = point.run
    return markup.anchor(links.run_link(run), markup.mono(run.commit.short), title=run.commit.hash)


def _packs(points: Sequence[SequencePoint], levels: Sequence[Level]) -> None:
    """Who shared its pack: in the runs where it changed, in the latest, and where it was asked."""
    bad = [level is not Level.STRICT for level in levels]
    first_bad = _start_of_last_bad_stretch(bad)
    wanted = {len(points) - 1: "latest"}
    if first_bad is not None:
        wanted[first_bad] = "first bad"
        if first_bad > 0:
            wanted[first_bad - 1] = "last good"
    asked = filters.number_parameter("at")
    for place, point in enumerate(points):
        if point.run.id == asked:
            wanted.setdefault(place, "chosen below")
    rows = [
        _pack_row(points[place], words)
        for place, words in sorted(wanted.items(), reverse=True)
        if points[place].result.pack is not None
    ]
    if not rows:
        return
    shell.heading("Neighbours it had in its pack")
    columns = [
        markup.Column(name="", kind="nowrap", spoken="Which run"),
        markup.Column(name="Commit", kind="nowrap"),
        markup.Column(name="Pack, place", kind="nowrap"),
        markup.Column(name="Sequences in the order of the pack", kind="wide"),
    ]
    shell.put(markup.table(columns, rows, caption="Neighbours"))


def _pack_row(point: SequencePoint, words: str) -> list[Value]:
    result, run = point.result, point.run
    members = data.load_pack(run, result.pack or 0)
    # The nearest ones, on both sides of it, where a pack holds too many to name.
    here = next((i for i, m in enumerate(members) if m.sequence_id == result.sequence_id), 0)
    start = max(0, min(here - MAX_NEIGHBOURS // 2, len(members) - MAX_NEIGHBOURS))
    shown = members[start : start + MAX_NEIGHBOURS]
    parts: list[Value] = [
        markup.Html(f"<strong>{markup.render(one_line(member.sequence_id, 60))}</strong>")
        if member.sequence_id == result.sequence_id
        else markup.anchor(
            links.sequence_link(run, member.sequence_id), one_line(member.sequence_id, 60)
        )
        for member in shown
    ]
    if len(shown) < len(members):
        parts.append(f"and {len(members) - len(shown):,} further away")
    return [
        words,
        _commit(point),
        f"{(result.pack or 0) + 1}, {(result.slot or 0) + 1} of {len(members):,}",
        markup.join(parts, ", "),
    ]


def _table(points: Sequence[SequencePoint], thresholds: dict[str, Thresholds]) -> None:
    shell.heading("Runs")
    columns = [
        markup.Column(name="Verdict", kind="nowrap"),
        markup.Column(name="Commit", kind="wide"),
        markup.Column(name="1 - cos", kind="num"),
        markup.Column(name="Packed from oracle", kind="num"),
        markup.Column(name="Unpacked from oracle", kind="num"),
        markup.Column(name="Pack, place", kind="num"),
        markup.Column(name="Date", kind="nowrap"),
    ]
    rows: list[list[Value]] = []
    worse = set(worse_than_before(points))
    for number in list(reversed(range(len(points))))[:MAX_LISTED]:
        run, result = points[number].run, points[number].result
        name, outcome, _ = LEVELS[thresholds[run.protocol_digest].level(result)]
        if number in worse:
            name = f"{name}, worse than before"
        place: Value = ""
        if result.pack is not None:
            place = markup.anchor(
                links.sequence_link(
                    run, result.sequence_id, last=filters.parameter("last"), at=run.id
                ),
                f"{result.pack + 1}, {(result.slot or 0) + 1}",
                title="Show its neighbours there",
            )
        rows.append(
            [
                markup.mark_label(MARKS[outcome], name),
                markup.commit_label(
                    run.commit.hash, shortened(run.commit.subject, 80), links.run_link(run)
                ),
                format_error(error_of(result.similarity)),
                format_error(result.packed_relative_l2),
                format_error(result.unpacked_relative_l2),
                place,
                markup.when(commit_date(run), shell.reader_zone()),
            ]
        )
    shell.put(markup.table(columns, rows, caption="Runs that measured the sequence"))
