"""Sequences, the packs they travel in, and the promise that packing must keep.

The names of `__all__` are imported when they are first asked for: what reads a benchmark set needs
no torch, and loading it takes longer than most commands.
"""

from typing import TYPE_CHECKING

from virnucpro_monitor.late_names import late_names

if TYPE_CHECKING:
    from virnucpro_monitor.data.collators import VarlenCollator
    from virnucpro_monitor.data.packing import GreedyPacker, validate_packed_equivalence

__all__ = ["GreedyPacker", "VarlenCollator", "validate_packed_equivalence"]

_HOMES = {
    "GreedyPacker": "packing",
    "VarlenCollator": "collators",
    "validate_packed_equivalence": "packing",
}

__getattr__, __dir__ = late_names(__name__, _HOMES)
