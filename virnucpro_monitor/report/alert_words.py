"""The words of an alert: a summary of one line, the facts that are stored, and the message.

Plain text throughout; foreign text in it is made visible and cut.
"""

import string
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from virnucpro_monitor.analysis.change_points import ChangeKind
from virnucpro_monitor.analysis.happenings import WATCHED, Happening
from virnucpro_monitor.analysis.incidents import Cause, Incident
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.analysis.silence import Silence, SilenceReason
from virnucpro_monitor.monitor.alerting import Context
from virnucpro_monitor.records import (
    Alert,
    AlertKind,
    Commit,
    Json,
    Run,
    SequenceResult,
    error_of,
)
from virnucpro_monitor.report.sentences import (
    after_words,
    before_words,
    cause_words,
    movement_sentence,
    reproduce_command,
)
from virnucpro_monitor.report.text import (
    count,
    format_age,
    format_error,
    format_value,
    one_line,
)
from virnucpro_monitor.report.words import agreement

TITLE = "{target}: {verdict}"
TITLE_NAMES = ("target", "verdict", "kind", "commit", "author")
MAX_LISTED = 8
_LABELS = (
    ("cause", "cause"),
    ("side", "side"),
    ("first_bad", "first bad"),
    ("last_good", "last good"),
    ("mended_by", "mended by"),
    ("suspects", "suspects"),
    ("since", "since"),
    ("series", "series"),
    ("gates", "gates"),
    ("worst", "worst sequences"),
    ("figures", "figures"),
    ("changed", "changed"),
    ("notes", "note"),
)
_WIDTH = 17


def describe_happening(one: Happening, context: Context) -> tuple[str, dict[str, Json]]:
    """The summary and the facts of an alert."""
    if not one.told:
        noted = "looked at for the first time" if WATCHED in one.keys else "noted, not told"
        return noted, {}
    if one.silence is not None:
        facts = _silence_facts(one.silence, context)
    elif one.environment:
        facts = _environment_facts(one, context)
    elif one.movements:
        facts = _movement_facts(one, context)
    elif one.incidents:
        facts = _incident_facts(one, context)
    else:
        facts = _past_facts(one, context)
    facts = {name: value for name, value in facts.items() if value}
    return f"{one_line(one.target, 60)}: {facts['verdict']}", facts


def _incident_facts(one: Happening, context: Context) -> dict[str, Json]:
    first = one.incidents[0]
    bad, fixed = first.first_bad, first.fixed_by
    lost = first.cause is Cause.NOT_RUNNABLE
    since = f"{bad.commit.short} “{one_line(bad.commit.subject, 60)}”"
    if one.kind is AlertKind.BROKEN:
        words = "cannot be run" if lost else "broken"
        verdict = f"{'still ' if one.reason else ''}{words} since {since}"
    elif fixed is not None:
        verdict = f"mended by {fixed.commit.short}{after_words(first)}: {cause_words(first)}"
    else:
        verdict = f"over, {bad.commit.short} has left the branch: {cause_words(first)}"
    over = one.kind is AlertKind.MENDED
    return {
        "verdict": verdict,
        "cause": [cause_words(incident) for incident in _by_words(one.incidents)],
        "first_bad": _commit_words(bad.commit),
        "last_good": _before(first),
        "mended_by": _commit_words(fixed.commit) if fixed else "",
        "suspects": f"one of {first.num_suspects:,} commits is to blame"
        if first.num_suspects and first.num_suspects > 1
        else "",
        "series": _series_words([incident.first_bad for incident in one.incidents]),
        "gates": [] if over else _gate_lines(bad),
        "worst": [] if over or lost else _worst_lines(first.worst, context),
        "notes": [
            *([one.reason] if one.reason else []),
            *([one_line(bad.reason, 300)] if lost and not over else []),
            *first.caveats,
        ],
        "link": _link(context, "incidents", incident=first.key),
        "command": "" if over else _command(bad, context),
        "look": f"virnucpro-monitor runs show {bad.id} {context.db_option}".rstrip()
        if bad.id is not None and not over
        else "",
        "commit": (fixed or bad).commit.short,
        "author": one_line((fixed or bad).commit.author, 60),
    }


