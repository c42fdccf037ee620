"""A run's sequences: charts, filters, table and download."""

from collections.abc import Callable
from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import data, filters, links, markup, shell
from app.markup import Value
from app.sequence_figures import (
    LEVELS,
    distribution_figure,
    error_by_length_figure,
    oracle_figure,
    packs_figure,
)
from app.text import format_count, format_share, one_line
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.analysis.series import error_of
from virnucpro_monitor.analysis.shared import shared_by_failing
from virnucpro_monitor.records import Level, Run, SequenceResult, SequenceStatus
from virnucpro_monitor.report.text import csv_text
from virnucpro_monitor.report.words import level_legend

PAGE_ROWS = 500
MAX_DRAWN = 2000
MAX_NAMED = 12
FIRST_COLUMNS = [
    "sequence", "verdict", "1 - cos", "length", "worst residue", "worst residue 1 - cos",
    "packed from oracle", "unpacked from oracle", "pack", "place",
]  # fmt: skip


def show_sequences(run: Run, thresholds: Thresholds) -> None:
    shell.heading("Sequences", "sequences")
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
    choice = (data.identity(run), which, words, order)
    results = shell.prepared(
        lambda: data.load_sequences(
            run, only_failing=which == "failing", search=words, order=order, limit=MAX_DRAWN
        ),
        "results",
        *choice,
    )
    total = run.figures.num_sequences if run.figures else 0
    if not results:
        nothing = "No sequence fails." if which == "failing" else "No sequence fits the filters."
        shell.put(markup.empty(nothing))
        return
    _shared(run, results, thresholds, is_whole=len(results) == total)
    _charts(run, results, thresholds, choice)
    every_column = filters.switch("All columns", "columns")
    shell.put(
        markup.paragraph(
            f"{format_share(min(len(results), PAGE_ROWS), total)} in the table. "
            "Select a row to see the sequence over all commits.",
            kind="quiet",
        ),
        markup.paragraph(level_legend(thresholds), kind="quiet"),
    )
    shown = results[:PAGE_ROWS]
    event = st.dataframe(
        shell.prepared(lambda: sequence_frame(shown, thresholds), "frame", *choice),
        hide_index=True,
        key="sequence-table",
        height=min(640, 37 + 35 * len(shown)),
        column_config=COLUMN_SETTINGS,
        column_order=None if every_column else FIRST_COLUMNS,
        on_select="rerun",
        selection_mode="single-row",
        alt="Results of each sequence",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(shown):
        chosen = shown[rows[0]]
        shell.open_page("sequence", sequence=chosen.sequence_id, **links.series_parameters(run))
    st.download_button(
        f"Download {format_count(len(results), 'row')} as CSV",
        partial(_csv, results, thresholds),  # made when it is clicked
        file_name=f"run-{run.id}-sequences.csv",
        mime="text/csv",
        on_click="ignore",
    )


def _shared(
    run: Run, results: list[SequenceResult], thresholds: Thresholds, *, is_whole: bool
) -> None:
    """Which sequences do not agree, as a group: what the trace tried, and what the results show."""
    bad = [one for one in results if thresholds.level(one) is not Level.STRICT]
    if not bad:
        return
    lines: list[Value] = [f"The fault strikes {group}." if (group := data.load_group(run)) else ""]
    if is_whole:
        shared = shared_by_failing(results, thresholds)
        lines.append(f"Here these do not agree: {'; '.join(shared)}." if shared else "")
    names = [markup.mono(one_line(one.sequence_id, 40)) for one in bad[:MAX_NAMED]]
    more = [f"and {len(bad) - MAX_NAMED:,} more"] if len(bad) > MAX_NAMED else []
    count = f"{format_count(len(bad), 'sequence')}:"
    lines.append(markup.join([count, markup.join(names, ", "), *more]))
    shell.put(*(markup.paragraph(line) for line in lines if line))


def _csv(results: list[SequenceResult], thresholds: Thresholds) -> str:
    frame = sequence_frame(results, thresholds)
    frame["sequence"] = [csv_text(result.sequence_id) for result in results]
    return frame.to_csv(index=False)


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


def _charts(
    run: Run,
    results: list[SequenceResult],
    thresholds: Thresholds,
    choice: tuple[str | int | None, ...],
) -> None:
    def draw(name: str, make: Callable[[], go.Figure | None], alt: str) -> None:
        figure = shell.prepared(make, name, *choice)
        if figure is not None:
            shell.chart(figure, key=name, alt=alt)

    left, right = st.columns(2)
    with left:
        draw(
            "by-length",
            lambda: error_by_length_figure(results, thresholds),
            "Error of each sequence against its length",
        )
    with right:
        draw(
            "oracle",
            lambda: oracle_figure(results, thresholds),
            "Each side's distance from the FP32 oracle",
        )
    left, right = st.columns(2)
    with left:
        draw(
            "distribution",
            lambda: distribution_figure({"sequences": results}, thresholds, data.load_noise(run)),
            "How many sequences lie at which error",
        )
    with right:
        draw(
            "packs",
            lambda: packs_figure(results, thresholds),
            "Which sequences shared a pack",
        )
