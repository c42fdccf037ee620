"""Which stretches of a series cannot hold a change, said without looking for one.

An optimal segmentation looks at each pair of places; most stretches are plain noise, where a bound
on what any segmentation could gain says the same for a tenth of the work.
"""

from typing import Any

_EXACT = 16  # up to here each length is looked at by itself
_RATIO = 1.125  # beyond, lengths of one class differ by this at most: the bound is that much loose
_ROUNDING = 1.0 - 1e-9


def find_level(blocks: Any, charge: float) -> Any:
    """Blocks that least squares leave in one piece where each change is charged. [k, n] -> [k]

    True is certain; False says nothing.

    With deviations d from a block's mean, a segmentation into segments s gains sum(s) of
    sum(d in s)^2 / |s|. One change gains G1, known for each place from the sums alone. K changes
    make K + 1 segments, so they gain (K + 1) M at most, with M the greatest that one segment can
    have. No change is best where G1 < charge and 3 M < 2 charge.
    """
    import numpy as np

    num_blocks, size = blocks.shape
    if size < 2:
        return np.ones(num_blocks, dtype=bool)
    sums = np.zeros((num_blocks, size + 1))
    np.cumsum(blocks - blocks.mean(axis=1, keepdims=True), axis=1, out=sums[:, 1:])
    left = np.arange(1, size)
    one_change = np.max(sums[:, 1:-1] ** 2 * (size / (left * (size - left))), axis=1)
    most = _greatest_segment(sums)
    return (one_change < _ROUNDING * charge) & (3.0 * most < _ROUNDING * 2.0 * charge)


def _greatest_segment(sums: Any) -> Any:
    """A bound on (sums[b] - sums[a])^2 / (b - a) over all a < b. [k, n + 1] -> [k]"""
    import numpy as np

    size = sums.shape[1] - 1
    # Where a window passes the end, what is beyond repeats the last sum: it asks for no new pair.
    padded = np.pad(sums, ((0, 0), (0, int(size * (_RATIO - 1.0)) + 1)), mode="edge")
    highest, lowest = [padded], [padded]  # of windows of 1, 2, 4, … sums
    most = np.zeros(len(sums))
    shortest = 1
    while shortest <= size:
        longest = shortest if shortest < _EXACT else min(size, int(shortest * _RATIO))
        level = (longest - shortest + 1).bit_length() - 1
        while len(highest) <= level:
            half = 1 << (len(highest) - 1)
            highest.append(np.maximum(highest[-1][:, :-half], highest[-1][:, half:]))
            lowest.append(np.minimum(lowest[-1][:, :-half], lowest[-1][:, half:]))
        # Each start with the highest and the lowest sum `shortest` to `longest` after it: of two
        # windows of a power of two, which overlap.
        first, second = shortest, longest + 1 - (1 << level)
        num = size + 1 - shortest
        high = np.maximum(highest[level][:, first:][:, :num], highest[level][:, second:][:, :num])
        low = np.minimum(lowest[level][:, first:][:, :num], lowest[level][:, second:][:, :num])
        starts = sums[:, :num]
        widest = np.maximum((high - starts).max(axis=1), (starts - low).max(axis=1))
        np.maximum(most, widest**2 / shortest, out=most)
        shortest = longest + 1
    return most
