"""Is it healthy, since when not, which commit, which side, and is the monitor itself alive?"""

from collections.abc import Sequence
from datetime import datetime

import plotly.graph_objects as go
import streamlit as st

from app import data, filters, links, markup, shell
from app.figures import gates_figure, trend_figure
from app.glance import glance
from app.heat import heat_legend, heat_rows, heat_table
from app.markup import Html, Value
from app.sparkline import sparkline
from app.speed_figures import speed_figure
from app.text import (
    UNKNOWN,
    format_age,
    format_count,
    html_text,
    markdown_text,
    one_line,
    shortened,
)
from app.trend import MAX_POINTS, threshold_errors, trend_info
from app.views.broken import put_broken
from app.views.series_choice import find_series
from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.analysis.regressions import Bound
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.analysis.trends import find_events
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.monitor.branches import runs_within
from virnucpro_monitor.records import Run
from virnucpro_monitor.report.headline import headline
from virnucpro_monitor.report.words import agreement, deciding_words, failing_words, flips_words

RANGES = {"50": "Last 50", "200": "Last 200", "1000": "Last 1,000", "all": "All"}
MAX_CARDS = 24
VIEWS = {
    "glance": "At a glance",
    "agreement": "Agreement",
    "gates": "Gates",
    "speed": "Speed",
}
SHADES = {
    "agreement": "Shaded: bad runs.",
    "speed": "Grey bands: what like runs lead one to expect, noise included.",
}
DRAWINGS = {"agreement": trend_figure, "gates": gates_figure, "speed": speed_figure}
MAX_ROWS, MAX_ROWS_ALL = 30, 200
MAX_GLANCE_RUNS = 200
MAX_GATE_RUNS = 300  # each has a mark for every gate


def show() -> None:
    series = data.load_series()
    now = shell.now()
    if not series:
        shell.title("Overview")
        shell.put(
            markup.empty(
                "Nothing has been validated yet.",
                "See a worked example: virnucpro-monitor demo",
                "Validate this package without a GPU: virnucpro-monitor run "
                "--model esm2_t6_8M_UR50D --weights synthetic --device cpu --dtype float32",
                "Validate a repository: virnucpro-monitor run --target PATH --commit REVISION",
            )
        )
        return
    shell.title(headline(series, now), _monitor_line(now))
    selected = _select(series)
    put_broken(series, selected, now)
    shown = _filtered(series)
    _strip(shown, selected, now)
    _history(selected, now)


def _monitor_line(now: datetime) -> Value:
    beats = data.load_heartbeats()
    if not beats:
        return "No runner has reported yet; every series below shows when it was last measured."
    last = max(beats, key=lambda beat: beat.at)
    return markup.join(
        [
            "Runner last seen",
            markup.age(last.at, now),
            f"on {one_line(last.host)} ({one_line(last.state)}).",
            markup.anchor(links.link("health"), "Health of the monitor"),
        ]
    )


def _select(series: Sequence[data.SeriesCard]) -> data.SeriesCard:
    """The series the address names; without one the worst, then the most recently measured."""
    found = find_series(series)
    if found is None and any(map(filters.parameter, ("target", "benchmark", "config"))):
        shell.put(markup.note("The address names no known series; the first one is shown."))
    return found or series[0]


def _filtered(series: Sequence[data.SeriesCard]) -> Sequence[data.SeriesCard]:
    if len(series) == 1:
        return series
    with st.container(horizontal=True, vertical_alignment="bottom"):
        state = filters.choose(
            "Show",
            {"all": "All", "bad": "Needs attention", "behind": "Behind"},
            "state",
            default="all",
            style="row",
        )
        words = filters.search(
            "Find a series", "find", placeholder="target, benchmark, model…", width=260
        )
    return [
        entry
        for entry in series
        if (state != "bad" or entry.latest.effective_outcome.is_bad)
        and (state != "behind" or entry.commits_behind)
        and all(word in entry.words for word in words.lower().split())
    ]


def _strip(series: Sequence[data.SeriesCard], selected: data.SeriesCard, now: datetime) -> None:
    """Every series on a line of its own, the worst first."""
    if not series:
        shell.put(markup.empty("No series fits the filters."))
        return
    everything = filters.parameter("cards") == "all"
    drawn = series if everything else series[:MAX_CARDS]
    lines = "".join(_line(entry, entry.key == selected.key, now).code for entry in drawn)
    shell.put(Html(f'<div class="vm-strip">{lines}</div>'))
    if len(drawn) < len(series):
        shell.put(
            markup.paragraph(
                f"{len(drawn)} of {len(series)} series, the worst first.",
                markup.anchor(links.link("overview", cards="all"), "Show all"),
                kind="quiet",
            )
        )