def _by_words(incidents: Sequence[Incident]) -> list[Incident]:
    return list({cause_words(one): one for one in incidents}.values())


def _past_facts(one: Happening, context: Context) -> dict[str, Json]:
    """What was told of and is no longer found."""
    past = one.past
    facts = dict(past.facts) if past else {}
    if one.kind is AlertKind.HEARD:
        since = format_age(past.created_at, context.now) if past else ""
        return {
            "verdict": "the runner is heard of again",
            "since": f"it was missed {since}",
            "link": _link(context, "health"),
        }
    return {
        "verdict": f"over, it passes when measured again: {_first(facts.get('cause'))}",
        "cause": facts.get("cause", ""),
        "first_bad": facts.get("first_bad", ""),
        "notes": ["It may be a flaky target: the same commit failed before."],
        "link": _link(context, "overview", target=one.target),
        "commit": facts.get("commit", ""),
        "author": facts.get("author", ""),
    }


def _movement_facts(one: Happening, context: Context) -> dict[str, Json]:
    first = min(one.movements, key=lambda moved: commit_date(moved.movement.run))
    commit = first.movement.run.commit
    is_speed = first.movement.figure.is_speed
    what = "slower" if is_speed else "less accurate, no gate fails,"
    drifts = first.movement.kind is ChangeKind.DRIFT
    since = "since about" if drifts else "since"
    return {
        "verdict": f"{'slowly ' if drifts else ''}{what} {since} {commit.short} "
        f"“{one_line(commit.subject, 60)}”",
        "first_bad": _commit_words(commit),
        "figures": _listed([movement_sentence(moved.movement) for moved in one.movements]),
        "series": _series_words([moved.movement.run for moved in one.movements]),
        "link": _link(context, "run", run=first.movement.run.id),
        "command": _command(first.movement.run, context),
        "commit": commit.short,
        "author": one_line(commit.author, 60),
    }


def _environment_facts(one: Happening, context: Context) -> dict[str, Json]:
    first = one.environment[0]
    changed = [str(difference) for difference in first.differences]
    return {
        "verdict": f"results moved with the environment ({one_line(changed[0], 120)})",
        "changed": _listed([one_line(text, 200) for text in changed]),
        "figures": _listed(
            [
                f"{move.figure.value}: {format_error(move.old)} → {format_error(move.new)}"
                for move in one.environment
            ]
        ),
        "first_bad": "",
        "since": f"first measured in it: {_commit_words(first.after.commit)}",
        "series": _series_words([move.after for move in one.environment]),
        "notes": ["The code is not to blame: the commits on both sides pass."],
        "link": _link(context, "run", run=first.after.id),
        "command": _command(first.after, context),
        "commit": first.after.commit.short,
        "author": one_line(first.after.commit.author, 60),
    }


def _silence_facts(silence: Silence, context: Context) -> dict[str, Json]:
    since = f"{silence.since:%Y-%m-%d %H:%M} UTC"
    if silence.reason is SilenceReason.UNHEARD:
        verdict = f"nothing heard of the runner since {since}"
        note = "It has given no result and no start of it has ended well since then."
    elif silence.reason is SilenceReason.BEHIND:
        verdict = f"{count(silence.commits_behind or 0, 'commit')} wait to be measured"
        note = f"Its last sign of life is of {since}."
    else:
        verdict = f"the newest result is dated {since}, which lies in the future"
        note = "A clock went back or was wrong: until it is right nobody can tell a dead runner."
    target = context.target.name
    return {
        "verdict": verdict,
        "since": since,
        "notes": [note],
        "link": _link(context, "health"),
        "command": f"virnucpro-monitor status --target {target} {context.db_option}".rstrip(),
    }


def _before(incident: Incident) -> str:
    """The last good commit, and where another cause had broken it already, that it was so."""
    good = incident.last_good
    if good is None:
        return "none is known"
    words = before_words(incident)
    return _commit_words(good.commit) + ("" if words == "last good" else f" ({words})")


def _commit_words(commit: Commit) -> str:
    author = one_line(commit.author, 60)
    return f"{commit.hash} “{one_line(commit.subject, 100)}”{f' by {author}' if author else ''}"


