"""One run: what it says, why, how to repeat it, and every sequence of it."""

import streamlit as st

from app import data, filters, links, markup, shell
from app.markup import Html, Value
from app.residues import put_residues
from app.text import (
    UNKNOWN,
    block,
    format_count,
    format_duration,
    format_error,
    format_similarity,
    format_value,
    html_text,
    one_line,
    shortened,
    visible,
)
from app.trace import put_trace
from app.views.run_sequences import show_sequences
from app.views.series_choice import find_series, series_words
from app.views.story import put_story
from virnucpro_monitor.analysis.series import commit_date, error_of
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.records import (
    Culprit,
    Environment,
    Outcome,
    Run,
    short_hash,
)
from virnucpro_monitor.report.sentences import reproduce_command
from virnucpro_monitor.report.tracebacks import fold_traceback
from virnucpro_monitor.report.words import (
    agreement,
    deciding_words,
    failing_words,
    flips_words,
    policy_words,
    ratio_words,
)

PAGE_ROWS = 500
MAX_LISTED = 50
TALL_LINES = 40
NEWEST_ALONE = ", the newest of each series: the overview leads to older ones"


def show() -> None:
    run_id = filters.number_parameter("run")
    if run_id is None:
        _ask_for_run()
        return
    try:
        run = data.load_run(run_id)
    except NotFoundError:
        shell.title("Run not found")
        shell.put(
            markup.empty(
                f"There is no run {run_id} in this database.",
                "It may have been deleted, or the link belongs to another database.",
                markup.anchor(links.link("overview"), "Back to the overview"),
            )
        )
        return
    thresholds = data.load_thresholds([run])[run.protocol_digest]
    measured = data.load_measured(run)
    _head(run)
    _jumps(run, measured)
    _figures(run)
    _gates(run)
    _failure(run)
    if run.figures is not None:
        show_sequences(measured, thresholds)
    _trace(measured)
    put_story(run)
    _setup(run)


def _jumps(run: Run, measured: Run) -> None:
    is_traced = measured.outcome.has_verdict and bool(data.load_document(measured, "trace"))
    sections = [
        (bool(run.gates), "gates", "Gates"),
        (run.outcome is Outcome.ERROR, "error", "Why it could not be run"),
        (run.figures is not None, "sequences", "Sequences"),
        (is_traced, "layers", "Layers"),
        (run.effective_outcome is Outcome.FAILED, "residues", "Residues"),
        (True, "change", "The change"),
        (True, "measured", "How it was measured"),
    ]
    shell.jumps(*((anchor, title) for is_there, anchor, title in sections if is_there))


def _ask_for_run() -> None:
    shell.title("Run")
    cards = data.load_series()
    if not cards:
        shell.put(markup.nothing_yet(links.link("overview")))
        return
    chosen = find_series(cards)
    words = filters.search(
        "Find a run", "find", placeholder="subject, author, hash, outcome", width=320
    )
    known = (
        tuple(reversed(data.load_series_runs(chosen, PAGE_ROWS)))
        if chosen is not None
        else data.load_recent_runs()
    )
    fitting = [run for run in known if _fits(run, words)]
    runs = fitting[:MAX_LISTED]
    columns = [
        markup.Column(name="Outcome", kind="nowrap"),
        markup.Column(name="Commit", kind="wide"),
        markup.Column(name="Series", kind="wide"),
        markup.Column(name="Started", kind="nowrap"),
    ]
    rows: list[list[Value]] = [
        [
            markup.outcome_label(run),
            markup.commit_label(
                run.commit.hash, shortened(run.commit.subject, 90), links.run_link(run)
            ),
            series_words(run),
            markup.age(run.started_at, shell.now()),
        ]
        for run in runs
    ]
    shell.put(
        markup.paragraph(
            f"{len(runs):,} of {format_count(len(fitting), 'run')}"
            f"{' of the chosen series' if chosen is not None else NEWEST_ALONE}.",
            kind="quiet",
        ),
        markup.table(columns, rows, caption="Most recent runs"),
    )


def _fits(run: Run, words: str) -> bool:
    commit = run.commit
    text = (
        f"{commit.hash} {commit.subject} {commit.author} {run.outcome.value.replace('_', ' ')} "
        f"{run.target} {run.benchmark_label}"
    ).lower()
    return all(word in text for word in words.lower().split())


