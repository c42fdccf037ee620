"""The oracle model as a trace asks it: every layer of a sequence alone, many times the same."""

from collections.abc import Sequence
from typing import Any

import torch

from virnucpro_monitor.validation.subject import Layers

# A trace asks for the probes' sequences again and again, and so does the next fault's.
_KEPT_BYTES = 128 * 1024**2


class ExactModel:
    """fair-esm in FP32, with the layers of the sequences that it was asked for last.

    Its weights never change, so the same tokens have the same rows.

    Attributes:
        model: fair-esm's ESM2.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kept: dict[tuple[int, ...], Layers] = {}
        self._kept_bytes = 0

    def layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        """Tokens [T] int64 -> {layer: [T, D] float32} on the model's device, not to be changed."""
        key = tuple(tokens.tolist())
        kept = self._kept.get(key, {})
        if not kept.keys() >= set(layers):
            device = next(self.model.parameters()).device
            output = self.model(tokens.to(device)[None], repr_layers=list(layers))
            found = {layer: output["representations"][layer][0] for layer in layers}
            self._keep(key, {**kept, **found})
            return found
        return {layer: kept[layer] for layer in layers}

    def _keep(self, key: tuple[int, ...], rows: Layers) -> None:
        self._kept_bytes -= _bytes_of(self._kept.pop(key, {}))
        size = _bytes_of(rows)
        if size > _KEPT_BYTES:
            return
        while self._kept_bytes + size > _KEPT_BYTES:
            self._kept_bytes -= _bytes_of(self._kept.pop(next(iter(self._kept))))
        self._kept[key] = rows
        self._kept_bytes += size


def _bytes_of(rows: Layers) -> int:
    return sum(one.numel() * one.element_size() for one in rows.values())
