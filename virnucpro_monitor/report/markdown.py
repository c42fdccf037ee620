"""Comparisons and runs as Markdown, for issues, pull requests and notes."""

from collections.abc import Iterable, Sequence

from virnucpro_monitor.analysis.comparison import (
    MARK_MEANINGS,
    Comparison,
    Mark,
    SequenceChange,
    Side,
)
from virnucpro_monitor.analysis.series import error_of
from virnucpro_monitor.records import Failure, Run, SequenceResult, Target
from virnucpro_monitor.report.sentences import (
    comparison_sentence,
    reproduce_command,
    verdict_sentence,
)
from virnucpro_monitor.report.text import (
    UNKNOWN,
    format_error,
    format_share,
    format_value,
    markdown,
    markdown_block,
)
from virnucpro_monitor.report.words import LEVEL_WORDS

LISTED = 100
QUIET = (Mark.EQUAL, Mark.WITHIN_NOISE)


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison: whether it may be made at all first, then the verdict, gates and sequences."""
    run, sides = comparison.head.run, (comparison.base, comparison.head)
    lines = [
        f"## {_code(comparison.base.run.commit.short)} → "
        f"{_code(run.commit.short)} on {markdown(run.benchmark_label)}",
        "",
        markdown(comparison_sentence(comparison), 600),
        "",
    ]
    lines += [f"- **Not comparable:** {markdown(reason, 600)}" for reason in comparison.reasons]
    lines += [f"- Also differs: {markdown(str(item))}" for item in comparison.differences]
    if comparison.reasons or comparison.differences:
        lines.append("")
    lines += _table(
        ["", "Base", "Head"],
        [
            ["Commit", *(_commit(side) for side in sides)],
            ["Verdict", *(markdown(verdict_sentence(side.run), 600) for side in sides)],
            *(
                [title, *(markdown(text) for text in texts)]
                for title, texts in (
                    (
                        "Agree",
                        [format_share(s.num_strict, comparison.num_common) for s in sides],
                    ),
                    ("Fail", [str(side.num_failed) for side in sides]),
                    ("Worst error (1 - cos)", [format_error(side.worst_error) for side in sides]),
                    *(
                        (
                            f"{one.side.capitalize()} to FP32 (worst relative L2)",
                            [format_error(one.base), format_error(one.head)],
                        )
                        for one in comparison.accuracy
                    ),
                    ("Run", [_run_words(side) for side in sides]),
                )
            ),
        ],
    )
    changed_gates = [change for change in comparison.gates if change.mark is not Mark.EQUAL]
    if changed_gates:
        lines += ["", "### Gates", ""]
        lines += _table(
            ["Mark", "Gate", "Base", "Head"],
            [
                [
                    _mark(change.mark),
                    markdown(change.name),
                    *(
                        markdown(format_value(gate.value, gate.unit)) if gate else UNKNOWN
                        for gate in (change.base, change.head)
                    ),
                ]
                for change in changed_gates
            ],
        )
    lines += ["", "### Sequences", "", *_sequences(comparison)]
    return "\n".join(lines) + "\n"


def _sequences(comparison: Comparison) -> list[str]:
    changed = [change for change in comparison.sequences if change.mark not in QUIET]
    changed.sort(key=biggest_first)
    lines = []
    if changed:
        lines += _table(
            ["Mark", "Sequence", "Length", "Base 1 - cos", "Head 1 - cos", "Base", "Head"],
            [
                [
                    _mark(change.mark),
                    markdown(change.sequence_id),
                    str(change.head.length),
                    format_error(change.base_error),
                    format_error(change.head_error),
                    LEVEL_WORDS[change.base_level],
                    LEVEL_WORDS[change.head_level],
                ]
                for change in changed[:LISTED]
            ],
        )
        lines.append("")
    if len(changed) > LISTED:
        lines += [f"Only the {LISTED} biggest of {len(changed)} changes are listed.", ""]
    counts = comparison.counts()
    lines += [
        f"- {_mark(mark)} {counts[mark]:,} {markdown(MARK_MEANINGS[mark])}"
        for mark in Mark
        if counts[mark] or mark in comparison.gate_marks - {Mark.EQUAL}
    ]
    for role, names in (("base", comparison.only_in_base), ("head", comparison.only_in_head)):
        if names:
            some = ", ".join(markdown(name, 60) for name in names[:20])
            more = "" if len(names) <= 20 else f" and {len(names) - 20:,} more"
            lines.append(f"- Only in {role}: {some}{more}")
    return lines


def biggest_first(change: SequenceChange) -> tuple[bool, float]:
    """Sort key: sequences without a number first, then the largest change of the error."""
    return change.decades is not None, -abs(change.decades or 0.0)


def run_markdown(
    run: Run,
    sequences: Iterable[SequenceResult] = (),
    *,
    failure: Failure | None = None,
    target: Target | None = None,
    worst: int = 20,
) -> str:
    """One run: verdict, gates, how and where it ran, its worst sequences, its failure."""
    used = run.configuration
    lines = [
        f"## {markdown(run.target)} {_code(run.commit.short)} on {markdown(run.benchmark_label)}",
        "",
        markdown(verdict_sentence(run), 800),
        "",
        f"- Commit: {_code(run.commit.hash)} {markdown(run.commit.subject)} "
        f"({markdown(run.commit.author or 'unknown author')})",
        f"- Model: {markdown(used.model)}, {markdown(used.dtype)} on {markdown(used.device)}, "
        f"attention by {markdown(used.backend)}, {used.token_budget:,} tokens in a pack",
        f"- Weights: {markdown(used.weights)} ({_code(used.weights_digest)})",
        f"- Benchmark: {_code(run.benchmark_digest)}",
        f"- Protocol: {markdown(run.protocol_version)} ({_code(run.protocol_digest)})",
        f"- Started {run.started_at:%Y-%m-%d %H:%M:%S %Z}, took {run.duration_s:.1f} s",
    ]
    if run.environment is not None:
        facts = ", ".join(f"{name} {markdown(value)}" for name, value in run.environment.facts)
        lines.append(f"- Environment: {facts}")
    if run.gates:
        lines += ["", "### Gates", ""]
        lines += _table(
            ["Gate", "Result", "Value", "Limit", "Side", "Detail"],
            [
                [
                    markdown(gate.name),
                    {True: "passed", False: "**failed**", None: "not judged"}[gate.passed],
                    markdown(format_value(gate.value, gate.unit)),
                    markdown(format_value(gate.limit, gate.unit)),
                    gate.culprit.value if gate.culprit else "",
                    markdown(gate.detail),
                ]
                for gate in run.gates
            ],
        )
    lines += _worst_sequences(list(sequences), worst)
    if failure is not None:
        lines += ["", f"### {markdown(failure.kind)}", "", markdown(failure.message, 1000), ""]
        lines += [markdown_block(text) for text in (failure.traceback, failure.log) if text.strip()]
    lines += ["", "Repeat it:", "", markdown_block(reproduce_command(run, target))]
    return "\n".join(lines) + "\n"


def _worst_sequences(sequences: Sequence[SequenceResult], number: int) -> list[str]:
    if not sequences:
        return []
    shown = sorted(sequences, key=lambda s: -2.0 if s.similarity is None else s.similarity)[:number]
    title = f"### Worst {len(shown)} of {len(sequences):,} sequences"
    return [
        "",
        title,
        "",
        *_table(
            ["Sequence", "Length", "Status", "1 - cos", "Packed vs FP32", "Unpacked vs FP32"],
            [
                [
                    markdown(one.sequence_id),
                    str(one.length),
                    markdown(one.status.value),
                    format_error(error_of(one.similarity)),
                    format_error(one.packed_relative_l2),
                    format_error(one.unpacked_relative_l2),
                ]
                for one in shown
            ],
        ),
    ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _code(digits: str) -> str:
    """Hex digits as code; anything else that claims to be a hash is only text."""
    return f"`{digits}`" if digits.isalnum() else markdown(digits)


def _mark(mark: Mark) -> str:
    return f"`{mark.value}`" if mark.value.strip() else "`=`"


def _commit(side: Side) -> str:
    commit = side.run.commit
    return f"{_code(commit.hash)} {markdown(commit.subject, 100)}"


def _run_words(side: Side) -> str:
    if side.inherited and side.measured is not side.run:
        return f"{side.run.id}, inherits from {side.measured.id}"
    return str(side.run.id)
