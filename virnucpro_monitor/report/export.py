"""Write comparisons and runs to a file, in the format that its name asks for."""

import os
from collections.abc import Sequence
from pathlib import Path

from virnucpro_monitor.analysis.comparison import Comparison, Thresholds
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Failure, Run, SequenceResult, Target
from virnucpro_monitor.report.junit import run_junit
from virnucpro_monitor.report.markdown import comparison_markdown, run_markdown
from virnucpro_monitor.report.page import comparisons_html
from virnucpro_monitor.report.tabular import comparisons_csv

FORMATS = (".md", ".csv", ".html")
RUN_FORMATS = (".md", ".xml")


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
    raise _unknown_format(suffix, FORMATS)


def format_run(
    run: Run,
    sequences: Sequence[SequenceResult],
    suffix: str,
    *,
    failure: Failure | None = None,
    target: Target | None = None,
    thresholds: Thresholds | None = None,
) -> str:
    """The text of one run's report.

    Args:
        suffix: ".md", or ".xml" for JUnit.
        thresholds: of the run's protocol.

    Raises:
        ConfigurationError: another suffix.
    """
    if suffix == ".md":
        return run_markdown(run, sequences, failure=failure, target=target)
    if suffix == ".xml":
        return run_junit(run, sequences, failure=failure, thresholds=thresholds)
    raise _unknown_format(suffix, RUN_FORMATS)


def _unknown_format(suffix: str, known: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        f"No report is written as {suffix or 'a file without an ending'!r}: let the file's name "
        f"end in {', '.join(known)}."
    )


def write_report(path: Path, text: str) -> None:
    """Write a report's text.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    try:
        # newline="": CSV has its own line ends. Foreign text may hold halves of UTF-16 pairs.
        path.write_text(text, encoding="utf-8", errors="replace", newline="")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written ({error.strerror}): choose another file."
        ) from error


def replace_file(path: Path, text: str) -> None:
    """Write a file that somebody may be reading: it is exchanged when it is complete.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_report(partial, text)
        partial.replace(path)
    except (OSError, ConfigurationError) as error:
        raise ConfigurationError(f"{path} cannot be written: choose another file.") from error
    finally:
        partial.unlink(missing_ok=True)
