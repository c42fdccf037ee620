"""What broke last: a card for each cause, with commit, author, side, sequences and what to do."""

from collections.abc import Sequence
from datetime import datetime

from app import data, links, markup, shell
from app.marks import GREEN, MARKS
from app.markup import Html, Value
from app.text import format_count, format_duration, html_text, one_line, shortened
from virnucpro_monitor.analysis.incidents import Cause, Incident, IncidentState
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.records import Outcome, Run
from virnucpro_monitor.report.sentences import before_words, cause_words
from virnucpro_monitor.report.words import STATE_WORDS, deciding_words

MAX_CAUSES = 4
MAX_FIXED = 2
MAX_NAMED = 6


def put_broken(series: Sequence[data.SeriesCard], selected: data.SeriesCard, now: datetime) -> None:
    """Open causes over all series, the newest first; without any, the last fixed ones."""
    groups = _causes(series)
    title = "Broken now, the newest first"
    if not groups:
        fixed = [one for one in data.load_incidents_of(selected) if one.fixed_by is not None]
        if not fixed:
            return
        newest = sorted(fixed, key=lambda one: commit_date(one.first_bad), reverse=True)
        groups = [[one] for one in newest[:MAX_FIXED]]
        title = "Broke last and was fixed, the newest first"
    shown = "".join(_cause(group, now).code for group in groups[:MAX_CAUSES])
    more = ""
    if len(groups) > MAX_CAUSES:
        more = markup.paragraph(
            f"{len(groups) - MAX_CAUSES} more:",
            markup.anchor(links.link("incidents"), "all incidents"),
            kind="quiet",
        ).code
    shell.put(
        markup.paragraph(title, kind="quiet"),
        Html(f'<section aria-label="{title}" class="vm-causes">{shown}</section>{more}'),
    )


def _causes(series: Sequence[data.SeriesCard]) -> list[list[Incident]]:
    """Incidents that are not fixed, those of one commit and one cause together."""
    groups: dict[tuple[str, str, str], list[Incident]] = {}
    for card in series:
        for one in card.incidents:
            if one.state is IncidentState.REWRITTEN:
                continue  # its commit is no longer in the branch's history
            key = (one.series.target, one.first_bad.commit.hash, cause_words(one))
            groups.setdefault(key, []).append(one)
    return sorted(
        groups.values(),
        key=lambda group: (
            group[0].state is not IncidentState.NOT_SEEN,
            commit_date(group[0].first_bad),
        ),
        reverse=True,
    )


def _cause(group: Sequence[Incident], now: datetime) -> Html:
    incident = group[0]
    first, good, fixed = incident.first_bad, incident.last_good, incident.fixed_by
    outcome = Outcome.ERROR if incident.cause is Cause.NOT_RUNNABLE else Outcome.FAILED
    tone = GREEN if fixed is not None else MARKS[outcome].colour
    rows: list[tuple[str, Value]] = [
        (
            "since" if fixed is None else "broke",
            markup.join(
                [
                    markup.commit_label(
                        first.commit.hash,
                        shortened(first.commit.subject, 90),
                        links.run_link(first),
                    ),
                    markup.quiet("·"),
                    one_line(first.commit.author, 60) or "unknown author",
                    markup.quiet("·"),
                    markup.age(commit_date(first), now),
                    markup.quiet(markup.when(commit_date(first), shell.reader_zone())),
                ]
            ),
        ),
        ("where", _where(group)),
    ]
    if incident.num_suspects is not None and incident.num_suspects > 1:
        rows.append(("suspects", suspects_words(incident)))
    if incident.cause is Cause.NOT_RUNNABLE:
        rows.append(("reason", reason_words(first, 160)))
    rows.append(("sequences", sequences_words(incident)))
    if fixed is not None:
        rows.append(("fixed", _fixed(incident, now)))
    facts = "".join(f"<dt>{name}</dt><dd>{markup.render(value)}</dd>" for name, value in rows)
    steps: list[Value] = [markup.anchor(links.link("incidents", incident=incident.key), "incident")]
    if good is not None:
        steps.append(
            markup.anchor(
                links.compare_link(good, first),
                f"compare with {before_words(incident)}, {good.commit.short}",
            )
        )
        outside = data.diff_address(first.target, good.commit.hash, first.commit.hash)
        if outside:
            steps.append(markup.anchor(outside, "changes in the repository ↗", outside=True))
    state = "" if incident.state is IncidentState.OPEN else f"· {_state(incident)}"
    return Html(
        f'<article class="vm-cause" style="--tone:{tone}">'
        f'<div class="title">{html_text(cause_words(incident).capitalize(), 200)}'
        f' <span class="quiet">{html_text(state)}</span></div><dl>{facts}</dl>'
        f'<div class="vm-steps">{markup.join(steps, " ").code}</div></article>'
    )


