"""Is it healthy, since when not, which commit, which side, and is the monitor itself alive?"""

from collections.abc import Sequence
from datetime import datetime

import plotly.graph_objects as go
import streamlit as st

from app import data, filters, links, markup, shell
from app.figures import gates_figure, trend_figure
from app.marks import MARKS
from app.markup import Html, Value
from app.sparkline import sparkline
from app.speed_figures import speed_figure
from app.text import (
    UNKNOWN,
    format_age,
    format_count,
    html_text,
    one_line,
    shortened,
)
from app.trend import MAX_POINTS, threshold_errors, trend_info
from app.views.series_choice import find_series
from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.analysis.regressions import Bound
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.monitor.branches import runs_within
from virnucpro_monitor.records import Run
from virnucpro_monitor.report.headline import headline
from virnucpro_monitor.report.words import agreement, deciding_words, failing_words

RANGES = {"50": "Last 50", "200": "Last 200", "1000": "Last 1,000", "all": "All"}
MAX_CARDS = 24
DRAWINGS = {"agreement": trend_figure, "gates": gates_figure, "speed": speed_figure}
MAX_LISTED_RUNS = 20
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
                "Validate this package: virnucpro-monitor run --device cpu --weights synthetic",
                "Validate a repository: virnucpro-monitor run --target PATH --commit REVISION",
            )
        )
        return
    shell.title(headline(series, now), _monitor_line(now))
    selected = _select(series)
    shown = _filtered(series)
    _cards(shown, selected, now)
    shell.let_paint()
    _trend(selected, now)


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


def _cards(series: Sequence[data.SeriesCard], selected: data.SeriesCard, now: datetime) -> None:
    if not series:
        shell.put(markup.empty("No series fits the filters."))
        return
    everything = filters.parameter("cards") == "all"
    drawn = series if everything else series[:MAX_CARDS]
    cards = "".join(_card(entry, entry.key == selected.key, now).code for entry in drawn)
    shell.put(Html(f'<div class="vm-cards">{cards}</div>'))
    if len(drawn) < len(series):
        shell.put(
            markup.paragraph(
                f"{len(drawn)} of {len(series)} series, the worst first.",
                markup.anchor(links.link("overview", cards="all"), "Show all"),
                kind="quiet",
            )
        )


