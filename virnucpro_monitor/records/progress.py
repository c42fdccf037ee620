"""How far a start of the runner is, for whoever watches it."""

from collections.abc import Callable
from dataclasses import dataclass

from virnucpro_monitor.records.runs import Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a plan is.

    Attributes:
        phase: "oracle" while reference embeddings are computed, then "validating".
        done, total: sequences of the present benchmark set.
        commit_index, num_commits: 0-based place in the measuring order.
    """

    phase: str
    benchmark: str
    done: int
    total: int
    commit: Commit | None = None
    commit_index: int = 0
    num_commits: int = 0


OnProgress = Callable[[Progress], None]
Say = Callable[[str], None]
"""Takes a line for a person."""
