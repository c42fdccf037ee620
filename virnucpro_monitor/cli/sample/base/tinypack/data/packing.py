"""First-fit decreasing: which sequences share a pack."""

from collections.abc import Sequence


def plan_packs(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Distribute indices of `lengths` (tokens) over packs of at most `budget` tokens.

    A sequence longer than the budget gets a pack of its own.
    """
    packs: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for pack, left in enumerate(room):
            if lengths[index] <= left:
                packs[pack].append(index)
                room[pack] -= lengths[index]
                break
        else:
            packs.append([index])
            room.append(budget - lengths[index])
    return packs
