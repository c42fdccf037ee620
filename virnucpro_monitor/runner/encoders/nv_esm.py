"""NVIDIA's recipe of ESM-2 on TransformerEngine, at a commit of its repository: packed (THD)."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.weight_files import hugging_face_settings
from virnucpro_monitor.models.weight_names import HUGGING_FACE
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.hf_esm import load_named
from virnucpro_monitor.runner.encoders.packages import import_needed, in_front

_MODULE = "modeling_esm_te.py"


class NvEsmAdapter:
    """Loads an `NVEsmForMaskedLM` by the recipe's own conversion from Hugging Face's model."""

    def load(self, request: LoadRequest) -> "NvEsm":
        import_needed("nv-esm-thd")
        import transformers

        in_front(_folder(request.checkout))
        convert = importlib.import_module("convert").convert_esm_hf_to_te
        source, _ = load_checkpoint(request.model_name, request.checkpoint)
        model = transformers.EsmForMaskedLM(transformers.EsmConfig(**hugging_face_settings(source)))
        load_named(model, source, HUGGING_FACE)
        model = convert(model.to(request.dtype), attn_input_format="thd", dtype=request.dtype)
        return NvEsm(model.to(request.device).eval().base_model)


def _folder(checkout: Path) -> Path:
    found = sorted(checkout.rglob(_MODULE), key=lambda path: (len(path.parts), path))
    if not found:
        raise TargetError(f"This commit has no {_MODULE}: watch the repository of the recipe.")
    return found[0].parent


class NvEsm:
    """An `NVEsmModel` as an `Embedder`."""

    backend = "thd"

    def __init__(self, model: Any) -> None:
        self._model = model

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """[T] -> {layer: [T, D]}."""
        bounds = torch.tensor([0, len(ids)], dtype=torch.int32, device=ids.device)
        return self.together(ids, bounds, len(ids))

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """[tokens] -> {layer: [tokens, D]}."""
        found = self._model(
            ids[None],
            cu_seq_lens_q=cu_seqlens,
            cu_seq_lens_k=cu_seqlens,
            max_length_q=max_seqlen,
            max_length_k=max_seqlen,
            output_hidden_states=True,
        )
        return {layer: rows.flatten(0, -2) for layer, rows in enumerate(found.hidden_states)}