def _head(run: Run) -> None:
    commit = run.commit
    shell.title(f"{commit.short} on {one_line(run.benchmark, 60)}")
    # The table of gates right below names those that failed.
    reason = run.reason.partition("; failed gates: ")[0]
    ids = data.load_sequence_ids(run.benchmark_label)
    lines: list[Value] = [markup.with_ids(one_line(reason, 2_000), ids)] if reason else []
    if run.inherited_from:
        lines.append(_inherited(run, run.inherited_from))
    if flips := data.count_flips(run):
        given = ", ".join(data.load_attempts(run))
        lines.append(
            f"The verdict {flips_words(flips)}: the same code in this set-up gave {given}."
        )
    if run.bridge:
        lines.append("Measured again only because the environment had changed.")
    culprit = run.culprit not in (None, Culprit.NONE)
    headline = markup.join(
        [markup.outcome_label(run), f"— wrong side: {run.culprit}" if culprit else ""]
    )
    author = one_line(commit.author, 80) or "unknown author"
    outside = data.commit_address(run.target, commit.hash)
    shell.put(
        markup.paragraph(
            one_line(commit.subject),
            markup.quiet(
                markup.join([f"· {author} ·", markup.when(commit_date(run), shell.reader_zone())])
            ),
            markup.anchor(outside, "in the repository ↗", outside=True) if outside else "",
        ),
        Html('<div style="height:.6rem"></div>'),
        markup.banner(headline, *lines, colour=markup.tone(run)),
    )
    shell.put(markup.paragraph(*_steps(run), kind="vm-steps"))


def _inherited(run: Run, commit: str) -> Value:
    """Where a skipped run's figures and sequences come from."""
    measured = data.load_measured(run)
    name = markup.mono(short_hash(commit))
    if measured is not run:
        name = markup.anchor(links.run_link(measured), name, title=commit)
    return markup.join(["Inherited from", name, "with its figures, gates and sequences."])


def _steps(run: Run) -> list[Value]:
    """Links to the neighbours in history and to what this run can be compared with."""
    before, after = data.load_neighbours(run)
    steps: list[Value] = []
    if before:
        steps.append(markup.anchor(links.run_link(before), "← previous commit"))
    if after:
        steps.append(markup.anchor(links.run_link(after), "next commit →"))
    if before:
        steps.append(markup.anchor(links.compare_link(before, run), "compare with previous"))
    good = data.load_last_good(run)
    if good and (not before or good.id != before.id):
        name = f"compare with last good, {good.commit.short}"
        steps.append(markup.anchor(links.compare_link(good, run), name))
    if run.figures is not None and run.figures.worst_sequence:
        steps.append(
            markup.anchor(
                links.sequence_link(run, run.figures.worst_sequence), "history of worst sequence"
            )
        )
    steps.append(
        markup.anchor(links.link("overview", **links.series_parameters(run)), "this series")
    )
    return steps


def _figures(run: Run) -> None:
    figures = run.figures
    if figures is None:
        return
    packed, unpacked = figures.max_packed_relative_l2, figures.max_unpacked_relative_l2
    speed = figures.num_tokens / figures.packed_s if figures.packed_s else None
    shell.put(
        markup.tiles(
            [
                (
                    "Worst gate",
                    deciding_words(run),
                    failing_words(run, data.load_finding(run)),
                ),
                (
                    "Agree",
                    agreement(figures),
                    f"sequences; {figures.num_failed:,} fail",
                ),
                (
                    "Worst error, 1 - cos",
                    format_error(error_of(figures.min_similarity))
                    if figures.min_similarity is not None
                    else "no value",
                    f"similarity {format_similarity(figures.min_similarity)}",
                ),
                (
                    "1st percentile / median",
                    f"{format_error(error_of(figures.p01_similarity))} / "
                    f"{format_error(error_of(figures.median_similarity))}",
                    markup.join(["worst:", markup.mono(one_line(figures.worst_sequence, 60))])
                    if figures.worst_sequence
                    else "",
                ),
                (
                    "Packed from the oracle",
                    format_error(packed),
                    f"unpacked {format_error(unpacked)}, relative L2",
                ),
                (
                    "Duration",
                    format_duration(run.duration_s),
                    f"packed {speed:,.0f} tokens/s" if speed else "",
                ),
            ]
        )
    )


