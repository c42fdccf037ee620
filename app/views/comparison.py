"""The comparison itself: differences first, then gates and sequences."""

from functools import partial

import pandas as pd
import streamlit as st

from app import data, filters, links, markup, shell
from app.marks import GREY, MARKS
from app.markup import Html, Value
from app.sequence_figures import CHANGE_LOOKS, before_after_figure, distribution_figure
from app.text import (
    UNKNOWN,
    format_count,
    format_error,
    format_value,
    html_text,
    one_line,
    shortened,
)
from app.views.moved import put_moved
from app.views.sequence_letters import put_compared_letters
from virnucpro_monitor.analysis.accuracy import SIDES, distance, find_movement
from virnucpro_monitor.analysis.comparison import (
    MARK_MEANINGS,
    Comparison,
    GateChange,
    Mark,
    SequenceChange,
    Side,
)
from virnucpro_monitor.analysis.series import ERROR_FLOOR, commit_date
from virnucpro_monitor.records import Commit, Culprit, Outcome, Run
from virnucpro_monitor.report.export import format_comparisons
from virnucpro_monitor.report.sentences import accuracy_sentence
from virnucpro_monitor.report.words import LEVEL_WORDS, level_legend

MAX_ROWS = 1000
MAX_BETWEEN = 40
FEW_BETWEEN = 5
EXPORTS = (
    ("Markdown", ".md", "text/markdown"),
    ("CSV", ".csv", "text/csv"),
    ("HTML, one file", ".html", "text/html"),
)
CHANGED = (
    Mark.NEWLY_FAILING,
    Mark.NEWLY_FIXED,
    Mark.WORSE,
    Mark.BETTER,
    Mark.CLOSER_BUT_FURTHER,
    Mark.NOT_COMPARABLE,
)
VERDICT_LOOKS = {
    "broke": ("It broke", MARKS[Outcome.FAILED].colour),
    "fixed": ("It was fixed", MARKS[Outcome.PASSED].colour),
    "still passing": ("Still passing", MARKS[Outcome.PASSED].colour),
    "still failing": ("Still failing", MARKS[Outcome.FAILED].colour),
    "unknown": ("No verdict on one side", GREY),
}


def show_comparison(comparison: Comparison) -> None:
    words, colour = VERDICT_LOOKS[comparison.verdict]
    head = comparison.head.run
    line = head.reason if comparison.verdict in ("broke", "still failing") else ""
    counts = comparison.counts()
    summary = (
        f"{format_count(counts[Mark.NEWLY_FAILING], 'sequence')} newly bad, "
        f"{counts[Mark.NEWLY_FIXED]:,} mended, {counts[Mark.WORSE]:,} worse and "
        f"{counts[Mark.BETTER]:,} better beyond noise, of "
        f"{comparison.num_common:,} in both"
    )
    if comparison.num_common < comparison.num_all:
        summary += f" (and {comparison.num_all - comparison.num_common:,} in one alone)"
    summary += "."
    if counts[Mark.CLOSER_BUT_FURTHER]:
        summary += (
            f" {format_count(counts[Mark.CLOSER_BUT_FURTHER], 'sequence')} closer to each other, "
            "but further from FP32."
        )
    ids = data.load_sequence_ids(head.benchmark_label)
    lines = [
        markup.with_ids(one_line(text, 2_000), ids)
        for text in (line, summary, accuracy_sentence(comparison).strip())
        if text
    ]
    shell.put(markup.banner(words, *lines, colour=colour))
    if comparison.is_same_measurement:
        shell.put(markup.note("Both sides stand on the same measurement: nothing can differ."))
    _differences(comparison)
    _sides(comparison)
    _between(comparison)
    _gates(comparison)
    put_moved(comparison)
    if comparison.sequences:
        put_compared_letters(comparison)
        _charts(comparison)
        _sequences(comparison)
    _exports(comparison)


def compare_address(**changes: str) -> str:
    """This page's address with some parameters changed."""
    kept = {
        name: filters.parameter(name)
        for name in ("base", "head", "target", "benchmark", "config", "changed", "pair")
    }
    return links.link("compare", **(kept | changes))


