"""Sequences, the packs they travel in, and the promise that packing must keep."""

from virnucpro_monitor.data.collators import VarlenCollator
from virnucpro_monitor.data.packing import GreedyPacker, validate_packed_equivalence

__all__ = ["GreedyPacker", "VarlenCollator", "validate_packed_equivalence"]
