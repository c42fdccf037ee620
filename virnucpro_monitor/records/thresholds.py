"""The seed's thresholds on the similarity, and the error that a similarity stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, overload

from virnucpro_monitor.records.outcome import SequenceStatus
from virnucpro_monitor.records.runs import SequenceResult


class Level(StrEnum):
    """Where a sequence stands against the seed's two thresholds."""

    STRICT = "strict"  # above the strict threshold
    LENIENT = "lenient"  # not above strict, not below lenient
    FAILED = "failed"  # below lenient, not finite, lost or doubled


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The seed's rule: none below lenient, at most floor(fraction * n) not above strict."""

    strict: float = 0.999
    lenient: float = 0.995
    fraction: float = 0.01

    @classmethod
    def of_protocol(cls, content: Mapping[str, Any]) -> "Thresholds":
        """From a protocol's content; the seed's where it does not say."""
        stated = content.get("thresholds", {})
        return cls(
            strict=stated.get("strict", 0.999),
            lenient=stated.get("lenient", 0.995),
            fraction=stated.get("lenient_fraction", 0.01),
        )

    def allowance(self, num_sequences: int) -> int:
        """Sequences that may lie at or below strict: floor(fraction * n)."""
        # The tiny addend undoes binary rounding: 0.29 * 100 is 28.999….
        return int(self.fraction * num_sequences + 1e-9)

    def level(self, result: SequenceResult) -> Level:
        """Where one sequence stands; without a similarity it failed."""
        similarity = result.similarity
        if result.status is not SequenceStatus.OK or similarity is None:
            return Level.FAILED
        if similarity < self.lenient:
            return Level.FAILED
        return Level.STRICT if similarity > self.strict else Level.LENIENT


@overload
def error_of(similarity: float) -> float: ...
@overload
def error_of(similarity: None) -> None: ...
@overload
def error_of(similarity: float | None) -> float | None: ...
def error_of(similarity: float | None) -> float | None:
    """e = 1 - cos, never below 0 (rounding can lift a cosine above 1); None stays None."""
    return None if similarity is None else max(0.0, 1.0 - similarity)
