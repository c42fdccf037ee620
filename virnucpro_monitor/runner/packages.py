"""Which distributions an interpreter has, and which of them a process has imported from."""

import functools
import re
import sys
from collections.abc import Sequence
from importlib.metadata import distributions, packages_distributions

_OURS = "virnucpro-monitor"  # the yardstick: its protocol has a digest of its own


def installed_packages(path: Sequence[str] | None = None) -> dict[str, str]:
    """Version by distribution name, as an interpreter finds them.

    Args:
        path: folders in the order of its search; None for this interpreter's own.
    """
    found: dict[str, str] = {}
    for one in distributions() if path is None else distributions(path=list(path)):
        name = _canonical(one.metadata["Name"] or "")
        if name and name != _OURS:
            found.setdefault(name, one.version)  # the first on the path is what is imported
    return found


def imported_packages() -> tuple[str, ...]:
    """Names of the distributions that this process has imported modules of, sorted."""
    roots = {name.partition(".")[0] for name in list(sys.modules)}
    owners = known_owners()
    found = {name for root in roots & owners.keys() for name in owners[root]}
    return tuple(sorted(found - {_OURS}))


@functools.cache
def known_owners() -> dict[str, frozenset[str]]:
    """Names of the distributions behind each importable name. Takes half a second once."""
    return {
        root: frozenset(map(_canonical, names)) for root, names in packages_distributions().items()
    }


def learn_owners(folder: str) -> None:
    """Know the distributions of one more folder, as those that were looked for before."""
    owners = known_owners()
    for one in distributions(path=[folder]):
        declared = (one.read_text("top_level.txt") or "").split()
        roots = declared or [file.parts[0].partition(".")[0] for file in one.files or ()]
        for root in roots:
            owners[root] = owners.get(root, frozenset()) | {_canonical(one.metadata["Name"] or "")}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
