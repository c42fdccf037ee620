"""What the sequences that do not agree have in common, from their stored places and lengths. Pure.

The trace finds a cause by trying; this only reads a run's results, and says what they show.
"""

from collections.abc import Callable, Sequence

from virnucpro_monitor.records import Level, SequenceResult, Thresholds

_Test = Callable[[SequenceResult], bool]


def shared_by_failing(results: Sequence[SequenceResult], thresholds: Thresholds) -> list[str]:
    """Sentences that hold for all sequences that do not agree, and for none that agrees.

    Args:
        results: all of one run.

    Returns:
        Empty where all agree, or none does, or nothing tells the two apart.
    """
    bad = [one for one in results if thresholds.level(one) is not Level.STRICT]
    good = [one for one in results if thresholds.level(one) is Level.STRICT]
    if not bad or not good:
        return []
    found = []
    shortest, longest = min(one.length for one in bad), max(one.length for one in bad)
    if shortest > max(one.length for one in good):
        found.append(f"all of {shortest:,} residues or more, and no shorter one")
    if longest < min(one.length for one in good):
        found.append(f"all of {longest:,} residues or fewer, and no longer one")
    for words, test in _places(results):
        if all(map(test, bad)) and not any(map(test, good)):
            found.append(words)
    packs = {one.pack for one in bad}
    if None not in packs and packs.isdisjoint(one.pack for one in good):
        names = ", ".join(str(pack + 1) for pack in sorted(p for p in packs if p is not None))
        found.append(f"all of pack{'' if len(packs) == 1 else 's'} {names}")
    return found


def _places(results: Sequence[SequenceResult]) -> tuple[tuple[str, _Test], ...]:
    """Where in its pack a sequence can lie."""
    last: dict[int | None, int] = {}
    longest: dict[int | None, int] = {}
    for one in results:
        last[one.pack] = max(last.get(one.pack, 0), one.slot or 0)
        longest[one.pack] = max(longest.get(one.pack, 0), one.length)

    def is_first(one: SequenceResult) -> bool:
        return one.slot == 0

    def is_last(one: SequenceResult) -> bool:
        return one.slot is not None and one.slot == last[one.pack]

    def is_longest(one: SequenceResult) -> bool:
        return one.pack is not None and one.length == longest[one.pack]

    return (
        ("the first of each pack", is_first),
        ("the last of each pack", is_last),
        ("the longest of each pack", is_longest),
        ("all but the first of each pack", lambda one: one.slot is not None and one.slot > 0),
        ("all but the last of each pack", lambda one: one.slot is not None and not is_last(one)),
        (
            "all but the longest of each pack",
            lambda one: one.pack is not None and not is_longest(one),
        ),
        ("those that were truncated", lambda one: one.truncated),
    )
