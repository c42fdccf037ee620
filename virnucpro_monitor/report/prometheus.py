"""The newest figures of each series in Prometheus' text format, version 0.0.4.

For the textfile collector of its node exporter. What is not known has no sample; what is not finite
is `NaN` there.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.analysis.incidents import IncidentState
from virnucpro_monitor.analysis.series import worst_error
from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.monitor.histories import SeriesCard, list_series
from virnucpro_monitor.monitor.opening import open_database
from virnucpro_monitor.records import Figures, Outcome
from virnucpro_monitor.report.export import replace_file
from virnucpro_monitor.settings import Settings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "virnucpro_monitor"


@dataclass(frozen=True, slots=True)
class _Gauge:
    """A metric with one value for each series; None where there is none."""

    name: str
    help: str
    value: Callable[[SeriesCard], float | None]


def _figure(name: str) -> Callable[[SeriesCard], float | None]:
    def read(card: SeriesCard) -> float | None:
        figures: Figures | None = card.latest.figures
        return None if figures is None else getattr(figures, name)

    return read


def _worst_error(card: SeriesCard) -> float | None:
    figures = card.latest.figures
    if figures is None:
        return None
    error = worst_error(card.latest)
    return math.nan if error is None else error


def _tokens_per_second(card: SeriesCard) -> float | None:
    figures = card.latest.figures
    if figures is None or not figures.packed_s or not card.latest.outcome.has_verdict:
        return None
    return figures.num_tokens / figures.packed_s


def _open_incidents(card: SeriesCard) -> float:
    return float(sum(one.state is IncidentState.OPEN for one in card.incidents))


_GAUGES = (
    _Gauge("worst_error", "Largest 1 - cosine of packed against unpacked.", _worst_error),
    _Gauge("strict_ratio", "Share of sequences above the strict threshold.",
           _figure("strict_pass_rate")),
    _Gauge("packed_distance", "Largest relative L2 distance of packed to FP32.",
           _figure("max_packed_relative_l2")),
    _Gauge("unpacked_distance", "Largest relative L2 distance of unpacked to FP32.",
           _figure("max_unpacked_relative_l2")),
    _Gauge("tokens_per_second", "Tokens per second of the packed pass.", _tokens_per_second),
    _Gauge("run_duration_seconds", "How long the newest run took.",
           lambda card: card.latest.duration_s),
    _Gauge("run_start_timestamp_seconds", "When the newest run started, Unix time.",
           lambda card: card.latest.started_at.timestamp()),
    _Gauge("commits_behind", "Commits of the branch after the newest run's.",
           lambda card: float(card.commits_behind)),
    _Gauge("open_incidents", "Incidents that are neither fixed nor acknowledged.", _open_incidents),
    _Gauge("watched", "Whether the series is still measured at the newest commits (1 or 0).",
           lambda card: float(not card.is_unwatched)),
)  # fmt: skip


def prometheus_text(cards: Sequence[SeriesCard]) -> str:
    """All metrics of all series; ends with a line break, as the format asks."""
    lines: list[str] = []
    labelled = [(card, _labels(card)) for card in cards]
    name = f"{PREFIX}_outcome"
    lines += _head(name, "Whether the newest run had this outcome (1 or 0); a skipped run's counts "
                         "as what it inherits.")  # fmt: skip
    for card, labels in labelled:
        for outcome in Outcome:
            value = float(card.latest.effective_outcome is outcome)
            lines.append(_sample(name, {**labels, "outcome": outcome.value}, value))
    for gauge in _GAUGES:
        samples = [(labels, gauge.value(card)) for card, labels in labelled]
        known = [(labels, value) for labels, value in samples if value is not None]
        if known:
            lines += _head(f"{PREFIX}_{gauge.name}", gauge.help)
            lines += [_sample(f"{PREFIX}_{gauge.name}", *one) for one in known]
    return "\n".join(lines) + "\n"


def write_metrics_after_run(settings: Settings, say: Callable[[str], None]) -> None:
    """Write the settings' file of metrics, if there is one; says what went wrong, and no more."""
    if settings.metrics_file == Path():
        return
    try:
        with open_database(settings.database_url) as engine:
            text = prometheus_text(list_series(engine))
        replace_file(settings.metrics_file.expanduser(), text)
    except MonitorError as error:
        say(f"No metrics were written: {error}")
    except Exception as error:  # of whatever kind: the results are stored, and the run is over
        say(f"No metrics were written: unexpected {type(error).__name__}.")


def _labels(card: SeriesCard) -> dict[str, str]:
    used = card.latest.configuration
    return {
        "target": card.key.target,
        "benchmark": card.key.benchmark_label,
        "model": used.model,
        "dtype": used.dtype,
        "device": used.device,
        "backend": used.backend,
        "configuration": card.key.configuration[:12],
    }


def _head(name: str, text: str) -> Iterable[str]:
    return f"# HELP {name} {text}", f"# TYPE {name} gauge"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    shown = "NaN" if math.isnan(value) else repr(value)
    return f"{name}{{{inside}}} {shown}"


def _escaped(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
