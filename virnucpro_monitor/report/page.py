"""Comparisons as one HTML file that needs nothing else: no script, no network, light and dark."""

import math
from collections.abc import Iterable, Sequence

from virnucpro_monitor.analysis.comparison import (
    MARK_MEANINGS,
    Comparison,
    Mark,
    SequenceChange,
)
from virnucpro_monitor.analysis.series import ERROR_FLOOR
from virnucpro_monitor.records import Run, SequenceResult, error_of
from virnucpro_monitor.report.markdown import QUIET, biggest_first
from virnucpro_monitor.report.sentences import comparison_sentence, verdict_sentence
from virnucpro_monitor.report.text import (
    UNKNOWN,
    format_error,
    format_share,
    format_value,
    html_text,
)
from virnucpro_monitor.report.words import LEVEL_WORDS

LISTED = 500
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2230; --page: #fff; --quiet: #5b6476; --line: #d5d9e2;
  --bad: #b3261e; --good: #1b6e3c; --warn: #8a5a00; --mild: #f3f5f9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9f0; --page: #12151c; --quiet: #a3abbd;
  --line: #343b4a; --bad: #ff8a80; --good: #7ddc9c; --warn: #ffc766; --mild: #1b202b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
code { font: 0.92em ui-monospace, monospace; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; }
table { border-collapse: collapse; width: 100%; margin: 0.75rem 0; }
th, td { text-align: left; padding: 0.3rem 0.6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
td { min-width: 6ch; max-width: 60ch; } td:first-child { min-width: 2ch; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; } .quiet { color: var(--quiet); }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); }
.caution { border-left: 4px solid var(--warn); background: var(--mild); padding: 0.5rem 0.8rem; }
svg { max-width: 34rem; width: 100%; height: auto; } svg text { fill: var(--quiet);
  font: 11px system-ui, sans-serif; } svg line { stroke: var(--line); }
