"""Results of many runs at once, column by column: for exports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virnucpro_monitor.records.runs import Run


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """Results of neighbouring runs.

    Attributes:
        runs: that the rows belong to, by id.
        columns: the stored values of each result by column name as Arrow arrays, all alike long,
            ordered by run and index; `status` as text, `truncated` as a truth value or 0 and 1. One
            whose values are all missing may be of any type.
        sequence_ids: by run id, then by the index in its set.
    """

    runs: Mapping[int, Run]
    columns: Mapping[str, Any]
    sequence_ids: Mapping[int, Sequence[str]]
