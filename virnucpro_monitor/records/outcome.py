"""What can become of a run, of its sides and of its sequences."""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a run. The five are never conflated."""

    PASSED = "passed"
    FAILED = "failed"  # the promise is broken
    ERROR = "error"  # the target could not be run
    SKIPPED = "skipped"  # nothing relevant changed: inherited from an earlier commit
    NOT_RUN = "not_run"  # with a reason

    @property
    def has_verdict(self) -> bool:
        """Whether it says that the promise holds or that it is broken."""
        return self in (Outcome.PASSED, Outcome.FAILED)

    @property
    def is_bad(self) -> bool:
        """Whether somebody has to do something about the commit."""
        return self in (Outcome.FAILED, Outcome.ERROR)


VERDICTS = tuple(outcome for outcome in Outcome if outcome.has_verdict)
"""The outcomes with a verdict, for filters and queries."""


class Culprit(StrEnum):
    """The side that departs from the FP32 oracle."""

    NONE = "none"
    PACKED = "packed"
    UNPACKED = "unpacked"
    BOTH = "both"


class SequenceStatus(StrEnum):
    """Whether a sequence came back from the packed path, once and finite."""

    OK = "ok"
    NOT_FINITE = "not_finite"
    LOST = "lost"
    DOUBLED = "doubled"
