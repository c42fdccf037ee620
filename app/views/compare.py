"""Two commits side by side: what broke, what was mended, and whether they may be compared."""

from collections.abc import Iterator
from itertools import islice

import streamlit as st

from app import data, filters, links, markup, shell
from app.markup import Html, Value
from app.text import (
    one_line,
    shortened,
)
from app.views.comparison import compare_address, show_comparison
from app.views.series_choice import series_words
from virnucpro_monitor.analysis.series import SeriesKey, series_key
from virnucpro_monitor.errors import MonitorError, NotFoundError
from virnucpro_monitor.records import Outcome, Run, Target
from virnucpro_monitor.report.words import agreement, deciding_words, setup_words

MAX_SUGGESTED = 12
MAX_BRANCH_RUNS = 200


def show() -> None:
    shell.title("Compare two commits")
    base_text, head_text = _ask()
    if not base_text or not head_text:
        if not base_text and not head_text and not filters.parameter("branch"):
            _show_default()
        _suggest()
        return
    target = filters.parameter("target")
    base = _find(base_text, target, "base")
    head = _find(head_text, target or (base.target if base else ""), "head")
    if base is None or head is None:
        return
    if base.target != head.target:
        shell.put(
            markup.note(
                f"The base belongs to {one_line(base.target, 80)} and the head to "
                f"{one_line(head.target, 80)}: two targets have no common history."
            )
        )
    pair = _choose_pair(base, head)
    if pair is None:
        return
    comparison = data.load_comparison(*pair)
    show_comparison(comparison)


def _show_default() -> None:
    """The newest commit against the last good one, of the chosen target or the worst series."""
    target = filters.parameter("target")
    pairs = [pair for pair in data.suggest_pairs() if target in ("", pair[1].target)]
    if not pairs:
        return
    base, head = pairs[0]
    good = base.effective_outcome is Outcome.PASSED
    shell.put(
        markup.paragraph(
            f"{one_line(head.target, 60)} · {head.benchmark_label}:",
            markup.mono(head.commit.short),
            "against the last good one," if good else "against the one before it,",
            markup.mono(base.commit.short),
        )
    )
    show_comparison(data.load_comparison(base, head))


def _ask() -> tuple[str, str]:
    """Base and head, each found by subject, author, hash or branch."""
    options = data.load_commit_choices(filters.parameter("target"))
    left, right = st.columns(2)
    hint = "subject, author, hash or branch"
    with left:
        base = filters.pick("Base", options, "base", placeholder=hint)
    with right:
        head = filters.pick("Head", options, "head", placeholder=hint)
    if st.button("Swap", icon=":material/swap_horiz:", key="swap", disabled=not (base or head)):
        filters.set_parameter("base", head)
        filters.set_parameter("head", base)
        st.rerun()
    return base, head


def _find(text: str, target: str, role: str) -> data.FoundCommit | None:
    """The commit that `text` names; says on the page why there is none."""
    found = data.find_commits(text, target or None) or _find_by_words(text, target)
    if len(found) == 1:
        return found[0]
    if not found:
        shell.put(
            markup.empty(
                f"No measured commit fits the {role} {one_line(text, 80)!r}.",
                _why_not_found(text, target)
                or "Give the first characters of a commit's hash, a branch or a tag.",
                markup.anchor(links.link("overview"), "Find a commit in the overview"),
            )
        )
        return None
    choices = [
        markup.paragraph(
            markup.anchor(
                compare_address(**{role: entry.commit.hash}),
                markup.mono(entry.commit.short),
            ),
            shortened(entry.commit.subject, 100),
            markup.quiet(one_line(entry.target, 60)),
        )
        for entry in found
    ]
    shell.put(
        markup.empty(
            f"{len(found)} commits fit the {role} {one_line(text, 80)!r}: which one is meant?",
            *choices,
        )
    )
    return None


def _find_by_words(text: str, target: str) -> tuple[data.FoundCommit, ...]:
    """The commits whose hash, subject and author together hold all words of `text`."""
    words = text.lower().split()
    labels = data.load_commit_choices(target)
    fitting = [value for value, label in labels.items() if all(w in label.lower() for w in words)]
    return tuple(
        one for value in fitting[:MAX_SUGGESTED] for one in data.find_commits(value, target or None)
    )


def _why_not_found(text: str, target: str) -> str:
    """What the command line would say; empty where no one target is meant."""
    names = [target] if target else [one.name for one in data.load_targets()]
    if len(names) != 1:
        return ""
    try:
        data.find_commit(text, names[0])
    except MonitorError as error:
        return one_line(str(error), 400)
    return ""