def _gates(run: Run) -> None:
    if not run.gates:
        return
    shell.heading("Gates", "gates")
    columns = [
        markup.Column(name="Gate", kind="nowrap"),
        markup.Column(name="Verdict", kind="nowrap"),
        markup.Column(name="Of its limit", kind="num", help="Value over limit: above 1 it fails"),
        markup.Column(name="Value", kind="num extra"),
        markup.Column(name="Limit", kind="num extra"),
        markup.Column(name="Unit", kind="nowrap extra"),
        markup.Column(name="What it says", kind="wide extra"),
    ]
    ids = data.load_sequence_ids(run.benchmark_label)
    ordered = sorted(run.gates, key=lambda gate: (gate.passed is not False, gate.passed is None))
    rows: list[list[Value]] = [
        [
            one_line(gate.name, 60),
            markup.yes_no(gate.passed),
            ratio_words(gate),
            format_value(gate.value),
            format_value(gate.limit),
            one_line(gate.unit, 60),
            markup.with_ids(
                one_line(f"Informs by {gate.informs}. " * bool(gate.informs) + gate.detail), ids
            ),
        ]
        for gate in ordered
    ]
    shell.put(markup.table(columns, rows, caption="Gates", is_grid=True))


def _failure(run: Run) -> None:
    failure = data.load_failure(run)
    if failure is None:
        return
    shell.heading("Why it could not be run", "error")
    kind, message = one_line(failure.kind, 60).replace("_", " "), one_line(failure.message, 1000)
    already_said = failure.message.strip() in run.reason
    shell.put(
        markup.paragraph(f"Kind of failure: {kind}." if already_said else f"{kind}: {message}")
    )
    folded = fold_traceback(failure.traceback)
    if folded.last_line:
        st.code(one_line(folded.last_line, 1000), language=None, wrap_lines=True)
    for name, text, shown in (
        ("Traceback", failure.traceback, folded.text),
        ("Log", failure.log, failure.log),
    ):
        if not text:
            continue
        with st.expander(name, expanded=name == "Traceback"):
            tall = len(shown) > 4000 or shown.count("\n") > TALL_LINES
            st.code(block(shown), language=None, wrap_lines=True, height=420 if tall else "content")
            st.download_button(
                f"Download the {name.lower()}",
                visible(text),
                file_name=f"run-{run.id}-{name.lower()}.txt",
                mime="text/plain",
                on_click="ignore",
            )


def _trace(run: Run) -> None:
    if not run.outcome.has_verdict:
        return
    put_trace(data.load_document(run, "trace"))
    if run.outcome is Outcome.FAILED:
        put_residues(data.load_document(run, "residues"))


def _setup(run: Run) -> None:
    shell.heading("How it was measured", "measured")
    configuration = run.configuration
    left, right = st.columns(2)
    with left:
        shell.put(
            markup.facts(
                [
                    ("target", one_line(run.target, 200)),
                    ("commit", markup.mono(run.commit.hash)),
                    ("branch", _branch(run)),
                    ("benchmark", run.benchmark_label),
                    ("benchmark digest", _digest(run.benchmark_digest)),
                    ("model", configuration.model),
                    ("weights", one_line(configuration.weights, 200)),
                    ("weights digest", _digest(configuration.weights_digest)),
                    ("dtype", configuration.dtype),
                    ("device", configuration.device),
                    ("attention backend", configuration.backend),
                    ("token budget", f"{configuration.token_budget:,}"),
                    ("configuration", _digest(configuration.digest)),
                    ("protocol", f"{run.protocol_version}"),
                    ("protocol digest", _digest(run.protocol_digest)),
                    ("oracle", _oracle(run)),
                    ("policy", policy_words(run)),
                    ("code digest", _digest(run.code_digest)),
                ]
            )
        )
    with right:
        shell.put(
            markup.facts(
                [
                    ("started", markup.when(run.started_at, shell.reader_zone())),
                    ("duration", format_duration(run.duration_s)),
                    *_environment(run.environment),
                ]
            )
        )
    shell.put(markup.paragraph("Repeat this run:", kind="quiet"))
    st.code(reproduce_command(run, data.load_target(run.target)), language="bash", wrap_lines=True)


def _branch(run: Run) -> str:
    target = data.load_target(run.target)
    if run.commit.on_branch:
        return one_line(target.branch or "the followed one", 200) if target else UNKNOWN
    names = data.load_document(run, "branches") or []
    return one_line(", ".join(map(str, names)), 400) or "no longer on the followed one"


def _oracle(run: Run) -> str:
    named = data.load_document(data.load_measured(run), "oracle")
    return one_line(str(named["kind"]), 400) if named else UNKNOWN


def _digest(digest: str | None) -> Html:
    if not digest:
        return Html(UNKNOWN)
    return Html(f'<span title="{html_text(digest)}">{markup.mono(digest[:16]).code}</span>')


def _environment(environment: Environment | None) -> list[tuple[str, Value]]:
    if environment is None:
        return [("environment", "not known: the run did not start")]
    return [(name, one_line(value, 2_000)) for name, value in environment.facts]
