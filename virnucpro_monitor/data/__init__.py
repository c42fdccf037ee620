"""Sequences, the packs they travel in, and the promise that packing must keep.

The names of `__all__` are imported when they are first asked for: what reads a benchmark set needs
no torch, and loading it takes longer than most commands.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virnucpro_monitor.data.collators import VarlenCollator
    from virnucpro_monitor.data.packing import GreedyPacker, validate_packed_equivalence

__all__ = ["GreedyPacker", "VarlenCollator", "validate_packed_equivalence"]

_HOMES = {
    "GreedyPacker": "packing",
    "VarlenCollator": "collators",
    "validate_packed_equivalence": "packing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