def _differences(comparison: Comparison) -> None:
    """What besides the commit differs; first of all whether the two may be compared."""
    if not comparison.comparable:
        shell.put(
            markup.note(
                markup.join(
                    [
                        "Not comparable: read the figures below with care.",
                        *(one_line(reason, 500) for reason in comparison.reasons),
                    ]
                )
            )
        )
    if not comparison.differences:
        shell.put(
            markup.paragraph(
                "Environment, configuration, protocol and benchmark are the same on both sides.",
                kind="quiet",
            )
        )
        return
    shell.heading("What differs besides the commit")
    columns = [
        markup.Column(name="What", kind="nowrap"),
        markup.Column(name="Base", kind="wide"),
        markup.Column(name="Head", kind="wide"),
    ]
    rows: list[list[Value]] = [
        [
            f"{difference.kind}: {difference.name.replace('_', ' ')}",
            difference.base or UNKNOWN,
            difference.head or UNKNOWN,
        ]
        for difference in comparison.differences
    ]
    grave = frozenset(
        place for place, d in enumerate(comparison.differences) if d.prevents_comparison
    )
    shell.put(markup.table(columns, rows, caption="Differences", changed=grave))


def _sides(comparison: Comparison) -> None:
    columns = [
        markup.Column(name="", kind="nowrap", spoken="Side"),
        markup.Column(name="Commit", kind="wide"),
        markup.Column(name="Author", kind="nowrap"),
        markup.Column(name="Date", kind="nowrap"),
        markup.Column(name="Outcome", kind="nowrap"),
        markup.Column(name="Agree", kind="num", help="Among the sequences that both runs have"),
        markup.Column(name="Fail", kind="num"),
        markup.Column(name="Worst 1 - cos", kind="num"),
        markup.Column(name="Wrong side", kind="nowrap"),
        markup.Column(name="Step", kind="nowrap"),
    ]
    rows = [
        _side_row("base", comparison.base, comparison),
        _side_row("head", comparison.head, comparison),
    ]
    shell.put(markup.table(columns, rows, caption="Base and head"))


def _side_row(role: str, side: Side, comparison: Comparison) -> list[Value]:
    run = side.run
    subject = shortened(run.commit.subject, 90)
    if side.inherited:
        subject += f" (figures from {side.measured.commit.short})"
    common = comparison.num_common
    before, after = data.load_neighbours(run)
    steps: list[Value] = []
    if before:
        steps.append(markup.anchor(compare_address(**{role: before.commit.hash}), "← earlier"))
    if after:
        steps.append(markup.anchor(compare_address(**{role: after.commit.hash}), "later →"))
    return [
        Html(f"<strong>{role}</strong>"),
        markup.commit_label(run.commit.hash, subject, links.run_link(run)),
        shortened(run.commit.author, 30) or UNKNOWN,
        markup.when(commit_date(run), shell.reader_zone()),
        markup.outcome_label(run),
        f"{side.num_strict:,} of {common:,}" if common else UNKNOWN,
        f"{side.num_failed:,}" if common else UNKNOWN,
        format_error(side.worst_error),
        str(side.culprit) if side.culprit not in (None, Culprit.NONE) else "",
        markup.join(steps, " · "),
    ]


def _between(comparison: Comparison) -> None:
    """The commits between, oldest first, with their outcomes; a link to the repository's diff."""
    base, head = comparison.base.run, comparison.head.run
    if base.target != head.target:
        return
    commits = data.load_commits_between(base, head, MAX_BETWEEN + 1)
    diff = data.diff_address(head.target, base.commit.hash, head.commit.hash)
    if diff:
        shell.put(
            markup.paragraph(
                markup.anchor(diff, "Difference of the code in the repository ↗", outside=True)
            )
        )
    if not commits:
        return
    measured = data.load_outcomes(head, [commit.hash for commit in commits])
    shown = commits[:MAX_BETWEEN]
    with st.expander(
        f"{format_count(len(commits), 'commit')}{' or more' if len(commits) > MAX_BETWEEN else ''}"
        f" from base to head, {sum(c.hash in measured for c in commits)} measured",
        key="between",
        expanded=len(commits) <= FEW_BETWEEN,
    ):
        columns = [
            markup.Column(name="Outcome", kind="nowrap"),
            markup.Column(name="Commit", kind="wide"),
            markup.Column(name="Author", kind="nowrap"),
            markup.Column(name="Date", kind="nowrap"),
            markup.Column(name="Repository", kind="nowrap"),
        ]
        rows = [_between_row(commit, measured.get(commit.hash), head.target) for commit in shown]
        shell.put(markup.table(columns, rows, caption="Commits between"))


