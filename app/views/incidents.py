"""Stretches of bad runs: since when, until when, who looks after them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import streamlit as st

from app import data, filters, links, login, markup, shell
from app.marks import AMBER, GREEN, GREY, VERMILION, Mark
from app.markup import Html, Value
from app.text import format_count, format_duration, format_error, one_line, shortened
from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.monitor.questions import searches_of
from virnucpro_monitor.records import Acknowledgement, Bisection, BisectStep, short_hash
from virnucpro_monitor.report.sentences import cause_words, incident_sentence

STATES: dict[IncidentState, Mark] = {
    IncidentState.OPEN: Mark(word="open", sentence="", symbol="x", glyph="✖", colour=VERMILION),
    IncidentState.ACKNOWLEDGED: Mark(
        word="acknowledged", sentence="", symbol="diamond", glyph="◆", colour=AMBER
    ),
    IncidentState.NOT_SEEN: Mark(
        word="not seen since", sentence="", symbol="circle-open", glyph="○", colour=GREY
    ),
    IncidentState.REWRITTEN: Mark(
        word="rewritten away", sentence="", symbol="circle-open", glyph="○", colour=GREY
    ),
    IncidentState.FIXED: Mark(word="fixed", sentence="", symbol="circle", glyph="●", colour=GREEN),
}
PAGE_ROWS = 50
EXPIRIES = {"7": "In a week", "30": "In a month", "90": "In three months", "0": "Never"}


def show() -> None:
    key = filters.parameter("incident")
    if key:
        _show_one(key)
        return
    shell.title("Incidents")
    _list_incidents()
    _searches("Bisections", data.load_bisections())


def _list_incidents() -> None:
    incidents = data.load_incidents()
    if not incidents:
        shell.put(
            markup.empty(
                "No incident.", "Every stretch of bad runs will be listed here, fixed ones too."
            )
        )
        return
    current = sum(_is_wanted(incident, "current") for incident in incidents)
    count = {state: sum(i.state is state for i in incidents) for state in IncidentState}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        state = filters.choose(
            "Show",
            {
                "current": f"Not fixed ({current})",
                "open": f"Open ({count[IncidentState.OPEN]})",
                "acknowledged": f"Acknowledged ({count[IncidentState.ACKNOWLEDGED]})",
                "not_seen": f"Not seen since ({count[IncidentState.NOT_SEEN]})",
                "rewritten": f"Rewritten away ({count[IncidentState.REWRITTEN]})",
                "fixed": f"Fixed ({count[IncidentState.FIXED]})",
                "all": f"All ({len(incidents)})",
            },
            "state",
            default="current",
            style="row",
        )
        words = filters.search("Find", "find", placeholder="target, benchmark, commit", width=260)
    shown = [
        incident
        for incident in reversed(incidents)
        if _is_wanted(incident, state) and _fits(incident, words)
    ]
    if not shown:
        nothing = {"current": "Nothing is broken now.", "open": "Nothing is open."}
        shell.put(markup.empty(nothing.get(state, "No incident fits the filters.")))
        if state != "current" or words:
            return
        shell.heading("Mended before")
        state, shown = "fixed", [one for one in reversed(incidents) if _is_wanted(one, "fixed")]
    everything = filters.parameter("rows") == "all"
    rows = shown if everything else shown[:PAGE_ROWS]
    shell.put(incident_table(rows, caption="Incidents"))
    if len(rows) < len(shown):
        address = links.link("incidents", state=state, find=words, rows="all")
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
        f"{' '.join(incident.names)} {incident.cause}"
    ).lower()
    return all(word in text for word in words.lower().split())


def incident_table(incidents: Sequence[Incident], *, caption: str) -> Html:
    """Incidents, each with a link to its own page."""
    columns = [
        markup.Column(name="State", kind="nowrap"),
        markup.Column(name="What", kind="wide"),
        markup.Column(name="First bad commit", kind="wide"),
        markup.Column(name="Author", kind="nowrap"),
        markup.Column(name="Fixed by", kind="nowrap"),
        markup.Column(name="Series", kind="wide"),
        markup.Column(name="Began", kind="nowrap", help="By the commit's date"),
        markup.Column(name="Lasted", kind="num"),
        markup.Column(name="Worst 1 - cos", kind="num"),
    ]
    rows: list[list[Value]] = []
    for incident in incidents:
        first = incident.first_bad
        rows.append(
            [
                markup.mark_label(STATES[incident.state]),
                markup.anchor(
                    links.link("incidents", incident=incident.key), cause_words(incident)
                ),
                markup.commit_label(
                    first.commit.hash, shortened(first.commit.subject, 80), links.run_link(first)
                ),
                shortened(first.commit.author, 30),
                _fixed_by(incident),
                _series(incident),
                markup.when(commit_date(first), shell.reader_zone()),
                _lasted(incident),
                "not finite" if incident.lacks_values else format_error(incident.worst_error),
            ]
        )
    return markup.table(columns, rows, caption=caption)


def _fixed_by(incident: Incident) -> Value:
    run = incident.fixed_by
    if run is None:
        return ""
    return markup.anchor(links.run_link(run), markup.mono(run.commit.short))


def _lasted(incident: Incident) -> str:
    """From the first bad commit to the fix, or until now."""
    if incident.fixed_by is not None:
        return format_duration(incident.duration.total_seconds())
    age = shell.now() - commit_date(incident.first_bad)
    return f"{format_duration(age.total_seconds())}, still"


def _series(incident: Incident) -> str:
    series = incident.series
    configuration = incident.first_bad.configuration
    return (
        f"{one_line(series.target, 60)} · {one_line(series.benchmark, 40)} · "
        f"{configuration.model} {configuration.dtype}"
    )


def _show_one(key: str) -> None:
    incidents = data.load_incidents()
    incident = next((i for i in incidents if i.key == key), None)
    if incident is None:
        shell.title("Incident not found")
        shell.put(
            markup.empty(
                f"There is no incident {one_line(key, 40)!r}.",
                "Incidents follow from the runs: it is gone if its runs are.",
                markup.anchor(links.link("incidents"), "All incidents"),
            )
        )
        return
    shell.title(f"Incident {incident.key}")
    mark = STATES[incident.state]
    lines: list[Value] = [incident_sentence(incident), _series(incident)]
    if incident.reopened_because:
        lines.append(f"Open again: {incident.reopened_because}")
    lines += [one_line(caveat, 600) for caveat in incident.caveats]
    shell.put(
        markup.banner(
            markup.join([markup.mark_label(mark), f"— {cause_words(incident)}"]),
            *lines,
            colour=mark.colour,
        )
    )
    _place_in_history(incident)
    _together(incident, incidents)
    _searches("Searches that tried it", searches_of(data.load_bisections(), incident))
    _acknowledgement(incident)


def _place_in_history(incident: Incident) -> None:
    first, good, fixed = incident.first_bad, incident.last_good, incident.fixed_by
    runs = [
        ("Last good", good),
        ("First bad", first),
        ("Last bad", incident.last_bad),
        ("Fixed by", fixed),
    ]
    facts: list[tuple[str, Value]] = [
        (
            name,
            markup.join(
                [
                    markup.outcome_label(run),
                    markup.commit_label(
                        run.commit.hash, shortened(run.commit.subject, 100), links.run_link(run)
                    ),
                    markup.quiet(markup.when(commit_date(run), shell.reader_zone())),
                ]
            ),
        )
        for name, run in runs
        if run is not None
    ]
    facts += [
        (
            "Lasted",
            f"{_lasted(incident)}, by commit dates; {format_count(incident.num_bad_runs, 'run')}",
        ),
        (
            "To blame",
            UNKNOWN_SUSPECTS
            if incident.num_suspects is None
            else f"one of {format_count(incident.num_suspects, 'commit')}"
            if incident.num_suspects > 1
            else "the first bad commit",
        ),
        ("Looks like", one_line(incident.finding, 400) or "nothing known"),
        ("Gates", ", ".join(one_line(gate, 40) for gate in incident.gates) or "none named"),
        (
            "Worst 1 - cos",
            "not finite" if incident.lacks_values else format_error(incident.worst_error),
        ),
        ("Reason", one_line(first.reason, 600)),
    ]
    shell.put(markup.facts(facts))
    steps: list[Value] = []
    if good is not None:
        steps.append(
            markup.anchor(
                links.compare_link(good, first),
                f"compare {good.commit.short} with {first.commit.short}",
            )
        )
    if fixed is not None:
        steps.append(
            markup.anchor(links.compare_link(incident.last_bad, fixed), "compare with its fix")
        )
    steps.append(
        markup.anchor(links.link("overview", **links.series_parameters(first)), "this series")
    )
    shell.put(markup.paragraph(*steps, kind="vm-steps"))


UNKNOWN_SUSPECTS = "not known: no good run lies before it, or the history's order is not known"


def _together(incident: Incident, incidents: Sequence[Incident]) -> None:
    others = [other for other in incidents if other.key in incident.grouped_with]
    if others:
        shell.heading("Begun by the same commit")
        shell.put(incident_table(others, caption="Incidents begun by the same commit"))


def _searches(title: str, bisections: Sequence[Bisection]) -> None:
    """Searches for a first bad commit, the latest first; nothing where there is none."""
    if not bisections:
        return
    shell.heading(title)
    columns = [
        markup.Column(name="State", kind="nowrap"),
        markup.Column(name="First bad commit", kind="wide"),
        markup.Column(name="Good", kind="nowrap"),
        markup.Column(name="Bad", kind="nowrap"),
        markup.Column(name="Target", kind="wide"),
        markup.Column(name="Commits tried", kind="wide"),
        markup.Column(name="Started", kind="nowrap"),
    ]
    rows: list[list[Value]] = [
        [
            one.state,
            _found_by(one),
            markup.mono(short_hash(one.good)),
            markup.mono(short_hash(one.bad)),
            f"{one_line(one.target, 60)} · {one_line(one.benchmark, 40)}"
            + (f" · gate {one_line(one.gate, 40)}" if one.gate else ""),
            markup.join([_step(step) for step in one.steps], ", "),
            markup.when(one.started_at, shell.reader_zone()),
        ]
        for one in list(reversed(bisections))[:PAGE_ROWS]
    ]
    shell.put(markup.table(columns, rows, caption=title))


def _found_by(one: Bisection) -> Value:
    if one.first_bad is None:
        return one_line(one.conclusion.partition("\n")[0], 200) or "not known yet"
    address = links.link("compare", base=one.good, head=one.first_bad, target=one.target)
    return markup.anchor(address, markup.mono(short_hash(one.first_bad)))


def _step(step: BisectStep) -> Value:
    name = markup.mono(short_hash(step.commit))
    if step.run_id is not None:
        name = markup.anchor(links.link("run", run=step.run_id), name)
    return markup.join([name, step.verdict])


def _acknowledgement(incident: Incident) -> None:
    shell.heading("Acknowledgement")
    note = incident.acknowledgement
    if note is not None:
        zone = shell.reader_zone()
        shell.put(
            markup.facts(
                [
                    ("by", one_line(note.who, 100)),
                    ("on", markup.when(note.created_at, zone)),
                    ("why", one_line(note.why, 1000)),
                    (
                        "covers",
                        "every incident of the target that the same commit began"
                        if note.scope == incident.series.target
                        else one_line(note.scope, 200) or "this incident",
                    ),
                    ("until", markup.when(note.expires_at, zone) if note.expires_at else "fixed"),
                    ("reopens above", format_error(note.reopen_if_worse_than)),
                ]
            )
        )
    else:
        fixed = incident.state is IncidentState.FIXED
        nobody = "Nobody acknowledged it before it was fixed." if fixed else "Not acknowledged yet."
        shell.put(markup.paragraph(nobody, kind="quiet"))
        if fixed:
            return
    if not data.may_acknowledge():
        shell.put(
            markup.paragraph(
                "This dashboard is read-only. Acknowledge on the command line: "
                f"virnucpro-monitor incidents ack {incident.key} --why …",
                kind="quiet",
            )
        )
        return
    if incident.state is IncidentState.ACKNOWLEDGED:
        who = login.user_name() or st.text_input("Your name", key="reopen-who", max_chars=100)
        if st.button("Reopen", key="reopen", disabled=not who):
            data.reopen(incident, who)
            st.rerun()
    elif incident.state is IncidentState.OPEN:
        _form(incident)


def _form(incident: Incident) -> None:
    with st.form("acknowledge", border=True):
        user = login.user_name()
        who = st.text_input("Who", value=user, disabled=bool(user), max_chars=100)
        why = st.text_area("Why it may stay as it is for now", max_chars=2000)
        group = st.checkbox(
            "Also cover the other incidents that the same commit began",
            disabled=not incident.grouped_with,
        )
        days = st.selectbox("Until", list(EXPIRIES), index=1, format_func=EXPIRIES.__getitem__)
        limit = st.text_input("Reopen if the worst 1 - cos exceeds", placeholder="such as 1e-2")
        if not st.form_submit_button("Acknowledge", type="primary"):
            return
    try:
        note = make_acknowledgement(
            incident,
            who=user or who,
            why=why,
            group=group,
            days=int(days),
            limit=limit,
            now=datetime.now(UTC),
        )
    except ValueError as error:
        shell.put(markup.note(str(error)))
        return
    data.acknowledge(note)
    st.rerun()


def make_acknowledgement(
    incident: Incident,
    *,
    who: str,
    why: str,
    group: bool,
    days: int,
    limit: str,
    now: datetime,
) -> Acknowledgement:
    """The record of a filled-in form.

    Raises:
        ValueError: something is missing or is not a number; its text is a sentence.
    """
    if not who.strip():
        raise ValueError("Say who you are: an acknowledgement is somebody's.")
    if not why.strip():
        raise ValueError("Say why: without a reason nobody can judge it later.")
    worse_than = None
    if limit.strip():
        try:
            worse_than = float(limit)
        except ValueError as error:
            raise ValueError(f"{one_line(limit, 40)!r} is not a number such as 1e-2.") from error
        if not 0 < worse_than <= 2:
            raise ValueError("An error 1 - cos lies between 0 and 2.")
    return Acknowledgement(
        incident=incident.key,
        who=who.strip(),
        why=why.strip(),
        scope=incident.series.target if group else "",
        created_at=now,
        expires_at=now + timedelta(days=days) if days else None,
        reopen_if_worse_than=worse_than,
    )