def _suggest() -> None:
    """Comparisons worth looking at, on the followed branch or on another one."""
    branches = {name: name for target in data.load_targets() for name in _other_branches(target)}
    branch = ""
    if branches:
        options = {"": "Followed branch", **branches}
        branch = filters.choose("Branch", options, "branch", default="", width=230)
    pairs = _pairs_of_branch(branch) if branch else iter(data.suggest_pairs())
    rows: list[list[Value]] = [
        [
            series_words(head),
            markup.mono(base.commit.short),
            markup.mono(head.commit.short),
            markup.outcome_label(head),
            markup.anchor(links.compare_link(base, head), "compare"),
        ]
        for base, head in islice(pairs, MAX_SUGGESTED)
    ]
    if not rows:
        shell.put(markup.empty("Give two commits of one target, as hashes or branch names."))
        return
    columns = [
        markup.Column(name="Series", kind="wide"),
        markup.Column(name="Where it left" if branch else "Last good, or before", kind="nowrap"),
        markup.Column(name="Latest", kind="nowrap"),
        markup.Column(name="Outcome", kind="nowrap"),
        markup.Column(name="", spoken="Compare"),
    ]
    what = (
        f"the latest commit of {one_line(branch, 80)} against where it left the followed branch"
        if branch
        else "a latest commit against the last good one before it, or the one before"
    )
    shell.put(
        markup.paragraph(f"Give two commits of one target, or choose {what}:", kind="quiet"),
        markup.table(columns, rows, caption="Suggested comparisons"),
    )


def _other_branches(target: Target) -> Iterator[str]:
    return (name for name in data.load_branches(target.name) if name not in ("", data.EVERY_BRANCH))


def _pairs_of_branch(branch: str) -> Iterator[tuple[Run, Run]]:
    """In each series the followed branch's last run before `branch` left it, and its latest."""
    for entry in data.load_series():
        if branch not in data.load_branches(entry.key.target):
            continue
        runs = data.load_branch_runs(entry, branch, MAX_BRANCH_RUNS)
        before = [run for run in runs if run.commit.on_branch]
        if before and not runs[-1].commit.on_branch:
            yield before[-1], runs[-1]


def _choose_pair(base: data.FoundCommit, head: data.FoundCommit) -> tuple[Run, Run] | None:
    """The two runs to compare; asks which, where the commits have several."""
    try:
        pairing = data.pair_runs(base, head)
    except NotFoundError as error:
        shell.put(markup.empty(one_line(str(error), 600)))
        return None
    pairs = {_pair_code(series_key(run)): (partner, run) for partner, run in pairing.pairs}
    names = {
        code: f"{run.benchmark_label} · {run.configuration.model} · "
        f"{setup_words(run.configuration)}"
        for code, (_, run) in pairs.items()
    }
    wanted = filters.parameter("benchmark"), filters.parameter("config")
    named = [
        code
        for code, (_, run) in pairs.items()
        if run.benchmark == wanted[0] and run.configuration.digest.startswith(wanted[1])
    ]
    asked = filters.parameter("pair")
    code = asked if asked in pairs else named[0] if named else _most_telling(pairs)
    if len(pairs) > 1:
        _put_setups(pairs, names, code)
    _put_lonely(pairing)
    return pairs[code]


def _put_setups(pairs: dict[str, tuple[Run, Run]], names: dict[str, str], current: str) -> None:
    """Every set-up in which both commits were run, so that no failing one is overlooked."""
    shell.heading(f"In {len(pairs)} set-ups")
    columns = [
        markup.Column(name="Set-up", kind="wide"),
        markup.Column(name="Base", kind="nowrap"),
        markup.Column(name="Head", kind="nowrap"),
        markup.Column(name="Base agrees", kind="num extra"),
        markup.Column(name="Head agrees", kind="num extra"),
        markup.Column(name="Worst gate of the base", kind="nowrap extra"),
        markup.Column(name="Worst gate of the head", kind="nowrap extra"),
    ]
    codes = sorted(pairs, key=lambda code: not pairs[code][1].effective_outcome.is_bad)
    rows: list[list[Value]] = [
        [
            markup.join([Html("<strong>shown below:</strong>"), names[code]])
            if code == current
            else markup.anchor(compare_address(pair=code), names[code]),
            markup.outcome_label(base),
            markup.outcome_label(head),
            agreement(base.figures),
            agreement(head.figures),
            deciding_words(base),
            deciding_words(head),
        ]
        for code in codes
        for base, head in (pairs[code],)
    ]
    shell.put(markup.table(columns, rows, caption="Set-ups", is_grid=True))


def _put_lonely(pairing: data.Pairing) -> None:
    """Runs of one commit alone, by all that tells their set-up apart."""
    for role, runs in (("base", pairing.only_base), ("head", pairing.only_head)):
        for run in runs:
            shell.put(
                markup.paragraph(
                    f"Only the {role} was run on {run.benchmark_label} with "
                    f"{run.configuration.model}, {setup_words(run.configuration)}:",
                    markup.anchor(links.run_link(run), markup.outcome_label(run)),
                    kind="quiet",
                )
            )


def _pair_code(key: SeriesKey) -> str:
    return f"{key.benchmark_label}~{key.configuration[:12]}"


def _most_telling(pairs: dict[str, tuple[Run, Run]]) -> str:
    """The first pair whose head fails, or else the first."""
    return next(
        (code for code, (_, run) in pairs.items() if run.effective_outcome is Outcome.FAILED),
        next(iter(pairs)),
    )
