"""Did the embeddings move? Each side of one run against the same side of another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from virnucpro_monitor.records import Json, PooledEmbeddings

LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SideMoved:
    """How far one side's pooled embeddings moved from base to head.

    Attributes:
        side: "packed" or "unpacked".
        num_compared: sequences with an embedding in both runs.
        num_identical: of these, equal to the last bit.
        num_not_finite: sequences of both runs that cannot be compared, since one has no number.
        worst: largest relative L2, None where none was compared.
        noise: by how much reordering a pack, or packing at all, moved embeddings in healthy runs;
            None where neither was healthy.
        most: (sequence's id, relative L2) of those that moved most, the furthest first.
    """

    side: str
    num_compared: int
    num_identical: int
    num_not_finite: int
    worst: float | None
    noise: float | None
    most: tuple[tuple[str, float], ...]

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the furthest moved by more than the noise; None where that cannot be told."""
        return None if self.worst is None or self.noise is None else self.worst > self.noise


def compare_embeddings(
    base: PooledEmbeddings | None,
    base_ids: Sequence[str],
    head: PooledEmbeddings | None,
    head_ids: Sequence[str],
    noise_documents: Sequence[Json],
) -> tuple[SideMoved, ...]:
    """Each side, packed first; empty where a run's embeddings are not kept or of another width.

    Args:
        base_ids, head_ids: sequences in the order of the embeddings.
        noise_documents: "noise" of the runs.
    """
    if base is None or head is None or base.packed.shape[1] != head.packed.shape[1]:
        return ()
    if len(base_ids) != len(base.packed) or len(head_ids) != len(head.packed):
        return ()
    known = [one.get("reordered") for one in noise_documents if one]
    noise = max((float(one) for one in known if one is not None), default=None)
    places = {name: place for place, name in enumerate(base_ids)}
    pairs = [(name, places[name], place) for place, name in enumerate(head_ids) if name in places]
    found = []
    for side in ("packed", "unpacked"):
        before, after = getattr(base, side), getattr(head, side)
        moved: dict[str, float] = {}
        for name, old, new in pairs:
            distance = _distance(before[old].tolist(), after[new].tolist())
            if distance is not None:
                moved[name] = distance
        furthest = sorted(moved.items(), key=lambda one: -one[1])[:LISTED]
        found.append(
            SideMoved(
                side=side,
                num_compared=len(moved),
                num_identical=sum(
                    before[old].tobytes() == after[new].tobytes()
                    for name, old, new in pairs
                    if name in moved
                ),
                num_not_finite=len(pairs) - len(moved),
                worst=furthest[0][1] if furthest else None,
                noise=noise,
                most=tuple(one for one in furthest if one[1] > 0),
            )
        )
    return tuple(found)


def moved_sentence(moved: SideMoved) -> str:
    """What became of one side, for a person."""
    left = moved.num_not_finite
    rest = f"; {left} more {'has' if left == 1 else 'have'} none that is finite" if left else ""
    if not moved.num_compared:
        return f"{moved.side}: no sequence has an embedding in both runs{rest}"
    if moved.num_identical == moved.num_compared:
        return f"{moved.side}: all {moved.num_compared} embeddings are bit-identical{rest}"
    said = (
        f"{moved.side}: {moved.num_identical} of {moved.num_compared} embeddings are "
        f"bit-identical, the furthest moved by {moved.worst:.1e} (relative L2)"
    )
    if moved.noise is not None:
        where = "beyond" if moved.beyond_noise else "within"
        said += f", {where} the noise of {moved.noise:.1e}"
    return said + rest


def _distance(before: Sequence[float], after: Sequence[float]) -> float | None:
    """||after - before|| / ||before||; None where a value is missing."""
    if not all(map(math.isfinite, before)) or not all(map(math.isfinite, after)):
        return None
    size = math.hypot(*before)
    difference = math.dist(before, after)
    return difference / size if size else (0.0 if difference == 0 else None)