def _state(incident: Incident) -> str:
    if incident.state is IncidentState.NOT_SEEN:
        return f"not measured since {incident.last_bad.commit.short}"
    if incident.acknowledgement and incident.state is IncidentState.ACKNOWLEDGED:
        return f"acknowledged by {one_line(incident.acknowledgement.who, 40)}"
    return STATE_WORDS[incident.state]


def _where(group: Sequence[Incident]) -> str:
    first = group[0]
    setups = list(
        dict.fromkeys(
            f"{one.first_bad.benchmark_label} {one.first_bad.configuration.dtype}" for one in group
        )
    )
    named = ", ".join(setups[:MAX_NAMED])
    return f"{one_line(first.series.target, 60)}: {named}" + (
        f" and {len(setups) - MAX_NAMED} more" if len(setups) > MAX_NAMED else ""
    )


def _fixed(incident: Incident, now: datetime) -> Value:
    fixed = incident.fixed_by
    if fixed is None:
        return ""
    return markup.join(
        [
            "by",
            markup.commit_label(
                fixed.commit.hash, shortened(fixed.commit.subject, 70), links.run_link(fixed)
            ),
            markup.quiet("·"),
            one_line(fixed.commit.author, 60) or "unknown author",
            markup.quiet("·"),
            markup.age(commit_date(fixed), now),
            markup.quiet(f"after {format_duration(incident.duration.total_seconds())}"),
        ]
    )


def suspects_words(incident: Incident) -> str:
    """ "one of 3 commits after 7d77f6313d: those between were not judged"."""
    if incident.num_suspects is None:
        return "not known: no good run lies before it, or the history's order is not known"
    if incident.num_suspects <= 1:
        return f"{incident.first_bad.commit.short} alone: the commit before it is good"
    after = f" after {incident.last_good.commit.short}" if incident.last_good else ""
    number = format_count(incident.num_suspects, "commit")
    return f"one of {number}{after}; those between were not judged"


def reason_words(run: Run, limit: int = 600) -> Html:
    """Why a run ended as it did, ids set as code."""
    return markup.with_ids(one_line(run.reason, limit), data.load_sequence_ids(run.benchmark_label))


def sequences_words(incident: Incident) -> Value:
    """Which sequences fail in the first bad run: how many, which group, their names."""
    run = incident.first_bad
    figures = run.figures
    if figures is None:
        return "none measured, no side judged"
    group = data.load_group(run)
    names = data.load_failing_ids(run, MAX_NAMED)
    bad = figures.num_sequences - figures.num_strict
    if not bad:
        struck = f"; it strikes {group}" if group else ""
        return f"all {figures.num_sequences:,} agree; {deciding_words(run)}{struck}"
    text = f"{bad:,} of {figures.num_sequences:,}"
    if group:
        text += f", {group}"
    listed = markup.join([markup.mono(one_line(name, 40)) for name in names], ", ")
    more = bad - len(names)
    return markup.join([f"{text}:", listed, *([f"and {more:,} more"] if more > 0 else [])])