def _line(entry: data.SeriesCard, current: bool, now: datetime) -> Html:
    run = entry.latest
    number = deciding_words(run)
    told: list[Value] = []
    if run.effective_outcome.is_bad:
        told.append(failing_words(run, data.load_finding(run)))
    if run.figures is not None:
        told.append(markup.quiet(f"{agreement(run.figures)} sequences agree"))
    if number != UNKNOWN:
        told.append(markup.quiet(f"· {number}"))
    if flips := data.count_flips(run):
        told.append(markup.quiet(f"· {flips_words(flips)}"))
    told += [
        Html(f'<span class="open">{html_text(_incident_line(one, now))}</span>')
        for one in entry.incidents
    ]
    newest = markup.join(
        [
            markup.mono(run.commit.short),
            shortened(run.commit.subject, 44),
            markup.quiet(
                markup.join(
                    [
                        "·",
                        one_line(run.commit.author, 30) or "unknown author",
                        "· measured",
                        _measured(entry, now),
                    ]
                )
            ),
        ]
    )
    address = links.link("overview", **links.series_parameters(run))
    return Html(
        f'<a class="vm-card" style="--tone:{markup.tone(run)}" href="{html_text(address)}" '
        f'target="_self" aria-current="{"true" if current else "false"}">'
        f'<span class="state">{markup.outcome_label(run).code}</span>'
        f'<span class="name"><strong>{html_text(entry.key.target, 60)} · '
        f"{html_text(entry.key.benchmark, 40)}</strong> "
        f'<span class="quiet">{html_text(entry.label)}</span></span>'
        f"{_sparkline(entry).code}"
        f'<span class="newest">{newest.code}</span>'
        f'<span class="told">{markup.join(told).code}</span></a>'
    )


def _sparkline(entry: data.SeriesCard) -> Html:
    thresholds = data.load_thresholds([entry.latest]).get(entry.latest.protocol_digest)
    return sparkline(entry.marks, threshold_errors(thresholds)["strict"] if thresholds else None)


def _incident_line(incident: Incident, now: datetime) -> str:
    since = format_age(commit_date(incident.first_bad), now)
    commit = incident.first_bad.commit.short
    line = f"{incident.state.capitalize()} incident since {commit}, {since}"
    if incident.state is IncidentState.NOT_SEEN:
        line = (
            f"Incident since {commit}, {since}; not measured since {incident.last_bad.commit.short}"
        )
    if incident.acknowledgement and incident.state is IncidentState.ACKNOWLEDGED:
        line += f" ({incident.acknowledgement.who})"
    return line


def _measured(entry: data.SeriesCard, now: datetime) -> Value:
    parts: list[Value] = [markup.age(entry.latest.started_at, now)]
    if entry.commits_behind:
        parts.append(f"· {format_count(entry.commits_behind, 'commit')} behind")
    elif entry.commits_behind == 0:
        parts.append("· up to date")
    return markup.join(parts)


def _history(entry: data.SeriesCard, now: datetime) -> None:
    """The chosen series over commits: its rows and its picture, or a chart to explore."""
    with st.container(horizontal=True, vertical_alignment="center"):
        shell.heading(
            f"{one_line(entry.key.target, 60)} · {one_line(entry.key.benchmark, 40)} over commits"
        )
        kind = filters.choose(
            "View", VIEWS, "chart", default="glance", style="row", label_visible=False
        )
        with st.popover(_range_words()):
            runs, order = _chosen_runs(entry)
    if not runs:
        shell.put(markup.empty("No run lies in this range."))
        return
    bad = sum(run.effective_outcome.is_bad for run in runs)
    if kind == "glance":
        _glance(entry, runs, bad, now)
    else:
        _explore(kind, order, runs, bad)


def _range_words() -> str:
    """The chosen range in a few words: what the reader presses to change it."""
    ends = [filters.parameter("from"), filters.parameter("to")]
    words = " to ".join(shortened(end, 16) or "…" for end in ends) if any(ends) else ""
    words = words or RANGES.get(filters.parameter("last"), RANGES["200"])
    branch = filters.parameter("branch")
    return markdown_text(f"{words} of {shortened(branch, 24)}" if branch else words)


