"""Which distributions an interpreter has, and which of them a process has imported from."""

import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import Distribution, distributions

_OURS = "virnucpro-monitor"  # the yardstick: its protocol has a digest of its own
_packages_distributions = importlib.metadata.packages_distributions
_known: dict[str, list[str]] = {}


def installed_packages(path: Sequence[str] | None = None) -> dict[str, str]:
    """Version by distribution name, as an interpreter finds them.

    Args:
        path: folders in the order of its search; None for this interpreter's own.
    """
    found: dict[str, str] = {}
    for one in distributions() if path is None else distributions(path=list(path)):
        name, version = _name_and_version(one)
        if name and name != _OURS:
            found.setdefault(name, version)  # the first on the path is what is imported
    return found


def _name_and_version(one: Distribution) -> tuple[str, str]:
    """Without parsing all else that its metadata says, which may be a long text."""
    text = one.read_text("METADATA") or one.read_text("PKG-INFO") or ""
    fields = dict(
        re.findall(r"(?m)^(Name|Version):[ \t]*(.*?)[ \t\r]*$", text.partition("\n\n")[0])
    )
    return _canonical(fields.get("Name", "")), fields.get("Version", "")


def imported_packages() -> tuple[str, ...]:
    """Names of the distributions that this process has imported modules of, sorted."""
    roots = {name.partition(".")[0] for name in list(sys.modules)}
    owners = known_distributions()
    found = {_canonical(name) for root in roots & owners.keys() for name in owners[root]}
    return tuple(sorted(found - {_OURS}))


def known_distributions() -> dict[str, list[str]]:
    """Names of the distributions behind each importable name. Takes half a second once."""
    if not _known:
        _known.update(_packages_distributions())
    return _known


def look_aside() -> Callable[[], None]:
    """Begin to look for `known_distributions` in a process of its own, and go on here.

    It is forked: whoever asks has one thread, and has not imported much.

    Returns:
        What waits for the answer; where none comes, they are looked for once they are needed.
    """
    answer, answering = os.pipe()
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException), os.fdopen(answering, "w") as file:
            json.dump(known_distributions(), file)
        os._exit(0)
    os.close(answering)

    def take() -> None:
        with suppress(ValueError), os.fdopen(answer) as file:
            _known.update(json.load(file))
        os.waitpid(pid, 0)

    return take


def enter_packages(folder: str) -> None:
    """Know the distributions of one more folder, in front of those that were looked for before.

    From here on this process is told so where it asks for all of them: packages do as they are
    imported, and would look through everything again.
    """
    known = known_distributions()
    path = sys.path
    sys.path = [folder]
    try:
        own = _packages_distributions()
    finally:
        sys.path = path
    for root, names in own.items():
        known[root] = [*names, *known.get(root, ())]
    importlib.metadata.packages_distributions = lambda: {
        root: list(names) for root, names in known.items()
    }


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
