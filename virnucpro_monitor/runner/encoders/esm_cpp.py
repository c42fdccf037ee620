"""esm-cpp: ESM-2 in C++ on the CPU, without torch. Its packs give logits alone."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.weight_files import write_hugging_face
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.packages import import_needed


class EsmCppAdapter:
    """Loads esm-cpp's `Model` from a safetensors file with Hugging Face's names.

    What is held is that packed logits equal those of each sequence alone: it gives no hidden states
    of a pack, and an oracle has no logits.
    """

    def load(self, request: LoadRequest) -> "EsmCpp":
        esm_cpp = import_needed("esm-cpp")
        if request.device != "cpu" or request.dtype is not torch.float32:
            raise TargetError("esm-cpp runs on the CPU in float32: use --device cpu.")
        source, _ = load_checkpoint(request.model_name, request.checkpoint)
        with tempfile.TemporaryDirectory() as folder:
            write_hugging_face(source, Path(folder), rotations=True)
            model = esm_cpp.Model.load_from_safetensors(f"{folder}/model.safetensors")
        return EsmCpp(model, source.num_layers, f"logits-{esm_cpp.current_isa()}")


class EsmCpp:
    """esm-cpp's `Model` as an `Embedder` of logits [T, 33]."""

    def __init__(self, model: Any, num_layers: int, backend: str) -> None:
        self._model, self._last = model, num_layers
        self.backend = backend

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """[T] -> {last layer: [T, 33]}."""
        return {self._last: torch.from_numpy(self._model.forward(ids.numpy().astype(np.int32)))}

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """[tokens] -> {last layer: [tokens, 33]}."""
        parts = self._model.forward_packed(ids.numpy().astype(np.int32), cu_seqlens.numpy())
        return {self._last: torch.cat([torch.from_numpy(one) for one in parts])}
