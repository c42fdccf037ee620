"""Write comparisons to a file, in the format that its name asks for."""

from collections.abc import Sequence
from pathlib import Path

from virnucpro_monitor.analysis.comparison import Comparison
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.report.markdown import comparison_markdown
from virnucpro_monitor.report.page import comparisons_html
from virnucpro_monitor.report.tabular import comparisons_csv

FORMATS = (".md", ".csv", ".html")


def format_comparisons(comparisons: Sequence[Comparison], suffix: str) -> str:
    """The text of a report.

    Args:
        suffix: ".md", ".csv" or ".html".

    Raises:
        ConfigurationError: another suffix.
    """
    if suffix == ".md":
        return "\n".join(comparison_markdown(comparison) for comparison in comparisons)
    if suffix == ".csv":
        return comparisons_csv(comparisons)
    if suffix == ".html":
        return comparisons_html(comparisons)
    raise ConfigurationError(
        f"No report is written as {suffix or 'a file without an ending'!r}: let the file's name "
        f"end in {', '.join(FORMATS)}."
    )


def write_comparisons(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write a report in the format of `path`'s ending.

    Raises:
        ConfigurationError: an unknown ending, or the file cannot be written.
    """
    text = format_comparisons(comparisons, path.suffix.lower())
    try:
        # newline="": CSV has its own line ends.
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}): choose another file."
        ) from error