svg .same { fill: none; stroke: var(--quiet); } svg .diagonal { stroke: var(--quiet); }
svg .worse { fill: var(--bad); } svg .better { fill: var(--good); }
"""
_MARK_CLASS = {
    Mark.NEWLY_FAILING: "bad",
    Mark.WORSE: "bad",
    Mark.CLOSER_BUT_FURTHER: "bad",
    Mark.NEWLY_FIXED: "good",
    Mark.BETTER: "good",
}


def comparisons_html(comparisons: Sequence[Comparison]) -> str:
    """One page with a section for each comparison.

    Raises:
        ValueError: there is none.
    """
    if not comparisons:
        raise ValueError("There is no comparison to write.")
    first = comparisons[0]
    hashes = [side.run.commit.short for side in (first.base, first.head)]
    title = f"{first.head.run.target}: {hashes[0]} → {hashes[1]}"
    return page_html(title, [comparison_section(comparison) for comparison in comparisons])


def page_html(title: str, sections: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: plain text.
        sections: finished HTML.
    """
    heading = html_text(title, 600)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{heading}</h1>
{chr(10).join(sections)}
</body>
</html>
"""


def _heading(run: Run) -> str:
    used = run.configuration
    words = f"{run.benchmark_label}, {used.model}, {used.dtype} on {used.device}"
    return f"<section><h2>{html_text(words)}</h2>"


def run_section(run: Run, sequences: Sequence[SequenceResult]) -> str:
    """A run that is compared with none: its verdict, gates and worst sequences."""
    gates = [
        [
            _cell(html_text(gate.name)),
            _cell({True: "passed", False: "failed", None: "not judged"}[gate.passed]),
            _cell(html_text(format_value(gate.value, gate.unit))),
            _cell(html_text(gate.detail, 600)),
        ]
        for gate in run.gates
    ]
    worst = sorted(sequences, key=lambda one: -1.0 if one.similarity is None else one.similarity)
    rows = [
        [
            _cell(html_text(one.sequence_id)),
            _number(f"{one.length:,}"),
            _number(format_error(error_of(one.similarity))),
        ]
        for one in worst[:LISTED]
    ]
    parts = [
        _heading(run),
        f"<p>{html_text(verdict_sentence(run), 800)}</p>",
        _table(["Gate", "Result", "Value", "What it says"], gates) if gates else "",
        _table(["Sequence", ">Length", ">1 - cos"], rows) if rows else "",
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def comparison_section(comparison: Comparison) -> str:
    """A comparison of two runs on one benchmark set, as HTML."""
    parts = [
        _heading(comparison.head.run),
        f"<p>{html_text(comparison_sentence(comparison), 600)}</p>",
        _cautions(comparison),
        _sides(comparison),
        _gates(comparison),
        _scatter(comparison),
        _sequences(comparison),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _cautions(comparison: Comparison) -> str:
    items = [
        f"<li><strong>Not comparable:</strong> {html_text(reason, 600)}</li>"
        for reason in comparison.reasons
    ]
    items += [f"<li>{html_text(str(item))}</li>" for item in comparison.differences]
    if not items:
        return ""
    return (
        '<div class="caution"><p>What differs besides the commit:</p>'
        f"<ul>{''.join(items)}</ul></div>"
    )


def _sides(comparison: Comparison) -> str:
    sides = (comparison.base, comparison.head)
    rows = [
        (
            "Commit",
            [f"<code>{html_text(s.run.commit.hash)}</code><br>{html_text(s.run.commit.subject)}"
             for s in sides],
        ),
        ("Author", [html_text(s.run.commit.author or "unknown") for s in sides]),
        ("Verdict", [html_text(verdict_sentence(s.run), 800) for s in sides]),
        (
            "Agree",
            [format_share(s.num_strict, comparison.num_common) for s in sides],
        ),
        ("Fail", [str(s.num_failed) for s in sides]),
        ("Worst error (1 - cos)", [format_error(s.worst_error) for s in sides]),
        ("Protocol", [html_text(s.measured.protocol_version) for s in sides]),
    ]  # fmt: skip
    return _table(
        ["", "Base", "Head"], [[f"<th>{name}</th>", *map(_cell, cells)] for name, cells in rows]
    )


def _gates(comparison: Comparison) -> str:
    rows = []
    for change in comparison.gates:
        values = [
            UNKNOWN if gate is None else html_text(format_value(gate.value, gate.unit))
            for gate in (change.base, change.head)
        ]
        results = [
            UNKNOWN
            if gate is None
            else {True: "passed", False: "failed", None: "not judged"}[gate.passed]
            for gate in (change.base, change.head)
        ]
        rows.append(
            [
                _mark_cell(change.mark),
                _cell(html_text(change.name)),
                *(
                    _cell(f"{result} ({value})")
                    for result, value in zip(results, values, strict=True)
                ),
            ]
        )
    return _table(["", "Gate", "Base", "Head"], rows) if rows else ""


def _sequences(comparison: Comparison) -> str:
    changed = [change for change in comparison.sequences if change.mark not in QUIET]
    changed.sort(key=biggest_first)
    rows = [
        [
            _mark_cell(change.mark),
            _cell(html_text(change.sequence_id)),
            _number(f"{change.head.length:,}"),
            _number(format_error(change.base_error)),
            _number(format_error(change.head_error)),
            _cell(f"{LEVEL_WORDS[change.base_level]} → {LEVEL_WORDS[change.head_level]}"),
        ]
        for change in changed[:LISTED]
    ]
    heads = ["", "Sequence", ">Length", ">Base 1 - cos", ">Head 1 - cos", "Threshold kept"]
    counts = comparison.counts()
    legend = "".join(
        f"<li><code>{_sign(mark)}</code> {counts[mark]:,} {html_text(MARK_MEANINGS[mark])}</li>"
        for mark in Mark
        if counts[mark] or mark in comparison.gate_marks
    )
    cut = (
        f'<p class="quiet">The {LISTED:,} biggest of {len(changed):,} changes are listed.</p>'
        if len(changed) > LISTED
        else ""
    )
    only = "".join(
        f"<p>Only in {role}: {html_text(', '.join(names), 2000)}</p>"
        for role, names in (("base", comparison.only_in_base), ("head", comparison.only_in_head))
        if names
    )
    table = _table(heads, rows) if rows else '<p class="quiet">No sequence changed.</p>'
    return f"{table}{cut}<ul>{legend}</ul>{only}"


def _scatter(comparison: Comparison) -> str:
    """Base error against head error on log axes; 0 stands at the foot. Shape tells the change."""
    points = [
        c for c in comparison.sequences if c.base_error is not None and c.head_error is not None
    ]
    if not points:
        return ""
    errors = [error for c in points for error in (c.base_error, c.head_error) if error]
    low = math.floor(math.log10(max(min(errors, default=1e-6), ERROR_FLOOR))) - 1
    high = max(low + 2, math.ceil(math.log10(max(errors, default=1e-5))))

    def place(error: float | None) -> float:
        if not error:
            return 0.0
        return min(1.0, max(0.0, (math.log10(error) - low) / (high - low)))

    step = max(1, (high - low) // 6)
    axes = [_axis(decade, low, high) for decade in range(low + 1, high + 1, step)]
    drawn = [
        _point(change, 60 + 420 * place(change.base_error), 440 - 400 * place(change.head_error))
        for change in sorted(points, key=lambda change: change.mark not in QUIET)
    ]
    return f"""<svg viewBox="0 0 500 490" role="img"
