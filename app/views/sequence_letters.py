"""A sequence's letters in base and head: where along it the error lies."""

from collections.abc import Mapping, Sequence
from typing import Any

from app import data, links, markup, shell
from app.letters import is_coloured, letters, letters_legend
from app.markup import Value
from app.text import format_error
from virnucpro_monitor.analysis.comparison import Level, Thresholds
from virnucpro_monitor.analysis.series import error_of
from virnucpro_monitor.records import Outcome, SequencePoint

MAX_LOOKED_AT = 8  # failed runs whose record is read
SIDES = (
    ("packed_unpacked", "packed against unpacked"),
    ("packed", "packed against the oracle"),
    ("unpacked", "unpacked against the oracle"),
)


def put_letters(
    points: Sequence[SequencePoint], card: data.SeriesCard, thresholds: Mapping[str, Thresholds]
) -> None:
    """The head is the newest run that recorded this sequence's residues, or else the newest bad
    one; the base the last good one before it."""
    latest = points[-1].result
    residues = _residues(latest.sequence_id, card)[: latest.length]
    if not residues:
        return
    place, traced = _head(points, thresholds)
    head = points[place]
    base = next(
        (
            point
            for point in reversed(points[:place])
            if thresholds[point.run.protocol_digest].level(point.result) is Level.STRICT
            and point.run.effective_outcome is Outcome.PASSED
        ),
        None,
    )
    shell.heading("Along its residues", "letters")
    if base is not None:
        _plain("base", base, residues)
    if traced is None:
        _plain("head", head, residues)
        shell.put(
            markup.paragraph(
                "A run records the error of each residue for the worst sequences of a failed run "
                "only; here the worst residue alone is known.",
                kind="quiet",
            )
        )
        return
    errors: Mapping[str, Any] = traced.get("errors") or {}
    for side, words in SIDES:
        values = errors.get(side) or []
        if values and is_coloured(values):
            shell.put(
                markup.paragraph("head", _commit(head), f"— {words}, 1 - cos of each residue"),
                letters(residues, values, name=f"head, {words}", worst=head.result.worst_residue),
            )
    shell.put(letters_legend())


def _plain(role: str, point: SequencePoint, residues: str) -> None:
    result = point.result
    told = "its residues are not recorded"
    if result.worst_residue is not None and result.worst_residue < len(residues):
        name = f"{residues[result.worst_residue]}{result.worst_residue + 1}"
        error = format_error(error_of(result.worst_residue_similarity))
        told = f"worst residue {name}, 1 - cos {error}"
    shell.put(
        markup.paragraph(role, _commit(point), f"— {told}"),
        letters(residues, None, name=f"{role}, {told}", worst=result.worst_residue),
    )


def _commit(point: SequencePoint) -> Value:
    run = point.run
    return markup.anchor(links.run_link(run), markup.mono(run.commit.short), title=run.commit.hash)


def _residues(sequence_id: str, card: data.SeriesCard) -> str:
    """All of them, as they stand in the benchmark set."""
    sets = {one.label: one for one in data.load_benchmarks()}
    known = sets.get(card.key.benchmark_label)
    for one in known.sequences if known is not None else ():
        if one.id == sequence_id:
            return one.residues
    return ""


def _head(
    points: Sequence[SequencePoint], thresholds: Mapping[str, Thresholds]
) -> tuple[int, Mapping[str, Any] | None]:
    """Its place in `points`, and what was recorded of the sequence there."""
    bad = [place for place, one in enumerate(points) if one.run.effective_outcome is Outcome.FAILED]
    for place in bad[: -MAX_LOOKED_AT - 1 : -1]:
        document = data.load_document(points[place].run, "residues")
        traced = document.get("sequences") if isinstance(document, Mapping) else None
        for one in traced or ():
            if one.get("sequence_id") == points[place].result.sequence_id:
                return place, one
    worse = [
        place
        for place, one in enumerate(points)
        if thresholds[one.run.protocol_digest].level(one.result) is not Level.STRICT
    ]
    return (worse[-1] if worse else len(points) - 1), None
