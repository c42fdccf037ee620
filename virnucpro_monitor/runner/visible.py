"""Which cards CUDA shows here, by the names that `CUDA_VISIBLE_DEVICES` gives them."""

import os
import re
from collections.abc import MutableMapping

_NUMBER = re.compile(r"\+?(\d+)")  # CUDA passes over what stands behind it
_UUID = re.compile(r"(GPU|MIG)-\S+")


def visible_names() -> tuple[str, ...] | None:
    """What `CUDA_VISIBLE_DEVICES` shows here (`names_in`); None where all cards are visible."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if visible is None else names_in(visible)


def names_in(visible: str) -> tuple[str, ...]:
    """The numbers, UUIDs or MIG names of a `CUDA_VISIBLE_DEVICES`, as CUDA reads it.

    It stops at the first word that names no card, or one in another way than those before it, and
    shows none at all where one is named twice.
    """
    names: list[str] = []
    ways: set[str] = set()
    for word in visible.split(","):
        name, way = _read(word.strip())
        ways.add(way)
        if not name or len(ways) > 1:
            break
        if name in names:
            return ()
        names.append(name)
    return tuple(names)


def visible_name(index: int) -> str:
    """How `CUDA_VISIBLE_DEVICES` names the card that CUDA counts as `index` here.

    Returns:
        Its number among all cards, a UUID or a MIG name; nothing where it is not visible.
    """
    names = visible_names()
    if names is None:
        return str(index)
    return names[index] if index < len(names) else ""


def count_by_bus(environment: MutableMapping[str, str]) -> None:
    """Let CUDA, where it starts in this environment, count cards as NVML does, which tells of them.

    By itself it counts the fastest first, which on a host of two kinds are others.
    """
    environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def _read(word: str) -> tuple[str, str]:
    """(name, in which way it names a card); an empty name for what names none."""
    if found := _NUMBER.match(word):
        return str(int(found[1])), "number"
    found = _UUID.fullmatch(word)
    return (word, found[1]) if found else ("", "")