aria-label="Error of each sequence, base against head">
<line class="diagonal" x1="60" y1="440" x2="480" y2="40"/>
{"".join(axes)}<text x="60" y="456" text-anchor="middle">0</text>
<text x="270" y="478" text-anchor="middle">base 1 - cos</text>
<text x="14" y="240" text-anchor="middle" transform="rotate(-90 14 240)">head 1 - cos</text>
{"".join(drawn)}</svg>"""


def _axis(decade: int, low: int, high: int) -> str:
    share = (decade - low) / (high - low)
    x, y = 60 + 420 * share, 440 - 400 * share
    return (
        f'<line x1="{x:.1f}" y1="40" x2="{x:.1f}" y2="440"/>'
        f'<line x1="60" y1="{y:.1f}" x2="480" y2="{y:.1f}"/>'
        f'<text x="{x:.1f}" y="456" text-anchor="middle">1e{decade}</text>'
        f'<text x="54" y="{y + 4:.1f}" text-anchor="end">1e{decade}</text>'
    )


def _point(change: SequenceChange, x: float, y: float) -> str:
    label = (
        f"<title>{html_text(change.sequence_id, 100)}: {format_error(change.base_error)} → "
        f"{format_error(change.head_error)}</title>"
    )
    if change.mark in (Mark.NEWLY_FAILING, Mark.WORSE):
        shape = f"M{x - 5:.1f},{y + 4:.1f} L{x + 5:.1f},{y + 4:.1f} L{x:.1f},{y - 5:.1f} Z"
        return f'<path class="worse" d="{shape}">{label}</path>'
    if change.mark in (Mark.NEWLY_FIXED, Mark.BETTER):
        shape = f"M{x - 5:.1f},{y - 4:.1f} L{x + 5:.1f},{y - 4:.1f} L{x:.1f},{y + 5:.1f} Z"
        return f'<path class="better" d="{shape}">{label}</path>'
    return f'<circle class="same" cx="{x:.1f}" cy="{y:.1f}" r="3">{label}</circle>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """`heads` are plain words, ">" in front aligns right; `rows` are finished cells."""
    head = "".join(
        f"<th{' class=n' if name.startswith('>') else ''}>{html_text(name.removeprefix('>'))}</th>"
        for name in heads
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _cell(content: str) -> str:
    return f"<td>{content}</td>"


def _number(content: str) -> str:
    return f'<td class="n">{content}</td>'


def _mark_cell(mark: Mark) -> str:
    return f'<td class="{_MARK_CLASS.get(mark, "quiet")}"><code>{_sign(mark)}</code></td>'


def _sign(mark: Mark) -> str:
    return html_text(mark.value) or "="