def _between_row(commit: Commit, run: Run | None, target: str) -> list[Value]:
    outside = data.commit_address(target, commit.hash)
    return [
        markup.outcome_label(run) if run else markup.quiet("no run"),
        markup.commit_label(
            commit.hash, shortened(commit.subject, 110), links.run_link(run) if run else None
        ),
        one_line(commit.author, 60),
        markup.when(commit.committed_at or commit.authored_at, shell.reader_zone()),
        markup.anchor(outside, "commit ↗", outside=True) if outside else "",
    ]


def _gates(comparison: Comparison) -> None:
    if not comparison.gates:
        return
    shell.heading("Gates")
    columns = [
        markup.Column(name="Gate", kind="nowrap"),
        markup.Column(name="Base", kind="nowrap"),
        markup.Column(name="Head", kind="nowrap"),
        markup.Column(name="What became of it", kind="nowrap extra"),
        markup.Column(name="Base value", kind="num extra"),
        markup.Column(name="Head value", kind="num extra"),
        markup.Column(name="Limit", kind="num extra"),
        markup.Column(name="Unit", kind="nowrap extra"),
    ]
    flipped = (Mark.NEWLY_FAILING, Mark.NEWLY_FIXED)
    ordered = sorted(comparison.gates, key=lambda change: change.mark not in flipped)
    changed = frozenset(place for place, c in enumerate(ordered) if c.mark in flipped)
    rows = [_gate_row(change) for change in ordered]
    shell.put(markup.table(columns, rows, caption="Gates", changed=changed, is_grid=True))


GATE_WORDS = {Mark.NEWLY_FAILING: "newly failing", Mark.NEWLY_FIXED: "mended"}


def _gate_row(change: GateChange) -> list[Value]:
    base, head = change.base, change.head
    known = head or base
    return [
        one_line(change.name, 60),
        markup.yes_no(base.passed) if base else "absent",
        markup.yes_no(head.passed) if head else "absent",
        GATE_WORDS.get(change.mark, CHANGE_LOOKS[change.mark][0]),
        format_value(base.value) if base else UNKNOWN,
        format_value(head.value) if head else UNKNOWN,
        format_value(known.limit if known else None),
        one_line(known.unit, 60) if known else "",
    ]


def _charts(comparison: Comparison) -> None:
    shell.heading("Sequences")
    base = comparison.base.run.commit.short
    head = comparison.head.run.commit.short
    floor = comparison.noise.floor
    pair = (data.identity(comparison.base.run), data.identity(comparison.head.run))
    left, right = st.columns(2)
    with left:
        shell.chart(
            shell.prepared(
                lambda: before_after_figure(comparison, f"base {base}", f"head {head}"),
                "before-after",
                *pair,
            ),
            key="before-after",
            alt="Each sequence's error in the base and in the head",
        )
    with right:
        shell.chart(
            shell.prepared(
                lambda: distribution_figure(
                    {
                        f"base {base}": [change.base for change in comparison.sequences],
                        f"head {head}": [change.head for change in comparison.sequences],
                    },
                    comparison.thresholds,
                    floor if floor > ERROR_FLOOR else None,
                    height=460,
                ),
                "distributions",
                *pair,
            ),
            key="distributions",
            alt="How many sequences lie at which error, base against head",
        )


