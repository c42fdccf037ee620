"""Stretches of bad runs: since when, until when, who looks after them."""

from collections.abc import Callable, Sequence

import streamlit as st

from app import data, filters, links, markup, shell
from app.text import one_line
from app.views.incident import put_searches, show_incident
from app.views.incident_rows import STATES, incident_table
from app.views.ranges import NotARangeError, choose_range, put_beside
from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.report.sentences import cause_words, regressions_sentence

PAGE_ROWS = 50


def show(default_state: str = "current", default_span: str = "all") -> None:
    key = filters.parameter("incident")
    if key:
        show_incident(key)
        return
    shell.title("Incidents")
    if not data.load_series():
        shell.put(markup.nothing_yet(links.link("overview")))
        return
    try:
        _list_incidents(default_state, default_span)
    except NotARangeError:
        return
    put_searches("Bisections", data.load_bisections())


def _list_incidents(default_state: str, default_span: str) -> None:
    """One table with two filters, the state and the time; then what else moved in that time."""
    incidents = data.load_incidents()
    number = _numbers(incidents, default_span)
    present = {one.state for one in incidents}
    targets = {"": "All targets"} | {
        target.name: one_line(target.name, 60) for target in data.load_targets()
    }
    asked = filters.parameter("state")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        state = filters.choose(
            "Show",
            {
                "current": f"Current{number('current')}",
                **{
                    one.value: f"{STATES[one].word.capitalize()}{number(one.value)}"
                    for one in IncidentState
                    if one in present or one is IncidentState.FIXED or one == asked
                },
                "all": f"All{number('all')}",
            },
            "state",
            default=default_state,
            style="row",
        )
        target = filters.choose("Target", targets, "target", default="", width=170)
        ends = choose_range(target, default_span)
        words = filters.search("Find", "find", placeholder="benchmark, commit, cause", width=220)
    found = data.load_regressions(target, *ends) if ends is not None else None
    if found is not None:
        shell.put(markup.paragraph(regressions_sentence(found)))
        incidents = tuple(
            sorted(
                (*found.broken, *found.recovered, *found.fixed),
                key=lambda one: commit_date(one.first_bad),
            )
        )
    known = [one for one in incidents if target in ("", one.series.target)]
    _table(known, state, words, ranged=found is not None)
    if found is not None:
        put_beside(found)


def _numbers(incidents: Sequence[Incident], default_span: str) -> Callable[[str], str]:
    """What stands behind the name of a state: how many of the chosen target there are; nothing
    where the table below holds those of a range alone."""
    ends = any(map(filters.parameter, ("since", "until")))
    ranged = ends or (filters.parameter("span") or default_span) != "all"
    target = filters.parameter("target")
    known = [one for one in incidents if target in ("", one.series.target)]
    return lambda state: "" if ranged else f" ({sum(_is_wanted(one, state) for one in known)})"


def _table(incidents: Sequence[Incident], state: str, words: str, *, ranged: bool) -> None:
    shown = [
        incident
        for incident in reversed(incidents)
        if _is_wanted(incident, state) and _fits(incident, words)
    ]
    if not incidents and not ranged:
        shell.put(
            markup.empty(
                "No incident.", "Every stretch of bad runs will be listed here, fixed ones too."
            )
        )
        return
    if not shown:
        nothing = {"current": "Nothing is broken now.", "open": "Nothing is open."}
        shell.put(markup.empty(nothing.get(state, "No incident fits the filters.")))
        if state != "current" or words:
            return
        state, shown = "fixed", [one for one in reversed(incidents) if _is_wanted(one, "fixed")]
        if not shown:
            return
        shell.heading("Fixed before")
    everything = filters.parameter("rows") == "all"
    rows = shown if everything else shown[:PAGE_ROWS]
    shell.put(incident_table(rows, caption="Incidents"))
    if len(rows) < len(shown):
        kept = {name: filters.parameter(name) for name in ("target", "span", "since", "until")}
        address = links.link("incidents", state=state, find=words, rows="all", **kept)
        shell.put(
            markup.paragraph(
                f"{len(rows)} of {len(shown):,}, the newest first.",
                markup.anchor(address, "Show all"),
                kind="quiet",
            )
        )


def _is_wanted(incident: Incident, state: str) -> bool:
    if state == "all":
        return True
    if state == "current":
        return incident.state in (IncidentState.OPEN, IncidentState.ACKNOWLEDGED)
    return incident.state == state


def _fits(incident: Incident, words: str) -> bool:
    series = incident.series
    text = (
        f"{series.target} {series.benchmark} {incident.first_bad.commit.hash} "
        f"{incident.first_bad.commit.subject} {' '.join(incident.gates)} "
        f"{incident.first_bad.commit.author} {cause_words(incident)}"
    ).lower()
    return all(word in text for word in words.lower().split())
