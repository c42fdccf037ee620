"""What the last start of a kind was prepared with, so that the next one need not wait to be.

Weights, torch and packages are seldom others than the last time. So the first commits' processes
start on their cards while this start is still being prepared. Nothing is believed of that: a commit
is only given to processes that were started for the very job that it turns out to be.
"""

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from virnucpro_monitor.records import CLUSTER_NAME, content_digest
from virnucpro_monitor.records.messages import MessageError, Ready, decode_said, encode
from virnucpro_monitor.runner.capacity import needed_gpu_bytes, share_workers
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.cluster_pool import ClusterPool
from virnucpro_monitor.runner.gpu import Gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared, prepared_by
from virnucpro_monitor.scratch import scratch_folder


def remember(plan: RunPlan, prepared: Prepared) -> None:
    """Keep what a commit was measured with in our own interpreter."""
    ready = Ready(
        weights_digest=prepared.weights_digest,
        checkpoint=prepared.checkpoint,
        regression=prepared.regression,
        torch_home=prepared.torch_home,
        environment=prepared.surroundings.environment,
        installed=prepared.surroundings.installed or {},
    )
    path, content = _path(plan), encode(ready)
    with suppress(OSError):  # a full disk costs the next start time, nothing else
        if not path.is_file() or path.read_bytes() != content:
            with scratch_folder(path.parent, f".{path.name}-") as partial:
                partial.write_bytes(content)
                partial.replace(path)


def recall(plan: RunPlan, pool: WorkerPool | ClusterPool, device: str) -> Prepared | None:
    """What such a plan was prepared with the last time; None where that is not known."""
    with suppress(OSError, MessageError):
        ready = decode_said(_path(plan).read_bytes())
        if isinstance(ready, Ready) and Path(ready.checkpoint).is_file():
            # This host's cards may be a cluster's the next time, and a cluster's this host's.
            host = CLUSTER_NAME if isinstance(pool, ClusterPool) else socket.gethostname()
            here = replace(ready, environment=replace(ready.environment, host=host))
            return prepared_by(here, plan, pool, device)
    return None


def places_ahead(
    plan: RunPlan,
    cards: Sequence[Card],
    num_commits: int,
    checkpoint: Path,
    seen: Mapping[str, Gpu | None],
) -> list[Card]:
    """The card of each commit that begins first; none that others compute on.

    Args:
        seen: the cards as they are before anything of ours is there.
    """
    needed_bytes = needed_gpu_bytes(checkpoint)
    free = [
        card
        for card in cards
        if (gpu := seen.get(card.device)) is not None and gpu.why_busy(needed_bytes) is None
    ]
    if not free or not num_commits:
        return []
    shares = share_workers(plan, free, num_commits, needed_bytes, seen.get)
    return in_turns(shares)


def in_turns(shares: Mapping[Card, int]) -> list[Card]:
    """Each card as often as it has room, one after the other."""
    turns = range(max(shares.values(), default=0))
    return [card for turn in turns for card, places in shares.items() if turn < places]


def _path(plan: RunPlan) -> Path:
    request = plan.request
    key = content_digest(
        [
            plan.target.name,
            plan.target.location,
            plan.target.adapter,  # whose oracle was there as well
            request.model,
            request.weights,
            request.device.partition(":")[0],
            plan.num_threads,
            [one.digest for one in plan.benchmarks],
        ]
    )
    return plan.cache_folder / "begun" / f"prepared-{key[:16]}.json"
