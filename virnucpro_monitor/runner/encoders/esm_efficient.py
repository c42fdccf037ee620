"""esm-efficient: its `ESM2` takes a pack as it is, on flash-attn."""

from collections.abc import Mapping
from typing import Any

import torch

from virnucpro_monitor.models.weight_names import ESM_EFFICIENT
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.exact_attention import stand_in_for_flash_attn
from virnucpro_monitor.runner.encoders.hf_esm import load_named, names_in, with_dtype
from virnucpro_monitor.runner.encoders.packages import import_needed


class EsmEfficientAdapter:
    """Loads esm-efficient's `ESM2` with the weights of a fair-esm checkpoint.

    It imports flash-attn, which runs on GPUs alone: on the CPU its two functions are exact
    attention, sequence by sequence. All else is esm-efficient's own.
    """

    def load(self, request: LoadRequest) -> "EsmEfficient":
        on_cpu = request.device == "cpu"
        if on_cpu:
            stand_in_for_flash_attn()
        esme = import_needed("esm-efficient", "esme.esm")
        source, _ = load_checkpoint(request.model_name, request.checkpoint)
        model = esme.ESM2(
            source.num_layers, source.embed_dim, source.attention_heads, dtype=torch.float32
        )
        names = names_in(model, source.state_dict(), ESM_EFFICIENT)
        load_named(model, source, ESM_EFFICIENT)
        model = with_dtype(model, request.dtype).to(request.device).eval()
        return EsmEfficient(model, names, "exact" if on_cpu else "flash-attn")


class EsmEfficient:
    """esm-efficient's `ESM2` as an `Embedder`."""

    def __init__(self, model: Any, names: Mapping[str, str], backend: str) -> None:
        self._model, self._names = model, names
        self.backend = backend

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The parameters by fair-esm's names."""
        named = self._model.named_parameters()
        return {self._names[name]: tensor for name, tensor in named if name in self._names}

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """[T] -> {layer: [T, D]}, through its padded path."""
        return self._layers(ids[None], None)

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """[tokens] -> {layer: [tokens, D]}."""
        return self._layers(ids, (cu_seqlens, max_seqlen))

    def _layers(self, ids: torch.Tensor, pack: Any) -> dict[int, torch.Tensor]:
        model, last = self._model, self._model.num_layers
        # It gives the last layer first, and the others behind it in the same rows.
        rows = model.forward_representation(ids, pack, layers=list(range(last - 1)))
        parts = rows.reshape(ids.numel(), -1).split(model.embed_dim, dim=-1)
        embedded = model.embedding(ids, pack).reshape(ids.numel(), -1)
        return {0: embedded, last: parts[0], **dict(enumerate(parts[1:], start=1))}
