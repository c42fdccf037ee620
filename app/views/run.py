"""One run: what it says, why, how to repeat it, and every sequence of it."""

import shlex

import pandas as pd
import streamlit as st

from app import data, filters, links, markup, shell
from app.markup import Html, Value
from app.sequence_figures import (
    LEVELS,
    distribution_figure,
    error_by_length_figure,
    oracle_figure,
    packs_figure,
)
from app.text import (
    UNKNOWN,
    block,
    format_count,
    format_duration,
    format_error,
    format_share,
    format_similarity,
    format_value,
    html_text,
    one_line,
    short_hash,
    visible,
)
from app.trace import put_trace
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.analysis.series import commit_date, error_of
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.records import (
    Culprit,
    Environment,
    Outcome,
    Run,
    SequenceResult,
    SequenceStatus,
)

PAGE_ROWS = 500
MAX_DRAWN = 2000


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
    _head(run)
    _figures(run)
    _gates(run)
    _failure(run)
    if run.figures is not None:
        _sequences(run, thresholds)
    _trace(run)
    _setup(run)


def _ask_for_run() -> None:
    shell.title("Run")
    runs = data.load_recent_runs()
    if not runs:
        shell.put(markup.empty("Nothing has been validated yet."))
        return
    columns = [
        markup.Column(name="Outcome", kind="nowrap"),
        markup.Column(name="Commit", kind="wide"),
        markup.Column(name="Target and benchmark", kind="wide"),
        markup.Column(name="Started", kind="nowrap"),
    ]
    rows: list[list[Value]] = [
        [
            markup.outcome_label(run),
            markup.commit_label(
                run.commit.hash, one_line(run.commit.subject, 90), links.run_link(run)
            ),
            f"{one_line(run.target, 60)} · {one_line(run.benchmark, 40)}",
            markup.age(run.started_at, shell.now()),
        ]
        for run in runs
    ]
    shell.put(
        markup.paragraph("Choose a run, the most recently measured first.", kind="quiet"),
        markup.table(columns, rows, caption="Most recent runs"),
    )


