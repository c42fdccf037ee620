"""How incidents are listed: one row each, the same wherever they stand."""

from collections.abc import Sequence

from app import links, markup, shell
from app.marks import AMBER, GREEN, GREY, VERMILION, Mark
from app.markup import Html, Value
from app.text import format_duration, shortened
from app.views.series_choice import series_words
from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.report.sentences import cause_words
from virnucpro_monitor.report.words import STATE_WORDS, deciding_words

STATES: dict[IncidentState, Mark] = {
    state: Mark(word=STATE_WORDS[state], sentence="", symbol=symbol, glyph=glyph, colour=colour)
    for state, symbol, glyph, colour in (
        (IncidentState.OPEN, "x", "✖", VERMILION),
        (IncidentState.ACKNOWLEDGED, "diamond", "◆", AMBER),
        (IncidentState.NOT_SEEN, "circle-open", "○", GREY),
        (IncidentState.REWRITTEN, "circle-open", "○", GREY),
        (IncidentState.FIXED, "circle", "●", GREEN),
    )
}


def incident_table(incidents: Sequence[Incident], *, caption: str) -> Html:
    """Incidents, each with a link to its own page."""
    columns = [
        markup.Column(name="State", kind="nowrap"),
        markup.Column(name="Cause", kind="words"),
        markup.Column(name="First bad commit", kind="wide"),
        markup.Column(name="Author", kind="nowrap"),
        markup.Column(name="Began", kind="nowrap", help="By the commit's date"),
        markup.Column(name="Lasted", kind="nowrap", help="By commit dates"),
        markup.Column(name="Fixed by", kind="nowrap"),
        markup.Column(name="Series", kind="wide"),
        markup.Column(name="Worst gate", help="In the worst of its runs"),
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
                    first.commit.hash, shortened(first.commit.subject, 70), links.run_link(first)
                ),
                shortened(first.commit.author, 24) or "unknown author",
                markup.when(commit_date(first), shell.reader_zone()),
                lasted(incident),
                _fixed_by(incident),
                series_words(incident.first_bad),
                deciding_words(incident.worst),
            ]
        )
    return markup.table(columns, rows, caption=caption)


def split_cause(incident: Incident) -> tuple[str, str]:
    """Side and cause in words: ("packed side", "rescale missing")."""
    words = cause_words(incident)
    side, comma, cause = words.partition(", ")
    return (side, cause) if comma else ("", words)


def _fixed_by(incident: Incident) -> Value:
    run = incident.fixed_by
    if run is None:
        return ""
    return markup.anchor(links.run_link(run), markup.mono(run.commit.short))


def lasted(incident: Incident) -> str:
    """From the first bad commit to the fix, or until now; where it is not seen any more, as long as
    it was."""
    known = format_duration(incident.duration.total_seconds())
    if incident.fixed_by is not None:
        return known
    if incident.state in (IncidentState.NOT_SEEN, IncidentState.REWRITTEN):
        return f"{known} at least" if incident.duration else "not known"
    age = shell.now() - commit_date(incident.first_bad)
    return f"{format_duration(age.total_seconds())}, still"
