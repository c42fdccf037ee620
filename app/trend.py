"""What the trend chart adds to an analysed trend: places, hover texts, shaded stretches. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from app.marks import MARKS
from app.text import format_error, format_share, format_time, hover_text
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.analysis.series import commit_date, error_of
from virnucpro_monitor.analysis.trends import ChangeEvent, Trend, make_trend
from virnucpro_monitor.records import Culprit, Outcome, Run

MAX_POINTS = 700  # a wide screen has a few pixels for each; more costs the server time
MAX_HOVER_DIFFERENCES = 8

Place = float | datetime
"""A position on the horizontal axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch to shade, from the first to the last place that belongs to it."""

    start: Place
    end: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendInfo:
    """A trend with what drawing it needs.

    Attributes:
        places, hovers, thresholds: one for each point of the trend; the thresholds are those of
            each run's own protocol, as errors by name.
    """

    trend: Trend
    places: tuple[Place, ...]
    hovers: tuple[str, ...]
    thresholds: tuple[Mapping[str, float], ...]
    spans: tuple[Span, ...]
    by_date: bool


def trend_info(
    runs: Sequence[Run],
    thresholds: Mapping[str, Thresholds],
    *,
    by_date: bool = False,
    reader_zone: ZoneInfo,
    max_points: int = MAX_POINTS,
) -> TrendInfo:
    """Arrange one series.

    Args:
        runs: of one target, benchmark and configuration, oldest commit first.
        thresholds: by protocol digest.
        by_date: order by commit date instead of history.
        max_points: healthy runs are thinned out evenly beyond this; others are always drawn.
    """
    ordered = sorted(runs, key=commit_date) if by_date else list(runs)
    kept = thin_healthy(ordered, max_points)
    places: tuple[Place, ...] = tuple(
        # Plotly draws a date without a zone as it stands: give it the reader's own clock.
        commit_date(run).astimezone(reader_zone).replace(tzinfo=None) if by_date else float(place)
        for place, run in enumerate(kept)
    )
    return TrendInfo(
        trend=make_trend(kept),
        places=places,
        hovers=tuple(run_hover(run, reader_zone) for run in kept),
        thresholds=tuple(
            threshold_errors(thresholds[run.protocol_digest])
            if run.protocol_digest in thresholds
            else {}
            for run in kept
        ),
        spans=tuple(_bad_spans(kept, places)),
        by_date=by_date,
    )


def threshold_errors(thresholds: Thresholds) -> dict[str, float]:
    """The thresholds as errors 1 - cos by name, without the rounding of the subtraction."""
    return {
        "lenient": round(1.0 - thresholds.lenient, 12),
        "strict": round(1.0 - thresholds.strict, 12),
    }


def thin_healthy(runs: Sequence[Run], max_points: int) -> list[Run]:
    """Leave out passed runs evenly until at most about `max_points` are left; keep the ends."""
    if len(runs) <= max_points:
        return list(runs)
    healthy = [
        place
        for place, run in enumerate(runs)
        if run.effective_outcome is Outcome.PASSED and 0 < place < len(runs) - 1
    ]
    room = max(1, max_points - (len(runs) - len(healthy)))
    step = -(-len(healthy) // room)
    dropped = set(healthy) - set(healthy[::step])
    return [run for place, run in enumerate(runs) if place not in dropped]


def run_hover(run: Run, reader_zone: ZoneInfo) -> str:
    """What hovering a run says: Plotly's few HTML tags, every foreign text escaped."""
    commit = run.commit
    author = hover_text(commit.author or "unknown author", 40)
    lines = [
        f"<b>{commit.short}</b> {hover_text(commit.subject, 70)}",
        f"{author}, {format_time(commit_date(run), reader_zone)}",
        f"{MARKS[run.outcome].glyph} <b>{outcome_words(run)}</b>",
    ]
    figures = run.figures
    if figures is not None:
        lines.append(f"{format_share(figures.num_strict, figures.num_sequences)} sequences agree")
        lines.append(
            f"1 - cos: worst {format_error(error_of(figures.min_similarity))}, "
            f"1st percentile {format_error(error_of(figures.p01_similarity))}, "
            f"median {format_error(error_of(figures.median_similarity))}"
        )
    if run.reason and run.outcome is not Outcome.PASSED:
        lines.append(hover_text(run.reason, 90))
    return "<br>".join(lines)


def outcome_words(run: Run) -> str:
    words = MARKS[run.outcome].word
    if run.inherited_outcome is not None:
        words += f", inherits {MARKS[run.inherited_outcome].word}"
    if run.outcome is Outcome.FAILED and run.culprit not in (None, Culprit.NONE):
        words += f", wrong side: {run.culprit}"
    return words


def change_hover(event: ChangeEvent) -> str:
    """What hovering a change of environment, protocol or benchmark says."""
    shown = [hover_text(str(d), 100) for d in event.differences[:MAX_HOVER_DIFFERENCES]]
    more = len(event.differences) - len(shown)
    lines = [f"<b>{event.kind} changed</b>", *shown, *([f"and {more} more"] if more else [])]
    return "<br>".join(lines)


def _bad_spans(runs: Sequence[Run], places: Sequence[Place]) -> Iterable[Span]:
    """Stretches of bad runs; a run that says nothing of the promise does not end one."""
    start: int | None = None
    last = 0
    for place, run in enumerate(runs):
        if run.effective_outcome.is_bad:
            start = place if start is None else start
            last = place
        elif run.effective_outcome is Outcome.PASSED and start is not None:
            yield Span(start=places[start], end=places[last])
            start = None
    if start is not None:
        yield Span(start=places[start], end=places[last])
