"""How an outcome looks: a word, a shape and a colour that agree everywhere.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; the shape says the same
without any colour. They hold at least 3:1 against both a white and a near-black page.
"""

from dataclasses import dataclass

from virnucpro_monitor.records import Outcome

GREEN = "#009E73"
VERMILION = "#D55E00"
PURPLE = "#B8659A"
BLUE = "#2B7CB8"
AMBER = "#C98A00"
GREY = "#808890"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One outcome's looks.

    Attributes:
        symbol: Plotly's name of the marker.
        glyph: the same shape as a character.
    """

    word: str
    sentence: str
    symbol: str
    glyph: str
    colour: str


MARKS: dict[Outcome, Mark] = {
    Outcome.PASSED: Mark(
        word="passed",
        sentence="Packed equals unpacked.",
        symbol="circle",
        glyph="●",
        colour=GREEN,
    ),
    Outcome.FAILED: Mark(
        word="failed",
        sentence="The promise is broken.",
        symbol="x",
        glyph="✖",
        colour=VERMILION,
    ),
    Outcome.ERROR: Mark(
        word="error",
        sentence="The commit could not be run.",
        symbol="triangle-up",
        glyph="▲",
        colour=PURPLE,
    ),
    Outcome.SKIPPED: Mark(
        word="skipped",
        sentence="Nothing relevant changed; the result is inherited.",
        symbol="circle-open",
        glyph="○",
        colour=BLUE,
    ),
    Outcome.NOT_RUN: Mark(
        word="not run",
        sentence="There is no measurement.",
        symbol="line-ew-open",
        glyph="—",
        colour=GREY,
    ),
}
