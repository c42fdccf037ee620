"""A sequence's letters in base and head: where along it the error lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app import data, links, markup, shell
from app.letters import is_coloured, letters, letters_legend
from app.markup import Value
from app.text import format_error, one_line
from virnucpro_monitor.analysis.comparison import Comparison, Level, Mark, Thresholds
from virnucpro_monitor.analysis.series import error_of
from virnucpro_monitor.records import Outcome, Run, SequencePoint, SequenceResult

MAX_LOOKED_AT = 8  # failed runs whose record is read
SIDES = (
    ("packed_unpacked", "packed against unpacked"),
    ("packed", "packed against the oracle"),
    ("unpacked", "unpacked against the oracle"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A sequence in one run.

    Attributes:
        role: "base" or "head".
        errors: of its residues, by side; None where they were not recorded.
    """

    role: str
    run: Run
    result: SequenceResult
    errors: Mapping[str, Sequence[float | None]] | None


def put_letters(
    points: Sequence[SequencePoint], card: data.SeriesCard, thresholds: Mapping[str, Thresholds]
) -> None:
    """The head is the newest run that recorded this sequence's residues, or else the newest bad
    one; the base the last good one before it."""
    latest = points[-1].result
    residues = _residues(latest.sequence_id, card.key.benchmark_label)[: latest.length]
    if not residues:
        return
    place = _head(points, thresholds)
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
    both = [] if base is None else [_shown("base", base.run, base.result)]
    _put([*both, _shown("head", points[place].run, points[place].result)], residues)


def put_compared_letters(comparison: Comparison) -> None:
    """The sequence that fell furthest from base to head, letter by letter on both sides."""
    base, head = comparison.base.measured, comparison.head.measured
    fallen = [
        change
        for change in comparison.sequences
        if change.mark in (Mark.NEWLY_FAILING, Mark.WORSE) or change.head_level is Level.FAILED
    ]
    if not fallen:
        return
    of_head = data.load_residue_errors(head)
    recorded = [change for change in fallen if change.sequence_id in of_head]
    worst = max(recorded or fallen, key=lambda one: one.decades or 0.0)
    residues = _residues(worst.sequence_id, head.benchmark_label)[: worst.head.length]
    if not residues:
        return
    shell.heading(f"Along the residues of {one_line(worst.sequence_id, 60)}", "letters")
    _put(
        [
            _shown("base", base, worst.base),
            Shown(role="head", run=head, result=worst.head, errors=of_head.get(worst.sequence_id)),
        ],
        residues,
    )


def _shown(role: str, run: Run, result: SequenceResult) -> Shown:
    errors = data.load_residue_errors(run).get(result.sequence_id)
    return Shown(role=role, run=run, result=result, errors=errors)


def _put(shown: Sequence[Shown], residues: str) -> None:
    """Side by side of what was recorded: base above head."""
    for one in shown:
        if one.errors is None:
            _plain(one, residues)
    for side, words in SIDES:
        for one in shown:
            values = (one.errors or {}).get(side) or []
            if values and is_coloured(values):
                told = f"{words}, 1 - cos of each residue"
                shell.put(
                    markup.paragraph(one.role, _commit(one), f"— {told}"),
                    letters(
                        residues,
                        values,
                        name=f"{one.role}, {words}",
                        worst=one.result.worst_residue,
                    ),
                )
    shell.put(letters_legend())
    if any(one.errors is None for one in shown):
        shell.put(
            markup.paragraph(
                "A run records the error of each residue for the worst sequences of a failed run "
                "only; of others the worst residue is known, and no residue is worse.",
                kind="quiet",
            )
        )


def _plain(shown: Shown, residues: str) -> None:
    """What is known of every residue without a record: none is worse than the worst."""
    result = shown.result
    error = error_of(result.worst_residue_similarity)
    told = "its residues are not recorded"
    if result.worst_residue is not None and result.worst_residue < len(residues):
        name = f"{residues[result.worst_residue]}{result.worst_residue + 1}"
        told = f"packed against unpacked: worst residue {name}, 1 - cos {format_error(error)}"
        if result.p01_residue_similarity is not None and len(residues) >= 100:
            most = format_error(error_of(result.p01_residue_similarity))
            told += f"; 99 % of its residues at most {most}"
    shell.put(
        markup.paragraph(shown.role, _commit(shown), f"— {told}"),
        letters(
            residues,
            None,
            name=f"{shown.role}, {told}",
            worst=result.worst_residue,
            worst_error=error,
        ),
    )


def _commit(shown: Shown) -> Value:
    commit = shown.run.commit
    return markup.anchor(links.run_link(shown.run), markup.mono(commit.short), title=commit.hash)


def _residues(sequence_id: str, benchmark_label: str) -> str:
    """All of them, as they stand in the benchmark set."""
    sets = {one.label: one for one in data.load_benchmarks()}
    known = sets.get(benchmark_label)
    for one in known.sequences if known is not None else ():
        if one.id == sequence_id:
            return one.residues
    return ""


def _head(points: Sequence[SequencePoint], thresholds: Mapping[str, Thresholds]) -> int:
    """Its place in `points`: the newest bad run that recorded it, or in which it is bad."""
    bad = [place for place, one in enumerate(points) if one.run.effective_outcome is Outcome.FAILED]
    for place in bad[: -MAX_LOOKED_AT - 1 : -1]:
        point = points[place]
        if point.result.sequence_id in data.load_residue_errors(point.run):
            return place
    worse = [
        place
        for place, one in enumerate(points)
        if thresholds[one.run.protocol_digest].level(one.result) is not Level.STRICT
    ]
    return worse[-1] if worse else len(points) - 1
