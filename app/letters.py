"""A sequence's own letters with their error as a colour, to read, select and copy. Pure."""

import math
from collections.abc import Sequence

from app.markup import Html
from app.text import format_error, html_text

BLOCK = 10
LOWEST, HIGHEST = -6, 0  # decades that have a colour of their own
_NOT_FINITE = "ex"


def letters(
    residues: str,
    errors: Sequence[float | None] | None,
    *,
    name: str,
    worst: int | None = None,
    worst_error: float | None = None,
) -> Html:
    """Letters in blocks of ten, numbered; each says its place and its error.

    Args:
        errors: one for each residue, None for one that is not finite; without any, only the worst
            one has a colour, and the others are at most as bad.
        worst: 0-based residue to mark.
        worst_error: its error, where it is all that is known.
    """
    if errors is None and worst is not None and worst_error is not None:
        most = f"at most {format_error(worst_error)}"
        shown = [
            _letter(residue, place, [worst_error] * (place + 1), worst)
            if place == worst
            else f'<i class="" title="{html_text(residue)}{place + 1} {most}">'
            f"{html_text(residue)}</i>"
            for place, residue in enumerate(residues)
        ]
    else:
        shown = [_letter(residue, place, errors, worst) for place, residue in enumerate(residues)]
    blocks = "".join(
        f'<span class="block" data-n="{start + 1}">{"".join(shown[start : start + BLOCK])}</span>'
        for start in range(0, len(shown), BLOCK)
    )
    return Html(
        f'<div class="vm-letters" role="group" aria-label="{html_text(name)}">{blocks}</div>'
    )


def is_coloured(errors: Sequence[float | None]) -> bool:
    """Whether any letter would have a colour."""
    return any(_colour(error) != "e0" for error in errors)


def letters_legend() -> Html:
    """Which colour stands for which decade."""
    parts = [f'<span><i class="e0">A</i> below 1e{LOWEST}</span>']
    parts += [
        f'<span><i class="e{step}">A</i> 1e{decade}</span>'
        for step, decade in enumerate(range(LOWEST, HIGHEST), start=1)
    ]
    parts.append(f'<span><i class="{_NOT_FINITE}">A</i> not finite</span>')
    return Html(f'<div class="vm-legend vm-letters">{"".join(parts)}</div>')


def _letter(
    residue: str, place: int, errors: Sequence[float | None] | None, worst: int | None
) -> str:
    letter = html_text(residue)
    kind, words = "", ""
    if errors is not None:
        error = errors[place] if place < len(errors) else None
        kind, words = _colour(error), "not finite" if error is None else format_error(error)
    if place == worst:
        kind, words = f"{kind} w", f"{words} the worst residue"
    return f'<i class="{kind.strip()}" title="{letter}{place + 1} {words}">{letter}</i>'


def _colour(error: float | None) -> str:
    if error is None or not math.isfinite(error):
        return _NOT_FINITE
    if error <= 0:
        return "e0"
    step = math.floor(math.log10(error)) - LOWEST + 1
    return f"e{min(max(step, 0), HIGHEST - LOWEST)}"