def _head(run: Run) -> None:
    commit = run.commit
    shell.title(f"{short_hash(commit.hash)} on {one_line(run.benchmark, 60)}")
    lines: list[Value] = [run.reason] if run.reason else []
    if run.inherited_from:
        lines.append(f"Inherited from {short_hash(run.inherited_from)}.")
    if run.bridge:
        lines.append("Measured again only because the environment had changed.")
    culprit = run.culprit not in (None, Culprit.NONE)
    headline = markup.join(
        [markup.outcome_label(run), f"— wrong side: {run.culprit}" if culprit else ""]
    )
    author = one_line(commit.author, 80) or "unknown author"
    shell.put(
        markup.paragraph(
            one_line(commit.subject),
            markup.quiet(
                markup.join([f"· {author} ·", markup.when(commit_date(run), shell.reader_zone())])
            ),
        ),
        Html('<div style="height:.6rem"></div>'),
        markup.banner(headline, *lines, colour=markup.tone(run)),
    )
    shell.put(markup.paragraph(*_steps(run), kind="vm-steps"))


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
        name = f"compare with last good {short_hash(good.commit.hash)}"
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
                    "Above strict",
                    f"{figures.num_strict:,} of {figures.num_sequences:,}",
                    f"{format_count(figures.num_failed, 'sequence')} failed",
                ),
                (
                    "Worst error, 1 - cos",
                    format_error(error_of(figures.min_similarity))
                    if figures.min_similarity is not None
                    else "not finite",
                    f"similarity {format_similarity(figures.min_similarity)}",
                ),
                (
                    "1st percentile / median",
                    f"{format_error(error_of(figures.p01_similarity))} / "
                    f"{format_error(error_of(figures.median_similarity))}",
                    one_line(f"worst: {figures.worst_sequence or UNKNOWN}", 60),
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
    shell.heading("Gates")
    columns = [
        markup.Column(name="Gate", kind="nowrap"),
        markup.Column(name="Verdict", kind="nowrap"),
        markup.Column(name="Value", kind="num"),
        markup.Column(name="Limit", kind="num"),
        markup.Column(name="What it says", kind="wide"),
    ]
    ordered = sorted(run.gates, key=lambda gate: (gate.passed is not False, gate.passed is None))
    rows: list[list[Value]] = [
        [
            one_line(gate.name, 60),
            markup.yes_no(gate.passed),
            format_value(gate.value),
            format_value(gate.limit),
            markup.join([one_line(gate.detail), markup.quiet(one_line(gate.unit, 60))]),
        ]
        for gate in ordered
    ]
    shell.put(markup.table(columns, rows, caption="Gates"))


def _failure(run: Run) -> None:
    failure = data.load_failure(run)
    if failure is None:
        return
    shell.heading("Why it could not be run")
    shell.put(
        markup.paragraph(
            f"{one_line(failure.kind, 60).replace('_', ' ')}:", one_line(failure.message, 1000)
        )
    )
    for name, text in (("Traceback", failure.traceback), ("Log", failure.log)):
        if not text:
            continue
        with st.expander(name, expanded=name == "Traceback"):
            st.code(block(text), language=None, wrap_lines=True, height=420)
            st.download_button(
                f"Download the {name.lower()}",
                visible(text),
                file_name=f"run-{run.id}-{name.lower()}.txt",
                mime="text/plain",
                on_click="ignore",
            )


def _sequences(run: Run, thresholds: Thresholds) -> None:
    shell.heading("Sequences")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        which = filters.choose(
            "Show", {"all": "All", "failing": "Failing"}, "only", default="all", style="row"
        )
        words = filters.search("Find by id", "id", width=220)
        order = filters.choose(
            "Order",
            {"worst": "Worst first", "benchmark": "As in the benchmark", "length": "By length"},
            "sort",
            default="worst",
            width=200,
        )
    results = data.load_sequences(
        run, only_failing=which == "failing", search=words, order=order, limit=MAX_DRAWN
    )
    total = run.figures.num_sequences if run.figures else 0
    if not results:
        nothing = "No sequence fails." if which == "failing" else "No sequence fits the filters."
        shell.put(markup.empty(nothing))
        return
    _charts(run, results, thresholds)
    shell.put(
        markup.paragraph(
            f"{format_share(min(len(results), PAGE_ROWS), total)} in the table. "
            "Select a row to see the sequence over all commits.",
            kind="quiet",
        )
    )
    shown = results[:PAGE_ROWS]
    event = st.dataframe(
        sequence_frame(shown, thresholds),
        hide_index=True,
        key="sequence-table",
        height=min(640, 74 + 35 * len(shown)),
        column_config=COLUMN_SETTINGS,
        on_select="rerun",
        selection_mode="single-row",
        alt="Results of each sequence",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(shown):
        chosen = shown[rows[0]]
        shell.open_page("sequence", sequence=chosen.sequence_id, **links.series_parameters(run))
    frame = sequence_frame(results, thresholds)
    st.download_button(
        f"Download {format_count(len(results), 'row')} as CSV",
        frame.to_csv(index=False),
        file_name=f"run-{run.id}-sequences.csv",
        mime="text/csv",
        on_click="ignore",
    )


COLUMN_SETTINGS = {
    "1 - cos": st.column_config.NumberColumn(format="%.2e"),
    "similarity": st.column_config.NumberColumn(format="%.10f"),
    "worst residue 1 - cos": st.column_config.NumberColumn(format="%.2e"),
    "relative L2": st.column_config.NumberColumn(format="%.2e"),
    "packed from oracle": st.column_config.NumberColumn(format="%.2e"),
    "unpacked from oracle": st.column_config.NumberColumn(format="%.2e"),
    "gain": st.column_config.NumberColumn(format="%.6f"),
    "max abs difference": st.column_config.NumberColumn(format="%.2e"),
}


def sequence_frame(results: list[SequenceResult], thresholds: Thresholds) -> pd.DataFrame:
    """The per-sequence table; counted places start at 1."""
    rows = []
    for result in results:
        level = LEVELS[thresholds.level(result)][0]
        if result.status is not SequenceStatus.OK:
            level = f"{level}: {result.status.value.replace('_', ' ')}"
        rows.append(
            {
                "sequence": one_line(result.sequence_id, 120),
                "verdict": level,
                "1 - cos": error_of(result.similarity),
                "similarity": result.similarity,
                "length": result.length,
                "truncated": result.truncated,
                "worst residue 1 - cos": error_of(result.worst_residue_similarity),
                "worst residue": _counted(result.worst_residue),
                "relative L2": result.relative_l2,
                "packed from oracle": result.packed_relative_l2,
                "unpacked from oracle": result.unpacked_relative_l2,
                "gain": result.gain,
                "max abs difference": result.max_abs_difference,
                "pack": _counted(result.pack),
                "place": _counted(result.slot),
            }
        )
    return pd.DataFrame(rows)


def _counted(index: int | None) -> int | None:
    return None if index is None else index + 1


def _charts(run: Run, results: list[SequenceResult], thresholds: Thresholds) -> None:
    noise = data.load_noise(run)
    left, right = st.columns(2)
    with left:
        shell.chart(
            error_by_length_figure(results, thresholds),
            key="by-length",
            alt="Error of each sequence against its length",
        )
    with right:
        oracle = oracle_figure(results, thresholds)
        if oracle is not None:
            shell.chart(oracle, key="oracle", alt="Each side's distance from the FP32 oracle")
    left, right = st.columns(2)
    with left:
        shell.chart(
            distribution_figure({"sequences": results}, thresholds, noise),
            key="distribution",
            alt="How many sequences lie at which error",
        )
    with right:
        packs = packs_figure(results, thresholds)
        if packs is not None:
            shell.chart(packs, key="packs", alt="Which sequences shared a pack")


def _trace(run: Run) -> None:
    if run.outcome not in (Outcome.PASSED, Outcome.FAILED):
        return
    put_trace(data.load_document(run, "trace"))


def _setup(run: Run) -> None:
    shell.heading("How it was measured")
    configuration = run.configuration
    left, right = st.columns(2)
    with left:
        shell.put(
            markup.facts(
                [
                    ("target", one_line(run.target, 200)),
                    ("commit", markup.mono(run.commit.hash)),
                    ("benchmark", f"{run.benchmark}@{run.benchmark_version}"),
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
    st.code(reproduce_command(run, data.load_location(run)), language="bash", wrap_lines=True)


def _digest(digest: str | None) -> Html:
    if not digest:
        return Html(UNKNOWN)
    return Html(f'<span title="{html_text(digest)}">{markup.mono(digest[:16]).code}</span>')


def _environment(environment: Environment | None) -> list[tuple[str, Value]]:
    if environment is None:
        return [("environment", "not known: the run did not start")]
    return [
        (name.replace("_", "-"), one_line(str(getattr(environment, name)), 200))
        for name in type(environment).__dataclass_fields__
        if getattr(environment, name) is not None
    ]


def reproduce_command(run: Run, location: str | None) -> str:
    """One command line that measures the same commit in the same way."""
    configuration = run.configuration
    device = "cuda:0" if configuration.device == "cuda" else configuration.device
    arguments = [
        "virnucpro-monitor",
        "run",
        "--target",
        visible(location or run.target).replace("\n", " "),
        "--commit",
        run.commit.hash,
        "--benchmark",
        f"{run.benchmark}@{run.benchmark_version}",
        "--model",
        configuration.model,
        "--weights",
        configuration.weights,
        "--device",
        device,
        "--dtype",
        configuration.dtype,
        "--token-budget",
        str(configuration.token_budget),
    ]
    return shlex.join(visible(argument) for argument in arguments)
