"""Packing and its validation, at the import path they are known by."""

from virnucpro_monitor.data.equivalence import validate_packed_equivalence
from virnucpro_monitor.data.first_fit import GreedyPacker, PackPlan

__all__ = ["GreedyPacker", "PackPlan", "validate_packed_equivalence"]
