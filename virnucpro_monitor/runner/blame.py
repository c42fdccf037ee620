"""Whose doing it was that a commit failed on a card: its own, or the card's and its other users."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from virnucpro_monitor.records.messages import Failed
from virnucpro_monitor.runner.capacity import ROOM, needed_gpu_bytes
from virnucpro_monitor.runner.endings import Cause
from virnucpro_monitor.runner.failures import is_of_lost_card
from virnucpro_monitor.runner.gpu import Gpu, find_gpu

Look = Callable[[str], Gpu | None]

# What a card that goes can look like. A commit that cannot be imported has not come to its card.
_ON_CARD = frozenset({"exception", "machine", "out_of_memory", "crash", "timeout"})
_NEXT = "The next start tries again."


class Blame:
    """Of failures on one card of this host.

    Args:
        device: "cuda:N"; on "cpu" each failure stays as it is.
        checkpoint: its size tells how much GPU memory one commit is given.
        told: whether NVML told of this host's cards when the yardstick was set up.
    """

    def __init__(self, device: str, checkpoint: Path, *, told: bool, look: Look = find_gpu) -> None:
        self._device = device
        self._checkpoint = checkpoint
        self._told = told
        self._look = look

    def of(self, event: Failed) -> Failed:
        """The same failure, or the machine's where its card has gone or others have filled it."""
        kind, message = event.failure.kind, event.failure.message
        why = self._why_not_its_own(kind, message)
        if why is None:
            return event
        failure = replace(event.failure, kind="machine", message=why)
        return replace(event, ours=True, failure=failure)

    def of_end(self, cause: Cause) -> Cause:
        """Likewise of a process that has ended without a result."""
        why = None if cause.ours else self._why_not_its_own(cause.kind, cause.message)
        return cause if why is None else Cause("machine", why, ours=True)

    def _why_not_its_own(self, kind: str, message: str) -> str | None:
        device = self._device
        if not device.startswith("cuda") or kind not in _ON_CARD:
            return None
        gpu, said = self._look(device), message.rstrip(".")
        if gpu is None and self._told:
            return f"{device} has gone, which this commit was measured on ({said}). {_NEXT}"
        if kind == "machine" and is_of_lost_card(message):
            return f"{device} cannot be used ({said}). {_NEXT}"
        full = None
        if gpu is not None and kind == "out_of_memory":
            full = gpu.why_full(ROOM * needed_gpu_bytes(self._checkpoint))
        return full and f"{device} had no memory left for this commit: {full}. {_NEXT}"
