"""Modules made without their parameters' values, which a checkpoint then brings."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_RANDOM_FILLS = ("normal_", "uniform_")


@contextmanager
def unfilled() -> Iterator[None]:
    """Within the block, modules are made on the meta device, and nothing is drawn for them.

    On that device PyTorch draws, and counts with `arange`, by Python code that imports its compiler
    and sympy: a second for each process. So nothing is drawn, and `arange` is on the CPU.
    """
    with torch.device("meta"), _WithoutFills():
        yield


@contextmanager
def undrawn() -> Iterator[None]:
    """Within the block, modules are made as ever, but nothing random is drawn for them."""
    with _WithoutFills():
        yield


class _WithoutFills(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if getattr(func, "__name__", "").endswith(_RANDOM_FILLS):
            return args[0] if args else named["tensor"]
        if func is torch.arange:
            named.setdefault("device", "cpu")
        return func(*args, **named)
