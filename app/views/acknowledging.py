"""Who looks after an incident: shown, given and withdrawn."""

from datetime import UTC, datetime, timedelta

import streamlit as st

from app import data, login, markup, shell
from app.text import format_error, one_line
from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.records import Acknowledgement

EXPIRIES = {"7": "In a week", "30": "In a month", "90": "In three months", "0": "Never"}


def put_acknowledgement(incident: Incident) -> None:
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