def _card(entry: data.SeriesCard, current: bool, now: datetime) -> Html:
    run = entry.latest
    figures = run.figures
    facts: list[tuple[str, Value]] = [
        (
            "commit",
            markup.join(
                [
                    markup.mono(run.commit.short),
                    shortened(run.commit.subject, 60),
                    markup.quiet(
                        markup.join(
                            [
                                "·",
                                one_line(run.commit.author, 40) or "unknown author",
                                "·",
                                markup.age(commit_date(run), now),
                            ]
                        )
                    ),
                ]
            ),
        ),
        ("measured", _measured(entry, now)),
    ]
    if figures is not None:
        facts.append(("agree", f"{agreement(figures)} sequences"))
    if run.gates:
        facts.append(("worst gate", deciding_words(run)))
    if run.effective_outcome.is_bad:
        facts.append(("cause", failing_words(run, data.load_finding(run))))
    rows = "".join(f"<dt>{name}</dt><dd>{markup.render(value)}</dd>" for name, value in facts)
    incident = "".join(
        f'<div class="open">{html_text(_incident_line(one, now))}</div>' for one in entry.incidents
    )
    address = links.link("overview", **links.series_parameters(run))
    return Html(
        f'<a class="vm-card" style="--tone:{markup.tone(run)}" href="{html_text(address)}" '
        f'target="_self" aria-current="{"true" if current else "false"}">'
        f'<div class="head"><strong>{html_text(entry.key.target, 60)} · '
        f"{html_text(entry.key.benchmark, 40)}</strong>{markup.outcome_label(run).code}</div>"
        f'<div class="quiet mono">{html_text(entry.label)}</div>'
        f'<div class="verdict">{html_text(_verdict(run))}</div>'
        f"{_sparkline(entry).code}"
        f"<dl>{rows}</dl>{incident}</a>"
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


def _verdict(run: Run) -> str:
    return run.reason or MARKS[run.outcome].sentence


def _measured(entry: data.SeriesCard, now: datetime) -> Value:
    parts: list[Value] = [markup.age(entry.latest.started_at, now)]
    if entry.commits_behind:
        parts.append(f"· {format_count(entry.commits_behind, 'commit')} behind")
    elif entry.commits_behind == 0:
        parts.append("· up to date")
    return markup.join(parts)


def _trend(entry: data.SeriesCard, now: datetime) -> None:
    shell.heading(
        f"{one_line(entry.key.target, 60)} · {one_line(entry.key.benchmark, 40)} over commits"
    )
    shell.put(markup.paragraph(markup.mono(entry.label), kind="quiet"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        kind = filters.choose(
            "Chart",
            {"agreement": "Agreement", "gates": "Gates", "speed": "Speed"},
            "chart",
            default="agreement",
            style="row",
        )
        order = filters.choose(
            "Order",
            {"history": "Commit order", "date": "Date order"},
            "order",
            default="history",
            style="row",
        )
        window = filters.choose("Range", RANGES, "last", default="200", width=130)
        start = filters.search("From", "from", placeholder="hash or date", width=130)
        end = filters.search("To", "to", placeholder="hash or date", width=130)
        branches = data.load_branches(entry.key.target)
        branch = filters.choose("Branch", branches, "branch", default="", width=150)
    first = _bound(start, entry.key.target, is_end=False)
    last = _bound(end, entry.key.target, is_end=True)
    if (first or last) and not branch:
        # Ends that the reader names count in the whole history, not in its newest part alone.
        runs = data.load_runs_between(entry, first, last)
    else:
        limit = None if window == "all" or first or last else int(window)
        runs = runs_within(data.load_branch_runs(entry, branch, limit), first, last)
    if not runs:
        shell.put(markup.empty("No run lies in this range."))
        return
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

    bad = sum(run.effective_outcome.is_bad for run in runs)
    shell.clickable_chart(
        shell.prepared(draw, "trend", kind, order, zone.key, hash(tuple(map(data.identity, runs)))),
        key=f"trend-{kind}",
        alt=f"{kind} of {len(runs)} runs over commits, {bad} of them bad",
        on_click=shell.open_run,
    )
    notes: list[Value] = [
        f"{format_count(len(runs), 'run')}, {bad} bad. Click a mark to open its run."
    ]
    if len(runs) > max_points:
        notes.append(f"Of so many, about {max_points:,} are drawn: only healthy runs are left out.")
    shell.put(markup.paragraph(*notes, kind="quiet"))
    _latest_runs(runs, now)


def _bound(text: str, target: str, *, is_end: bool) -> Bound | None:
    """A commit or a moment; says on the page where `text` is neither."""
    try:
        return data.find_bound(text, target, shell.reader_zone(), is_end=is_end)
    except MonitorError as error:
        shell.put(markup.note(one_line(str(error), 400)))
        return None


def _latest_runs(runs: Sequence[Run], now: datetime) -> None:
    shell.heading("Latest runs")
    newest = list(reversed(runs[-MAX_LISTED_RUNS - 1 :]))
    shell.put(run_table(newest, now, caption="Latest runs", limit=MAX_LISTED_RUNS))


def run_table(runs: Sequence[Run], now: datetime, *, caption: str, limit: int) -> Html:
    """Runs of one series, newest first, each with a link to it and to what changed before it.

    Args:
        limit: rows at most; a run beyond it is what the last row is compared with.
    """
    columns = [
        markup.Column(name="Outcome", kind="nowrap"),
        markup.Column(name="Commit", kind="wide"),
        markup.Column(name="Author", kind="nowrap"),
        markup.Column(name="Age", kind="nowrap"),
        markup.Column(name="What is wrong", kind="wide"),
        markup.Column(name="Worst gate", kind="nowrap"),
        markup.Column(name="Agree", kind="num", help="Sequences below the strict threshold"),
        markup.Column(name="Against the one before", kind="nowrap"),
    ]
    rows: list[list[Value]] = []
    for place, run in enumerate(runs[:limit]):
        before = runs[place + 1] if place + 1 < len(runs) else None
        rows.append(
            [
                markup.outcome_label(run),
                markup.commit_label(
                    run.commit.hash, shortened(run.commit.subject, 90), links.run_link(run)
                ),
                shortened(run.commit.author, 30) or UNKNOWN,
                markup.age(commit_date(run), now),
                failing_words(run, data.load_finding(run)),
                deciding_words(run),
                agreement(run.figures),
                markup.anchor(links.compare_link(before, run), "compare") if before else "",
            ]
        )
    return markup.table(columns, rows, caption=caption)
