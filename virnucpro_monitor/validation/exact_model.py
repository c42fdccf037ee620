"""The oracle model as a trace asks it: every layer of a sequence alone, many times the same."""

import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.validation.oracle import Oracle, full_float32
from virnucpro_monitor.validation.subject import Layers
from virnucpro_monitor.validation.tokens import encode

# A trace asks for the probes' sequences again and again, and so does the next fault's.
_KEPT_BYTES = 128 * 1024**2
_A_FEW_RESIDUES = "MKTAYIAKQRQISFVK"
_loading = threading.Lock()


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


def oracle_model(oracle: Oracle | None, device: torch.device) -> ExactModel | None:
    """fair-esm in FP32 from the oracle's own checkpoint; None where that is gone.

    It waits for what another thread loads ahead.
    """
    with _loading:
        return _oracle_model(oracle, device)


def load_ahead(oracle: Oracle | None, device: torch.device) -> None:
    """Have the oracle model on a device, and its kernels loaded, for the next trace there."""
    with _loading:
        exact = _oracle_model(oracle, device)
        if exact is not None:
            with full_float32(), torch.inference_mode():
                exact.layers(encode(_A_FEW_RESIDUES), [exact.model.num_layers])


def _oracle_model(oracle: Oracle | None, device: torch.device) -> ExactModel | None:
    if oracle is None or oracle.weights_path is None or not oracle.weights_path.is_file():
        return None
    return _loaded(oracle.model_name, oracle.weights_path, str(device))


@lru_cache(maxsize=1)
def _loaded(model_name: str, path: Path, device: str) -> ExactModel:
    """Kept for the next trace: loading takes longer than tracing."""
    model = load_checkpoint(model_name, path)[0]
    try:
        return ExactModel(model.to(device))
    except torch.OutOfMemoryError:
        return ExactModel(model.cpu())
