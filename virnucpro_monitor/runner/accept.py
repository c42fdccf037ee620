"""Accept what a measuring worker says only where it fits what it was asked.

The types and ranges of a message are checked as it is read (`records.messages`); here it is held
against the job.
"""

from virnucpro_monitor.records import BenchmarkSet, Outcome, Verdict
from virnucpro_monitor.records.messages import (
    Advanced,
    Failed,
    Judged,
    MessageError,
    NearingEnd,
    Said,
)

_ROUNDING = 1e-6  # by which a cosine may lie outside -1 and 1


class Acceptance:
    """Follows one worker's events; called with each.

    Args:
        first: index of the benchmark set that the worker begins with.
    """

    def __init__(self, benchmarks: tuple[BenchmarkSet, ...], first: int) -> None:
        self._benchmarks = benchmarks
        self._next = first
        self._over = False

    def __call__(self, said: Said) -> None:
        """Raise `MessageError` where `said` cannot come now, or cannot be a result."""
        if not isinstance(said, (Advanced, NearingEnd, Judged, Failed)):
            raise MessageError("A message was not asked for.")
        if self._over or said.benchmark >= len(self._benchmarks):
            raise MessageError("A message came after the last that was expected.")
        if isinstance(said, Advanced) and said.benchmark >= self._next:
            return  # of an oracle it may be another set's
        if said.benchmark != self._next:
            raise MessageError(f"A message is about benchmark set {said.benchmark} out of turn.")
        if isinstance(said, NearingEnd):
            return
        if isinstance(said, Judged):
            check_verdict(said.verdict, self._benchmarks[said.benchmark])
        self._next += 1
        self._over = isinstance(said, Failed)


def check_verdict(verdict: Verdict, benchmark: BenchmarkSet) -> None:
    """Raise `MessageError` unless this can be a verdict on this benchmark set."""
    if not verdict.outcome.has_verdict:
        raise MessageError(f"A verdict says {verdict.outcome}, which no verdict is.")
    asked = [sequence.id for sequence in benchmark.sequences]
    if [one.sequence_id for one in verdict.sequences] != asked:
        raise MessageError(f"A verdict is not on the sequences of {benchmark.label}.")
    figures = verdict.figures
    if figures.num_sequences != len(asked) or not (
        0 <= figures.num_strict <= len(asked)
        and 0 <= figures.num_failed <= len(asked)
        and 0 <= figures.strict_pass_rate <= 1
        and figures.num_tokens >= 0
    ):
        raise MessageError("A verdict's figures do not count its sequences.")
    similarities = [figures.min_similarity, figures.median_similarity, figures.max_similarity]
    similarities += [one.similarity for one in verdict.sequences]
    if any(one is not None and abs(one) > 1 + _ROUNDING for one in similarities):
        raise MessageError("A verdict holds a cosine beyond 1.")
    broken = not figures.seed_passed or any(gate.fails for gate in verdict.gates)
    if not verdict.gates or (verdict.outcome is Outcome.PASSED) == broken:
        raise MessageError("A verdict does not follow from its own gates.")
