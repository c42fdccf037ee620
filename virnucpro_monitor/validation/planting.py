"""Planting a fault: functions of the product exchanged for a while, and proof that they were.

A fault that was never reached proves nothing: a renamed function, a fast path that goes round it or
an input that it does not touch would let the yardstick seem to pass. So each function that is
exchanged must be there, and a `Witness` counts how often the exchanged one acted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from virnucpro_monitor.errors import FaultNotInPlaceError

Witness = Counter[str]
"""How often each part of a fault acted."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One function that a fault exchanges while a packed pass runs.

    Attributes:
        owner: a module, class or object.
        name: of its function.
        change: (the original, its arguments …) -> the result, or None where the fault does not
            apply to these arguments; then the original runs, and nothing is counted.
    """

    owner: Any
    name: str
    change: Callable[..., Any]

    @property
    def label(self) -> str:
        owner = getattr(self.owner, "__name__", None) or type(self.owner).__name__
        return f"{owner.rpartition('.')[2]}.{self.name}"


@contextmanager
def planted(patches: Sequence[Patch], witness: Witness) -> Iterator[None]:
    """Exchange every patch's function for the block; each is in the witness from the start.

    Raises:
        FaultNotInPlaceError: there is no such function, as after a renaming.
    """
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(_exchanged(patch, witness))
        yield


def _exchanged(patch: Patch, witness: Witness) -> Any:
    original = getattr(patch.owner, patch.name, None)
    if not callable(original):
        raise FaultNotInPlaceError(
            f"A fault of the self-test cannot be planted: {patch.label} is not a function any "
            "more; name its new place in validation/faults.py."
        )
    witness.setdefault(patch.label, 0)

    def stand_in(*arguments: Any, **named: Any) -> Any:
        found = patch.change(original, *arguments, **named)
        if found is None:
            return original(*arguments, **named)
        witness[patch.label] += 1
        return found

    return mock.patch.object(patch.owner, patch.name, stand_in)


def idle_parts(witness: Witness) -> tuple[str, ...]:
    """The parts of a fault that never acted."""
    return tuple(sorted(label for label, count in witness.items() if count == 0))
