"""What a check came to: ten lines for a log, Markdown for a pull request, JUnit for a server."""

import html

from virnucpro_monitor.analysis.series import worst_error
from virnucpro_monitor.monitor.checking import Check, Checked
from virnucpro_monitor.records import Commit, GateResult, Outcome, Run
from virnucpro_monitor.report.junit import runs_junit
from virnucpro_monitor.report.markdown import comparison_markdown, run_markdown
from virnucpro_monitor.report.page import comparison_section, page_html, run_section
from virnucpro_monitor.report.sentences import reproduce_command, verdict_sentence
from virnucpro_monitor.report.text import format_error, markdown, one_line

MARKER = "<!-- virnucpro-monitor check -->"
"""Stands first in the Markdown, so that a comment on a pull request is found and updated."""
MAX_LINES = 10
MAX_ANNOTATIONS = 10  # GitHub shows no more of one step
_LINE_CHARACTERS = 300


def check_sentence(check: Check) -> str:
    """The verdict on the change, with its author."""
    head = f"{check.head.short} “{one_line(check.head.subject, 60)}”"
    if check.head.author:
        head += f" by {one_line(check.head.author, 40)}"
    if check.outcome is Outcome.PASSED:
        old = any(one.run.effective_outcome is Outcome.FAILED for one in check.results)
        if old:
            return f"Passed: {head} breaks nothing that its base keeps; what fails, failed there."
        return f"Passed: {head} keeps the promise."
    flaky = [one for one in check.results if one.is_flaky]
    if check.outcome is Outcome.ERROR and flaky:
        return f"Not told: {head} is flaky, {_flaky_words(flaky[0])}."
    if check.outcome is Outcome.ERROR:
        return f"Not told: {head} could not be run."
    if any(one.is_new for one in check.results):
        kept = f" that {check.base.short} keeps" if check.base else ""
        return f"Failed: {head} breaks the promise{kept}."
    return f"Failed: {head} does not keep the promise; its base fails in the same way."


def _flaky_words(one: Checked) -> str:
    failed = sum(outcome is Outcome.FAILED for outcome in one.attempts)
    return f"the same code failed {failed} of {len(one.attempts)} times"


def check_lines(check: Check) -> list[str]:
    """At most ten lines: verdict, the two commits, what fails where, and what to do next."""
    lines = [check_sentence(check)]
    if check.base is None:
        lines.append("base   none: it is the first commit")
    else:
        lines.append(f"base   {_commit_words(check.base)}")
    lines.append(f"head   {_commit_words(check.head)}")
    results = sorted(check.results, key=lambda one: one.run.effective_outcome is Outcome.PASSED)
    next_steps = _next_steps(check, results[0])
    room = MAX_LINES - len(lines) - len(next_steps)
    told: list[str] = []
    for one in results:
        told += _result_lines(one)
    if len(told) > room:
        told = [*told[: room - 1], f"and {len(told) - room + 1} lines more: --json has them all"]
    return [*lines, *told, *next_steps]


def _commit_words(commit: Commit) -> str:
    return f"{commit.short} {one_line(commit.subject, 70)}"


def _result_lines(one: Checked) -> list[str]:
    name = f"{one.run.benchmark_label}, run {one.run.id}"
    lines = [one_line(f"{name}: {verdict_sentence(one.run)}", _LINE_CHARACTERS)]
    if one.is_flaky:
        lines.append(f"  flaky: {_flaky_words(one)}")
    if one.run.effective_outcome is not Outcome.FAILED:
        return lines
    base = None if one.comparison is None else one.comparison.base.measured
    failed = [gate.name for gate in one.run.gates if gate.fails]
    before = "not measured" if base is None else _failed_words(base.gates)
    lines.append(f"  gates that fail: {', '.join(failed) or 'none'}; at the base: {before}")
    worst = f"  worst error: {_worst_words(one.run)}"
    lines.append(worst if base is None else f"{worst}; at the base: {_worst_words(base)}")
    return lines


def _failed_words(gates: tuple[GateResult, ...]) -> str:
    return ", ".join(gate.name for gate in gates if gate.fails) or "none"


def _worst_words(run: Run) -> str:
    words = f"1 - cos {format_error(worst_error(run))}"
    if run.figures is not None and run.figures.worst_sequence is not None:
        words += f" ({one_line(run.figures.worst_sequence, 40)})"
    return words


def _next_steps(check: Check, worst: Checked) -> list[str]:
    if check.outcome is Outcome.PASSED:
        return []
    steps = [f"again: {reproduce_command(worst.run, check.target)}"]
    if check.base is not None and worst.comparison is not None:
        steps.append(
            f"more:  virnucpro-monitor compare {check.base.short} {check.head.short} "
            f"--target {check.target.name}"
        )
    return steps


def check_markdown(check: Check) -> str:
    """For a pull request: the verdict first, then each benchmark set."""
    parts = [f"{MARKER}\n# {markdown(check_sentence(check), 600)}\n"]
    for one in check.results:
        if one.comparison is not None:
            parts.append(comparison_markdown(one.comparison))
        else:
            parts.append(
                run_markdown(one.run, one.sequences, failure=one.failure, target=check.target)
            )
    return "\n".join(parts)


def check_annotations(check: Check) -> list[str]:
    """Workflow commands that GitHub shows beside a pull request, the gravest first."""
    level = {Outcome.PASSED: "notice", Outcome.FAILED: "error"}.get(check.outcome, "warning")
    found = [_annotation(level, "packed = unpacked", check_sentence(check))]
    for one in check.results:
        if one.run.effective_outcome is not Outcome.FAILED:
            continue
        for gate in one.run.gates:
            if gate.fails:
                title = f"{one.run.benchmark_label}: gate {gate.name}"
                found.append(_annotation(level, title, one_line(gate.detail, 300) or title))
    return found[:MAX_ANNOTATIONS]


def _annotation(level: str, title: str, text: str) -> str:
    """GitHub reads `%`, line breaks, and in a property `:` and `,`, only where they are escaped."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={one_line(name, 100)}::{escaped}"


def check_html(check: Check) -> str:
    """One page that needs nothing else: the verdict, and each benchmark set against the base."""
    sections = [f"<pre>{html.escape(chr(10).join(check_lines(check)))}</pre>"]
    for one in check.results:
        if one.comparison is not None:
            sections.append(comparison_section(one.comparison))
        else:
            sections.append(run_section(one.run, one.sequences))
    return page_html(check_sentence(check), sections)


def check_junit(check: Check) -> str:
    """The head's runs, one test suite for each benchmark set."""
    return runs_junit(
        (one.run, one.sequences, one.failure, one.thresholds) for one in check.results
    )
