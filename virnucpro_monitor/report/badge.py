"""A badge for a README: one word of the newest verdicts, as a self-contained SVG."""

from collections.abc import Sequence

from virnucpro_monitor.monitor.histories import SeriesCard
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.report.text import count, html_text

LABEL = "packed = unpacked"

_GREEN, _RED, _AMBER, _GREY = "#1a7f4b", "#b3390b", "#8a6100", "#5f666d"
_CHARACTER_PX = 6.6  # of 11 px Verdana, on average; `textLength` makes up for the rest
_PADDING_PX = 7.0


def badge_words(cards: Sequence[SeriesCard]) -> tuple[str, str]:
    """(what is said, colour) of the series that are measured at the newest commits.

    Broken wins over what could not be run, and that over what has no verdict yet.
    """
    watched = [card for card in cards if not card.is_unwatched]
    outcomes = [card.latest.effective_outcome for card in watched]
    failed = sum(outcome is Outcome.FAILED for outcome in outcomes)
    if failed:
        some = "" if failed == len(outcomes) else f" in {failed} of {len(outcomes)}"
        return f"broken{some}", _RED
    if Outcome.ERROR in outcomes:
        return "could not be run", _AMBER
    if outcomes and all(outcome is Outcome.PASSED for outcome in outcomes):
        return f"passing, {count(len(outcomes), 'set-up')}", _GREEN
    return "no verdict", _GREY


def badge_svg(cards: Sequence[SeriesCard], label: str = LABEL) -> str:
    """The badge as SVG, 20 px high, white on colours with a contrast of at least 4.5 to 1."""
    words, colour = badge_words(cards)
    left, right = (len(text) * _CHARACTER_PX + 2 * _PADDING_PX for text in (label, words))
    title = html_text(f"{label}: {words}")

    def text(shown: str, start: float, width: float) -> str:
        inner = width - 2 * _PADDING_PX
        return (
            f'<text x="{start + width / 2:.1f}" y="14" textLength="{inner:.1f}" '
            f'lengthAdjust="spacingAndGlyphs">{html_text(shown)}</text>'
        )

    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:.1f}" height="20" '
        f'role="img" aria-label="{title}"><title>{title}</title>'
        f'<clipPath id="round"><rect width="{left + right:.1f}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#round)"><rect width="{left:.1f}" height="20" fill="#3d444c"/>'
        f'<rect x="{left:.1f}" width="{right:.1f}" height="20" fill="{colour}"/></g>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" '
        f'font-size="11">{text(label, 0, left)}{text(words, left, right)}</g></svg>\n'
    )
