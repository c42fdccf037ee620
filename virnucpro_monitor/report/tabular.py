"""A comparison as CSV: one line for each sequence of either run."""

import csv
import io
from collections.abc import Iterable

from virnucpro_monitor.analysis.comparison import Comparison, Mark
from virnucpro_monitor.report.text import csv_text

COLUMNS = (
    "base_commit",
    "head_commit",
    "benchmark",
    "comparable",
    "sequence_id",
    "mark",
    "length",
    "base_similarity",
    "head_similarity",
    "base_error",
    "head_error",
    "decades",
    "base_level",
    "head_level",
    "base_status",
    "head_status",
)


def comparisons_csv(comparisons: Iterable[Comparison]) -> str:
    """CSV (RFC 4180, UTF-8) with `COLUMNS`. Numbers are written in full; unknown is empty.

    The mark is written as a word ("newly_failing", "worse", "equal", …): a sign such as + would be
    a formula to a spreadsheet.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for comparison in comparisons:
        writer.writerows(_rows(comparison))
    return text.getvalue()


def _rows(comparison: Comparison) -> Iterable[list[object]]:
    run = comparison.head.run
    common: list[object] = [
        comparison.base.run.commit.hash,
        run.commit.hash,
        csv_text(run.benchmark_label),
        "yes" if comparison.comparable else "no",
    ]
    for change in comparison.sequences:
        yield [
            *common,
            csv_text(change.sequence_id),
            change.mark.name.lower(),
            change.head.length,
            *(
                "" if value is None else repr(value)
                for value in (
                    change.base.similarity,
                    change.head.similarity,
                    change.base_error,
                    change.head_error,
                    change.decades,
                )
            ),
            change.base_level.value,
            change.head_level.value,
            change.base.status.value,
            change.head.status.value,
        ]
    for name in (*comparison.only_in_base, *comparison.only_in_head):
        yield [*common, csv_text(name), Mark.NOT_COMPARABLE.name.lower(), *([""] * 10)]
