"""Find the commit at which a verdict changed, either way, around commits that cannot run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.records import Outcome, Run, short_hash
from virnucpro_monitor.runner.sources import Source

GOOD, BAD, SKIP = "good", "bad", "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search found.

    Attributes:
        suspects: one commit where it is certain; several where those between could not be judged
            or the budget was used up. Oldest first.
        verdict: what the suspect brought, "bad" or "good" (a commit that mended).
        exhausted: whether the budget ended the search.
    """

    suspects: tuple[str, ...]
    verdict: str
    exhausted: bool = False


def verdict_of(run: Run | None, gate: str | None = None) -> str:
    """ "good", "bad" or "skip" of a run, by its outcome or by one named gate."""
    if run is None:
        return SKIP
    outcome = run.effective_outcome
    if not outcome.has_verdict:
        return SKIP
    if gate is None:
        return GOOD if outcome is Outcome.PASSED else BAD
    judged = next((one.passed for one in run.gates if one.name == gate), None)
    return SKIP if judged is None else (GOOD if judged else BAD)


def line_between(repository: Source, one: str, other: str) -> tuple[str, ...]:
    """The first-parent line from one commit to the other, both included, oldest first.

    Raises:
        RepositoryError: neither is on the other's line.
    """
    for old, new in ((one, other), (other, one)):
        history = repository.history(new)
        if old in history:
            return history[history.index(old) :]
    raise RepositoryError(
        f"{short_hash(one)} and {short_hash(other)} are not on one line of first parents: "
        f"name two commits of one branch."
    )


class Search:
    """The search itself: give it verdicts, it says which commit to try next.

    Args:
        line: commits from the older end to the newer, both ends judged differently.
        old_verdict: the verdict of the older end; the newer has the other one.
    """

    def __init__(self, line: Sequence[str], old_verdict: str) -> None:
        self._line = list(line)
        self._low, self._high = 0, len(line) - 1
        self._old = old_verdict
        self._skipped: set[int] = set()

    def next(self) -> str | None:
        """The commit to try next, None where nothing is left to try."""
        open_places = [
            place for place in range(self._low + 1, self._high) if place not in self._skipped
        ]
        if not open_places:
            return None
        middle = (self._low + self._high) / 2
        return self._line[min(open_places, key=lambda place: (abs(place - middle), place))]

    def tell(self, commit: str, verdict: str) -> None:
        place = self._line.index(commit)
        if verdict == SKIP:
            self._skipped.add(place)
        elif verdict == self._old:
            self._low = max(self._low, place)
        else:
            self._high = min(self._high, place)

    def finding(self, *, exhausted: bool = False) -> Finding:
        return Finding(
            tuple(self._line[self._low + 1 : self._high + 1]),
            BAD if self._old == GOOD else GOOD,
            exhausted,
        )


def search(
    line: Sequence[str],
    old_verdict: str,
    judge: Callable[[str], str],
    *,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Iterator[Finding]:
    """Drive a search to its end: yields the finding as it narrows, the last one is the answer.

    Args:
        judge: full hash -> "good", "bad" or "skip".
        may_go_on: asked before each commit; False ends the search.
    """
    state = Search(line, old_verdict)
    while (commit := state.next()) is not None:
        if not may_go_on():
            yield state.finding(exhausted=True)
            return
        state.tell(commit, judge(commit))
        yield state.finding()
    yield state.finding()
