"""The first picture of a series: a row for each commit, a cell for each gate. Pure: HTML out.

It is part of the page's own HTML: there before any script, read by screen readers, and readable on
a phone, where the cells of a commit become a strip below its words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from app import links, markup
from app.marks import MARKS
from app.markup import Html, Value
from app.text import UNKNOWN, format_value, html_text, one_line, shortened
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.analysis.trends import ChangeEvent
from virnucpro_monitor.records import Finding, GateResult, Outcome, Run
from virnucpro_monitor.report.words import (
    agreement,
    deciding_words,
    failing_words,
    flips_words,
    gate_ratio,
)

NEAR_LIMIT, NOTICEABLE = 0.5, 0.1  # shares of a limit
FAR_BEYOND = 10.0  # times a limit
MAX_DIFFERENCES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRow:
    """One commit.

    Attributes:
        before: the run of the commit before it, None where there is none.
        finding: what was recognised in it.
        flips: how often the verdict on its code changed in this set-up.
        change: what besides the code changed before it.
        outside: the commit's page at its repository's host.
    """

    run: Run
    before: Run | None = None
    finding: Finding | None = None
    flips: int = 0
    change: ChangeEvent | None = None
    outside: str | None = None


def gate_names(runs: Sequence[Run]) -> list[str]:
    """The gates of any of the runs, in the order of the newest; `runs` are newest first."""
    return list(dict.fromkeys(gate.name for run in runs for gate in run.gates))


def heat_table(rows: Sequence[HeatRow], now: datetime, *, caption: str) -> Html:
    """Commits x gates, the newest commit first."""
    gates = gate_names([row.run for row in rows])
    names = (
        ("Outcome", ""),
        ("Commit", "commit"),
        ("Author", "author"),
        ("Age", "age"),
    )
    head = "".join(f'<th scope="col" role="columnheader" class="{k}">{n}</th>' for n, k in names)
    head += "".join(
        f'<th scope="col" role="columnheader" class="gate"><span>{html_text(name, 24)}</span></th>'
        for name in gates
    )
    head += "".join(
        f'<th scope="col" role="columnheader" class="{kind}">{name}</th>'
        for name, kind in (
            ("What is wrong · worst gate · who agrees", "wrong"),
            (markup.spoken("Compare").code, "to"),
        )
    )
    body = "".join(_row(row, gates, now) for row in rows)
    return Html(
        f'<table role="table" class="vm-heat" aria-label="{html_text(caption)}">'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{body}</tbody></table>'
    )


def heat_legend() -> Html:
    """What the cells' colours and shapes say."""
    parts = (
        ("g0", "", "passed"),
        ("g1", "", f"above {NOTICEABLE:g} of its limit"),
        ("g2", "", f"above {NEAR_LIMIT:g}"),
        ("r1", "✖", "failed"),
        ("r2", "✖", f"above {FAR_BEYOND:g} x"),
        ("n", "–", "not judged"),  # noqa: RUF001
        ("i", "○", "inherited"),
    )
    shown = "".join(
        f'<span><span class="c {kind}" aria-hidden="true"><b>{sign}</b></span> {words}</span>'
        for kind, sign, words in parts
    )
    return Html(f'<div class="vm-legend">{shown}</div>')


def _row(row: HeatRow, gates: Sequence[str], now: datetime) -> str:
    run = row.run
    address = escape(links.run_link(run), quote=True)
    tone = "bad" if run.effective_outcome.is_bad else ""
    wrong = failing_words(run, row.finding)
    number = deciding_words(run)
    told = f'<span class="why">{html_text(wrong, 160)}</span> ' if wrong else ""
    facts = [number] if number != UNKNOWN else []
    if run.figures is not None:
        facts.append(f"{agreement(run.figures)} agree")
    if row.flips:
        facts.append(flips_words(row.flips))
    told += f'<span class="quiet">{html_text(" · ".join(facts))}</span>'
    cells = [
        ("", markup.outcome_label(run).code),
        ("commit", _commit(row).code),
        ("author", html_text(shortened(run.commit.author, 30) or "unknown author")),
        ("age", markup.age(commit_date(run), now).code),
    ]
    html = "".join(f'<td role="cell" class="{kind}">{text}</td>' for kind, text in cells)
    html += _gates(run, gates, address)
    compare: Value = ""
    if row.before is not None:
        compare = markup.anchor(links.compare_link(row.before, run), "compare")
    hint = html_text(" · ".join(part for part in (wrong, *facts) if part), 400)
    html += f'<td role="cell" class="wrong" title="{hint}">{told}</td>'
    html += f'<td role="cell" class="to">{markup.render(compare)}</td>'
    line = f'<tr role="row" class="{tone}">{html}</tr>'
    return line + (_change(row.change, len(gates) + 6) if row.change else "")


