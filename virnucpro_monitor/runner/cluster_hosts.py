"""Where a cluster measures, and how busy it is there."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from virnucpro_monitor.records import ClusterHost


def hosts_of(
    workers: Mapping[str, Any], places: Iterable[str], use: str
) -> tuple[ClusterHost, ...]:
    """The hosts and cards of these places, by what each has told its scheduler of its use.

    Args:
        workers: of the cluster, by address.
        places: addresses of those that measure.
        use: the name under which they tell it.
    """
    uses = defaultdict(list)
    for address in places:
        told = workers.get(address, {}).get("metrics", {}).get(use)
        if told is not None:  # one that has just joined has told nothing yet
            host, card, share = told
            uses[host, card].append(share)
    return tuple(
        ClusterHost(host=host, card=card, num_workers=len(shares), utilisation=_mean(shares))
        for (host, card), shares in sorted(uses.items())
    )


def _mean(shares: Sequence[int | None]) -> int | None:
    known = [share for share in shares if share is not None]
    return round(fmean(known)) if known else None
