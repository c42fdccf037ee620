"""Where the work is: hosts and their cards, what waits for them, what a commit costs there."""

import socket
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from virnucpro_monitor.records import CLUSTER_NAME, Heartbeat, HostCards, MachineUse, WorkHost
from virnucpro_monitor.runner.cards import cpu_utilisation
from virnucpro_monitor.runner.gpu import Gpu, count_gpus, find_gpu
from virnucpro_monitor.store import health_reader
from virnucpro_monitor.store.engine import Engine

CPU = ""
HEARD_WITHIN = timedelta(hours=1)  # a runner that was killed says "running" for ever


def load_hosts(
    engine: Engine,
    target: str | None = None,
    *,
    look: Callable[[str], Gpu | None] = find_gpu,
    count: Callable[[], int] = count_gpus,
) -> tuple[WorkHost, ...]:
    """The hosts that measured one target, or any, or whose runners have reported.

    This host is one of them where it measured; its cards are there even before their first run. A
    Dask cluster is one, and each of its hosts while its runner is at work.

    Args:
        look, count: ask for this host's cards.
    """
    machines: dict[str, list[MachineUse]] = defaultdict(list)
    for one in health_reader.load_machines(engine, target):
        machines[one.host].append(one)
    queues: dict[str, list[Heartbeat]] = defaultdict(list)
    for beat in health_reader.load_heartbeats(engine):
        if target in (None, beat.target):
            queues[beat.host if beat.cluster is None else CLUSTER_NAME].append(beat)
    here = socket.gethostname()
    hosts = tuple(
        WorkHost(
            host=host,
            is_here=host == here,
            num_queued=_queued(queues[host]),
            cards=_cards(machines[host], _cards_here(look, count) if host == here else None),
        )
        for host in dict.fromkeys([*machines, *queues])
    )
    return hosts + _cluster_hosts(queues[CLUSTER_NAME])


def _cluster_hosts(beats: Sequence[Heartbeat]) -> tuple[WorkHost, ...]:
    """The hosts that a cluster measures on now, as its runners last said."""
    found: dict[str, dict[str, HostCards]] = defaultdict(dict)
    for beat in beats:  # the latest first
        if not is_at_work(beat):
            continue
        for one in beat.cluster or ():
            cards = HostCards(
                card=one.card,
                num_cards=one.num_workers if one.card else 1,
                utilisation=one.utilisation,
            )
            found[f"{CLUSTER_NAME}: {one.host}"].setdefault(one.card, cards)
    return tuple(
        WorkHost(host=host, is_here=False, num_queued=None, cards=tuple(cards.values()))
        for host, cards in sorted(found.items())
    )


def is_at_work(beat: Heartbeat) -> bool:
    """Whether a runner measures now, as far as its last word tells."""
    return beat.state in ("running", "waiting") and datetime.now(UTC) - beat.at <= HEARD_WITHIN


def _queued(beats: Sequence[Heartbeat]) -> int | None:
    known = [beat.num_queued for beat in beats if beat.num_queued is not None]
    return sum(known) if known else None


def _cards(
    machines: Sequence[MachineUse], present: dict[str, HostCards] | None
) -> tuple[HostCards, ...]:
    """What the cards of one host did, and how those that are `present` are now."""
    used = tuple(
        HostCards(
            card=one.card,
            num_cards=None if present is None else now.num_cards or 0,
            utilisation=now.utilisation,
            num_commits=one.num_commits,
            seconds_per_commit=one.busy_s / one.num_commits,
            last_at=one.last_at,
        )
        for one in machines
        for now in [(present or {}).get(one.card, HostCards(card=one.card))]
    )
    names = {one.card for one in used}
    return used + tuple(one for one in (present or {}).values() if one.card not in names)


def _cards_here(
    look: Callable[[str], Gpu | None], count: Callable[[], int]
) -> dict[str, HostCards]:
    """This host's cards as they are now, by their name."""
    kinds: dict[str, list[int | None]] = defaultdict(list)
    for index in range(count()):
        gpu = look(f"cuda:{index}")
        if gpu is not None:
            kinds[gpu.name].append(gpu.utilisation)
    found = {CPU: HostCards(card=CPU, num_cards=1, utilisation=cpu_utilisation())}
    for name, shares in kinds.items():
        told = [share for share in shares if share is not None]
        found[name] = HostCards(
            card=name,
            num_cards=len(shares),
            utilisation=round(statistics.fmean(told)) if told else None,
        )
    return found