def _chosen_runs(entry: data.SeriesCard) -> tuple[Sequence[Run], str]:
    """The runs of the range that the reader wants, oldest first, and how to order them."""
    order = filters.choose(
        "Order",
        {"history": "Commit order", "date": "Date order"},
        "order",
        default="history",
        style="row",
    )
    window = filters.choose("Range", RANGES, "last", default="200")
    start = filters.search("From", "from", placeholder="hash or date")
    end = filters.search("To", "to", placeholder="hash or date")
    branch = filters.choose("Branch", data.load_branches(entry.key.target), "branch", default="")
    first = _bound(start, entry.key.target, is_end=False)
    last = _bound(end, entry.key.target, is_end=True)
    if (first or last) and not branch:
        # Ends that the reader names count in the whole history, not in its newest part alone.
        return data.load_runs_between(entry, first, last), order
    limit = None if window == "all" or first or last else int(window)
    return runs_within(data.load_branch_runs(entry, branch, limit), first, last), order


def _glance(entry: data.SeriesCard, runs: Sequence[Run], bad: int, now: datetime) -> None:
    """Commits x gates with the agreement beside it, or below where the page is not wide."""
    zone = shell.reader_zone()
    limit = MAX_ROWS_ALL if filters.parameter("rows") == "all" else MAX_ROWS

    def draw() -> tuple[Html, Html]:
        info = trend_info(
            runs, data.load_thresholds(runs), reader_zone=zone, max_points=MAX_GLANCE_RUNS
        )
        newest = runs[-limit - 1 :]
        rows = heat_rows(
            newest,
            limit,
            finding=data.load_finding,
            flips=data.count_flips,
            events=find_events(newest),
            outside=lambda run: data.commit_address(run.target, run.commit.hash),
        )
        name = f"Agreement of {len(info.trend.points)} runs over commits, {bad} of them bad"
        return heat_table(rows, now, caption="Commits and gates"), glance(info, caption=name)

    # Ages move on: what is kept is a minute old at most.
    minute = now.replace(second=0, microsecond=0).isoformat()
    known = hash(tuple(map(data.identity, runs)))
    heat, picture = shell.prepared(draw, "glance", limit, zone.key, minute, known)
    more: list[Value] = []
    if len(runs) > limit:
        more.append(f"The newest {limit:,} of {format_count(len(runs), 'run')} have a row.")
        if limit < MAX_ROWS_ALL:
            address = links.link(
                "overview", **links.series_parameters(entry.latest), rows="all",
                last=filters.parameter("last"),
            )  # fmt: skip
            more.append(markup.anchor(address, "Show more rows"))
    count = f"{format_count(len(runs), 'run')}, {bad} bad. A row's hash and a cell open the run."
    shell.put(
        Html(
            '<div class="vm-pictures"><section class="rows">'
            f"{heat.code}{markup.paragraph(count, *more, kind='quiet').code}"
            f"{heat_legend().code}</section>"
            f'<section class="line"><h3>Agreement: error 1 - cos, worst sequence of each commit'
            f"</h3>{picture.code}</section></div>"
        )
    )


def _explore(kind: str, order: str, runs: Sequence[Run], bad: int) -> None:
    """A chart to zoom into, to hover and to take away as a picture."""
    zone = shell.reader_zone()
    max_points = MAX_GATE_RUNS if kind == "gates" else MAX_POINTS

    def draw() -> go.Figure:
        info = trend_info(
            runs,
            data.load_thresholds(runs),
            by_date=order == "date",
            reader_zone=zone,
            max_points=max_points,
        )
        return DRAWINGS[kind](info)

    shell.clickable_chart(
        shell.prepared(draw, "trend", kind, order, zone.key, hash(tuple(map(data.identity, runs)))),
        key=f"trend-{kind}",
        alt=f"{kind} of {len(runs)} runs over commits, {bad} of them bad",
        on_click=shell.open_run,
    )
    notes: list[Value] = [
        f"{format_count(len(runs), 'run')}, {bad} bad. Click a mark to open its run."
    ]
    if kind in SHADES:
        notes.append(SHADES[kind])
    if len(runs) > max_points:
        notes.append(f"Of so many, about {max_points:,} are drawn: only healthy runs are left out.")
    shell.put(markup.paragraph(*notes, kind="quiet"))


def _bound(text: str, target: str, *, is_end: bool) -> Bound | None:
    """A commit or a moment; says on the page where `text` is neither."""
    try:
        return data.find_bound(text, target, shell.reader_zone(), is_end=is_end)
    except MonitorError as error:
        shell.put(markup.note(one_line(str(error), 400)))
        return None
