"""How much is measured at once, and whether the next commit may still begin."""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from virnucpro_monitor.records.progress import Say
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.gpu import Gpu, find_gpu, wait_for_gpu
from virnucpro_monitor.runner.plan import RunPlan

MAX_ON_GPU = 4
PROCESSES = 2  # of a commit on its card: the target's and the judge's
ROOM = 4  # times what a commit needs, that one is given on a card
ROOM_BESIDE = 3  # times that: for the present one, the one that stands by, and to spare
GPU_RESERVE_BYTES = 2 * 1024**3  # CUDA itself, and the activations of a pack


class Capacity:
    """Room for a plan's commits on its cards. The clock of `max_minutes` runs from its making.

    Args:
        checkpoint: its size tells how much GPU memory one commit takes; None where the cards are
            not this host's.
        held: how many commits' processes stand by on a device.
        give_way: ends all that stand by.
        say: receives lines while a busy GPU is waited for, and when one is left out.
        before: a card as it was before processes of ours were there; None: as it is now.
        share: how many at once on which card, asked anew each time: a cluster grows and shrinks.
            None where this host's cards are shared out once (`share_workers`).
    """

    def __init__(
        self,
        plan: RunPlan,
        cards: Sequence[Card],
        num_commits: int,
        checkpoint: Path | None,
        say: Say,
        look: Callable[[str], Gpu | None] = find_gpu,
        held: Callable[[str], int] = lambda _: 0,
        give_way: Callable[[], None] = lambda: None,
        before: Callable[[str], Gpu | None] | None = None,
        share: Callable[[], dict[Card, int]] | None = None,
    ) -> None:
        self._plan = plan
        self._share = share
        self._held = held
        self._give_way = give_way
        self._say = say
        self._look = look
        self._needed_bytes = 0 if checkpoint is None else needed_gpu_bytes(checkpoint)
        self._end = None if plan.max_minutes is None else time.monotonic() + plan.max_minutes * 60
        self._reason: str | None = None
        self.time_is_over = False  # and that is why no further commit is begun
        self._said: set[str] = set()
        self._seen: set[Card] = set()
        self._slots = share_workers(plan, cards, num_commits, self._needed_bytes, before or look)
        self.most = sum(self._slots.values())

    @property
    def num_workers(self) -> int:
        """How many commits may be measured at once now, `most` at any time."""
        if self._share is None:
            return self.most
        return max(1, min(self.most, sum(self._share().values())))

    def why_not(self, active: Collection[Card | None]) -> str | None:
        """Why no further commit is begun by this start, None where one may be.

        A reason once found stays.

        Args:
            active: the card of each commit that is being measured.
        """
        if self._reason is None and self._end is not None and time.monotonic() > self._end:
            self.time_is_over = True
            minutes = self._plan.max_minutes
            self._reason = f"The limit of {minutes:g} min was reached before this commit."
        if self._reason is None and not self._slots:
            self._reason = (
                f"No card of {self._plan.request.device} is left to measure this on: all have "
                "gone. The next start tries again."
            )
        if self._reason is None and not active and self._on_gpu:
            # Another start may wait for what stands by here, as we do for it.
            if self._is_held_up():
                self._give_way()
            self._reason = wait_for_gpu(
                self._plan.request.device,
                limit_s=self._plan.gpu_wait_s,
                needed_bytes=self._needed_bytes,
                num_processes=PROCESSES * max(map(self._held_on, self._slots)),
                look=lambda _: self._freest(),
                on_wait=self._say,
            )
        return self._reason

    def free_card(
        self, active: Collection[Card | None], nearing_end: Collection[Card | None] = ()
    ) -> Card | None:
        """The card to begin the next commit on, the least busy first; None where none has room.

        Args:
            nearing_end: the cards of those commits of the active ones that no longer take a place.
        """
        used, ending = Counter(active), Counter(nearing_end)
        used.subtract(ending)
        if len(active) - len(nearing_end) >= self.num_workers:
            return None
        slots = self._slots if self._share is None else self._share()
        for card in sorted(slots, key=lambda card: (used[card], card.place)):
            if used[card] < slots[card] and (
                not self._on_gpu or self._is_usable(card, used[card] + ending[card])
            ):
                return card
        return None

    def leave_out(self, card: Card) -> None:
        """Begin nothing more on a card that cannot be used, as long as there is another one."""
        if card in self._slots and len(self._slots) > 1:
            del self._slots[card]
            self._say(f"{card.device} cannot be used: going on without it.")

    @property
    def _on_gpu(self) -> bool:
        return self._plan.request.device.startswith("cuda")

    def _is_usable(self, card: Card, num_jobs: int) -> bool:
        gpu = self._look(card.device)
        if gpu is None:
            if card not in self._seen:
                return True  # NVML does not tell: the worker sees for itself
            del self._slots[card]
            self._say_once(f"{card.device} has gone: going on without it.")
            return False
        self._seen.add(card)
        busy = gpu.why_busy(self._needed_bytes, PROCESSES * (num_jobs + self._held_on(card)))
        if busy is not None:
            self._say_once(f"{card.device} has no room for another commit now: {busy}.")
        return busy is None

    def _is_held_up(self) -> bool:
        """Whether we have to wait for a card while processes of ours stand by on one."""
        most = max(map(self._held_on, self._slots))
        gpu = self._freest() if most else None
        return gpu is not None and gpu.why_busy(self._needed_bytes, PROCESSES * most) is not None

    def _freest(self) -> Gpu | None:
        """A GPU that nothing stands against, or else any."""
        found = [gpu for card in self._slots if (gpu := self._look(card.device)) is not None]
        most = PROCESSES * max(map(self._held_on, self._slots), default=0)
        free = [gpu for gpu in found if gpu.why_busy(self._needed_bytes, most) is None]
        return next(iter(free or found), None)

    def _held_on(self, card: Card) -> int:
        return self._held(card.device)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def share_workers(
    plan: RunPlan,
    cards: Sequence[Card],
    num_commits: int,
    needed_bytes: int = 0,
    look: Callable[[str], Gpu | None] = find_gpu,
) -> dict[Card, int]:
    """How many commits to measure at once on each card; on the CPU as many as have threads.

    A GPU stands idle for most of a commit's time, while a process starts, loads its model and
    launches short kernels, so it takes several, as far as they have memory to spare and the host
    has cores. `plan.workers` is dealt out over the cards.

    Args:
        needed_bytes: of GPU memory for one commit.
    """
    cores = os.cpu_count() or 1
    if plan.workers is not None:
        room = dict.fromkeys(cards, plan.workers)
        total = plan.workers
    elif plan.request.device.startswith("cuda"):
        room = {card: gpu_room(look(card.device), needed_bytes) for card in cards}
        total = max(len(cards), cores // 2)
    else:
        room = dict.fromkeys(cards, max(1, cores // plan.num_threads))
        total = sum(room.values())
    turns = [card for turn in range(max(room.values())) for card in cards if turn < room[card]]
    return dict(Counter(turns[: max(1, min(total, num_commits))]))


def gpu_room(gpu: Gpu | None, needed_bytes: int) -> int:
    """How many commits a card has memory for at once."""
    room = gpu.free_bytes // max(1, ROOM * needed_bytes) if gpu else 1
    return max(1, min(MAX_ON_GPU, room))


def has_room_beside(gpu: Gpu | None, checkpoint: Path) -> bool:
    """Whether a card has memory for the processes of one more commit to stand by on it."""
    return gpu is not None and gpu.free_bytes >= ROOM_BESIDE * needed_gpu_bytes(checkpoint)


def needed_gpu_bytes(checkpoint: Path) -> int:
    """A cautious guess at the GPU memory that one run takes: its weights, and some more."""
    return checkpoint.stat().st_size + GPU_RESERVE_BYTES