def _commit(row: HeatRow) -> Html:
    commit = row.run.commit
    name = markup.anchor(links.run_link(row.run), markup.mono(commit.short), title=commit.hash)
    parts: list[Value] = [name]
    if row.outside:
        arrow = Html('<span aria-hidden="true">↗</span>')
        text = Html(f'{arrow.code}<span class="sr">{commit.short} in its repository</span>')
        parts.append(markup.anchor(row.outside, text, outside=True))
    hint = html_text(commit.subject)
    parts.append(
        Html(f'<span title="{hint}">{markup.render(shortened(commit.subject, 90))}</span>')
    )
    return markup.join(parts)


def _gates(run: Run, gates: Sequence[str], address: str) -> str:
    """The cells of one run; one wide cell where it has no verdict on any gate."""
    if not gates:
        return ""
    if not run.gates:
        mark = MARKS[run.outcome]
        return (
            f'<td role="cell" class="none" colspan="{len(gates)}">'
            f'<a href="{address}" target="_self" tabindex="-1" style="--tone:{mark.colour}">'
            f"{mark.glyph} {html_text(mark.word)}: {mark.sentence}</a></td>"
        )
    results: Mapping[str, GateResult] = {gate.name: gate for gate in run.gates}
    inherited = run.outcome is Outcome.SKIPPED
    return "".join(_cell(name, results.get(name), address, inherited=inherited) for name in gates)


def _cell(name: str, gate: GateResult | None, address: str, *, inherited: bool) -> str:
    if gate is None:
        return '<td role="cell" class="gate"></td>'
    kind, sign = _look(gate)
    if inherited and gate.passed:
        kind, sign = "i", "○"
    words = gate_words(name, gate) + (", inherited" if inherited else "")
    return (
        f'<td role="cell" class="gate"><a class="c {kind}" href="{address}" target="_self" '
        f'tabindex="-1" aria-label="{html_text(words, 200)}"><b aria-hidden="true">{sign}</b>'
        "</a></td>"
    )


def gate_words(name: str, gate: GateResult) -> str:
    """ "seed failed: 0.993, limit 0.999 cosine": what a reader gets on a cell."""
    verdict = {True: "passed", False: "failed", None: "not judged"}[gate.passed]
    if gate.informs:
        verdict += f" (informs by {one_line(gate.informs, 120)})"
    if gate.value is None:
        return f"{name} {verdict}: {one_line(gate.detail, 120) or 'no value'}"
    limit = f", limit {format_value(gate.limit)}" if gate.limit is not None else ""
    return f"{name} {verdict}: {format_value(gate.value)}{limit} {gate.unit}".rstrip()


def _look(gate: GateResult) -> tuple[str, str]:
    ratio = gate_ratio(gate)
    if gate.passed is None:
        return "n", "–"  # noqa: RUF001
    if not gate.passed:
        return ("r2" if ratio is None or ratio > FAR_BEYOND else "r1"), "✖"
    if ratio is None or ratio < NOTICEABLE:
        return "g0", ""
    return ("g2" if ratio > NEAR_LIMIT else "g1"), ""


def _change(event: ChangeEvent, width: int) -> str:
    shown = "; ".join(one_line(str(one), 100) for one in event.differences[:MAX_DIFFERENCES])
    more = len(event.differences) - MAX_DIFFERENCES
    text = f"{event.kind} changed: {shown}{f' and {more} more' if more > 0 else ''}"
    return (
        f'<tr role="row" class="change"><td role="cell" colspan="{width}">'
        f'<span aria-hidden="true">◆</span> {html_text(text, 400)}</td></tr>'
    )


def heat_rows(
    runs: Sequence[Run],
    limit: int,
    *,
    finding: Callable[[Run], Finding | None],
    flips: Callable[[Run], int],
    events: Sequence[ChangeEvent],
    outside: Callable[[Run], str | None],
) -> list[HeatRow]:
    """The newest rows of one series.

    Args:
        runs: oldest commit first.
        limit: rows at most.
        events: their places count in `runs`.
    """
    changes = {event.place: event for event in events}
    places = range(len(runs) - 1, max(-1, len(runs) - 1 - limit), -1)
    return [
        HeatRow(
            run=runs[place],
            before=runs[place - 1] if place else None,
            finding=finding(runs[place]),
            flips=flips(runs[place]),
            change=changes.get(place),
            outside=outside(runs[place]),
        )
        for place in places
    ]
