"""Whose doing it was that a commit failed on a card: its own, or the card's and its other users."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from virnucpro_monitor.records import Failure
from virnucpro_monitor.records.messages import Failed
from virnucpro_monitor.runner.capacity import ROOM, needed_gpu_bytes
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.endings import Cause
from virnucpro_monitor.runner.failures import is_of_lost_card, name_card
from virnucpro_monitor.runner.gpu import Gpu, find_gpu

Look = Callable[[str], Gpu | None]

CARD_GONE, CARD_UNUSABLE = "card", "card_unusable"  # kinds of failure
# What a card that goes can look like. A commit that cannot be imported has not come to its card.
_ON_CARD = frozenset({"exception", "machine", "out_of_memory", "crash", "timeout"})
_NEXT = "The next start tries again."


class Blame:
    """Of failures on one card of this host.

    Args:
        device: "cuda:N"; on "cpu" each failure stays as it is.
        checkpoint: its size tells how much GPU memory one commit is given.
        told: whether NVML has told of this host's cards before.
        host: named beside the card, where it may be one of several.
    """

    def __init__(
        self,
        device: str,
        checkpoint: Path,
        *,
        told: bool,
        host: str = "",
        look: Look = find_gpu,
    ) -> None:
        self._device = device
        self._checkpoint = checkpoint
        self._told = told
        self._name = f"{device} of {host}" if host else device
        self._look = look

    def of(self, event: Failed) -> Failed:
        """The failure with its card's name, or the machine's where that is whose doing it was."""
        failure = name_card(event.failure, self._device)
        found = self._not_its_own(failure.kind, failure.message)
        if found is None:
            return replace(event, failure=failure)
        kind, why = found
        return replace(event, ours=True, failure=replace(failure, kind=kind, message=why))

    def of_end(self, cause: Cause) -> Cause:
        """Likewise of a process that has ended without a result."""
        found = None if cause.ours else self._not_its_own(cause.kind, cause.message)
        return cause if found is None else Cause(*found, ours=True)

    def _not_its_own(self, kind: str, message: str) -> tuple[str, str] | None:
        """(kind, sentence) of a failure that was not the commit's doing, where it was not."""
        if not self._device.startswith("cuda") or kind not in _ON_CARD:
            return None
        gpu, name, said = self._look(self._device), self._name, message.rstrip(".")
        if gpu is None and self._told:
            return (
                CARD_GONE,
                f"{name} has gone, which this commit was measured on ({said}). {_NEXT}",
            )
        if kind == "machine" and is_of_lost_card(message):
            return CARD_UNUSABLE, f"{name} cannot be used ({said}). {_NEXT}"
        if gpu is None or kind != "out_of_memory":
            return None
        full = gpu.why_full(ROOM * needed_gpu_bytes(self._checkpoint))
        if full is None:
            return None
        return "machine", f"{name} had no memory left for this commit: {full}. {_NEXT}"


class Strikes:
    """Cards that cannot be used though NVML tells of them, by what commits met there."""

    def __init__(self) -> None:
        self._commits: dict[Card, set[str]] = {}

    def is_out(self, card: Card, commit: str, failure: Failure | None) -> bool:
        """Note how a commit ended on a card; whether that card is to be left out.

        That takes two commits without a verdict between them: what CUDA says of such a card, a
        commit's own code can bring about, too.
        """
        if failure is None:
            self._commits.pop(card, None)
        elif failure.kind == CARD_UNUSABLE:
            self._commits.setdefault(card, set()).add(commit)
        return len(self._commits.get(card, ())) > 1