def _series_words(runs: Sequence[Run]) -> list[str]:
    words = (
        f"{run.benchmark_label}, {run.configuration.model}, {run.configuration.dtype}, "
        f"{run.configuration.device}"
        for run in runs
    )
    return _listed(list(dict.fromkeys(one_line(text, 160) for text in words)))


def _gate_lines(run: Run) -> list[str]:
    return _listed(
        [
            f"{gate.name} {format_value(gate.value)}, limit {format_value(gate.limit, gate.unit)}"
            + (f": {one_line(gate.detail, 160)}" if gate.detail else "")
            for gate in run.gates
            if gate.fails
        ]
    )


def _worst_lines(run: Run, context: Context) -> list[str]:
    """The worst sequences; in words where none of them is bad, and a probe alone saw the fault."""
    figures = run.figures
    if figures is None or figures.num_strict < figures.num_sequences:
        return [_sequence_line(result) for result in context.worst]
    return [f"none disagrees: {agreement(figures)} agree, and the gates above say what does not"]


def _sequence_line(result: SequenceResult) -> str:
    error = error_of(result.similarity)
    words = str(result.status) if error is None else f"1 - cos {format_error(error)}"
    return f"{one_line(result.sequence_id, 80)}: {words}, {count(result.length, 'residue')}"


def _listed(lines: list[str]) -> list[str]:
    more = len(lines) - MAX_LISTED
    return lines if more <= 0 else [*lines[:MAX_LISTED], f"and {more} more"]


def _command(run: Run, context: Context) -> str:
    return f"{reproduce_command(run, context.target)} {context.db_option}".rstrip()


def _link(context: Context, page: str, **parameters: str | int | None) -> str:
    if not context.file.dashboard:
        return ""
    path = "" if page == "overview" else page
    given = {name: str(value) for name, value in parameters.items() if value is not None}
    query = f"?{urlencode(given, quote_via=quote)}" if given else ""
    return f"{context.file.dashboard}/{path}{query}"


def _first(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else str(value or "")


def unknown_names(template: str) -> list[str]:
    """Names in a title's template that it cannot have; a template that is none gives itself."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        return [template]
    return [name for name in names if name not in TITLE_NAMES]


def message_title(alerts: Sequence[Alert], template: str = "") -> str:
    """The first line of a message; a template that cannot be filled gives way to the usual one."""
    if len(alerts) > 1:
        targets = ", ".join(sorted({one_line(alert.target, 40) for alert in alerts}))
        return f"{count(len(alerts), 'alert')}: {targets}"
    alert = alerts[0]
    values = {name: _first(alert.facts.get(name)) for name in TITLE_NAMES}
    values |= {"target": one_line(alert.target, 60), "kind": alert.kind.value}
    chosen = TITLE if not template or unknown_names(template) else template
    return one_line(chosen.format(**values), 200)


def message_body(alerts: Sequence[Alert]) -> str:
    """What a person needs to act, as plain text."""
    if len(alerts) == 1:
        return _alert_text(alerts[0].facts)
    contents = [f"{number}. {alert.summary}" for number, alert in enumerate(alerts, 1)]
    parts = [
        f"{number}. {alert.summary} ({alert.created_at:%Y-%m-%d %H:%M} UTC)\n\n"
        + _alert_text(alert.facts)
        for number, alert in enumerate(alerts, 1)
    ]
    return "\n".join(contents) + "\n\n" + "\n\n".join(parts)


def _alert_text(facts: Mapping[str, Json]) -> str:
    lines = [_sentence(str(facts.get("verdict", "")))]
    for name, label in _LABELS:
        value = facts.get(name)
        values = value if isinstance(value, list) else [value] if value else []
        for place, one in enumerate(values):
            lines.append(f"{label if place == 0 else '':{_WIDTH}}{one}")
    for name, label in (("link", "Look at it:"), ("command", "Run it again:"), ("look", "Then:")):
        if facts.get(name):
            lines += ["", label, str(facts[name])]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def trial_facts() -> dict[str, Json]:
    """What a trial message says."""
    return {
        "verdict": "this is a trial of this channel",
        "notes": ["Tokens such as <mask> and signs such as _ * # & stay as they are."],
    }