def _sequences(comparison: Comparison) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        changed_only = filters.switch("Only changed", "changed")
        words = filters.search("Find by id", "id", width=220)
    order = {mark: place for place, mark in enumerate(MARK_MEANINGS)}
    rows = [
        change
        for change in comparison.sequences
        if (not changed_only or change.mark in CHANGED)
        and words.lower() in change.sequence_id.lower()
    ]
    rows.sort(key=lambda change: (order[change.mark], -abs(change.decades or 99.0)))
    _mark_legend(comparison)
    if not rows:
        shell.put(markup.empty("No sequence fits the filters."))
    else:
        event = st.dataframe(
            shell.prepared(
                lambda: change_frame(rows[:MAX_ROWS]),
                "changes",
                data.identity(comparison.base.run),
                data.identity(comparison.head.run),
                str(changed_only),
                words,
            ),
            hide_index=True,
            key="change-table",
            height=min(640, 37 + 35 * len(rows)),
            column_config=COLUMN_SETTINGS,
            on_select="rerun",
            selection_mode="single-row",
            alt="Each sequence in base and head",
        )
        chosen = event["selection"]["rows"]
        if chosen and chosen[0] < len(rows):
            shell.open_page(
                "sequence",
                sequence=rows[chosen[0]].sequence_id,
                **links.series_parameters(comparison.head.run),
            )
    for role, names in (("base", comparison.only_in_base), ("head", comparison.only_in_head)):
        if names:
            listed = ", ".join(one_line(name, 60) for name in names[:20])
            more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
            shell.put(markup.paragraph(f"Only in the {role}: {listed}{more}."))


def _mark_legend(comparison: Comparison) -> None:
    counts = comparison.counts()
    parts = "".join(
        f'<span title="{html_text(meaning)}"><span class="mono">'
        f"{html_text(mark.value.strip() or '=')}</span> "
        f"{html_text(CHANGE_LOOKS[mark][0])}: {counts[mark]:,}</span>"
        for mark, meaning in MARK_MEANINGS.items()
    )
    shell.put(
        Html(f'<div class="vm-legend">{parts}</div>'),
        markup.paragraph(level_legend(comparison.thresholds), kind="quiet"),
    )


LONGEST_CHANGE = 200  # px: "closer, but further from FP32"
USUAL_ID = 120  # px: "hydrophobic"
COLUMN_SETTINGS = {
    "": st.column_config.TextColumn(width=40),
    "sequence": st.column_config.TextColumn(width=USUAL_ID),
    "agreement": st.column_config.TextColumn(width=LONGEST_CHANGE),
    "base 1 - cos": st.column_config.NumberColumn(format="%.2e"),
    "head 1 - cos": st.column_config.NumberColumn(format="%.2e"),
    "decades": st.column_config.NumberColumn(
        format="%+.2f", help="log10 of head error over base error: +1 is ten times worse"
    ),
    "base packed from FP32": st.column_config.NumberColumn(format="%.2e"),
    "head packed from FP32": st.column_config.NumberColumn(format="%.2e"),
    "base similarity": st.column_config.NumberColumn(format="%.10f"),
    "head similarity": st.column_config.NumberColumn(format="%.10f"),
}


def change_frame(changes: list[SequenceChange]) -> pd.DataFrame:
    """The table of a comparison, one row for each sequence that both runs have."""
    return pd.DataFrame(
        [
            {
                "": change.mark.value.strip() or "=",
                "sequence": one_line(change.sequence_id, 120),
                "head": LEVEL_WORDS[change.head_level],
                "agreement": CHANGE_LOOKS[change.mark][0],
                "decades": change.decades,
                "base": LEVEL_WORDS[change.base_level],
                "base 1 - cos": change.base_error,
                "head 1 - cos": change.head_error,
                **{
                    f"{side}, accuracy": find_movement(
                        distance(change.base, side), distance(change.head, side)
                    ).value
                    for side in SIDES
                },
                "base packed from FP32": change.base.packed_relative_l2,
                "head packed from FP32": change.head.packed_relative_l2,
                "length": change.head.length,
                "base similarity": change.base.similarity,
                "head similarity": change.head.similarity,
            }
            for change in changes
        ]
    )


def _exports(comparison: Comparison) -> None:
    base = comparison.base.run.commit.short
    head = comparison.head.run.commit.short
    shell.heading("Take it with you")
    with st.container(horizontal=True):
        for label, suffix, kind in EXPORTS:
            st.download_button(
                label,
                partial(format_comparisons, [comparison], suffix),  # made when it is clicked
                file_name=f"compare-{base}-{head}{suffix}",
                mime=kind,
                key=f"export{suffix}",
                on_click="ignore",
            )
