"""Hugging Face's `EsmcModel`: ESM C, whose first 33 tokens are ESM-2's."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

from virnucpro_monitor.models.weights import model_shape
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.packages import MissingPackageError, import_needed
from virnucpro_monitor.runner.encoders.random_model import from_seed, own_model
from virnucpro_monitor.runner.layouts import embed_padded, owner_ids

_HEAD_DIM = 64  # of every published ESM C


class HfEsmcAdapter:
    """Loads an `EsmcModel`: the request's folder, or one of an ESM-2's depth and width at random.

    fair-esm cannot run ESM C: there is no oracle, and what is held is that packed equals unpacked.

    Args:
        way: "packed", one row with a `sequence_id` for each token; "padded", a batch.
        attention: transformers' own name; "default" leaves it to the release.
    """

    def __init__(self, way: str = "packed", attention: str = "default") -> None:
        self._way, self._attention = way, attention

    def load(self, request: LoadRequest) -> "HfEsmc":
        model = own_model(request, _transformers().EsmcModel, self.synthesize)
        backend = self._way
        if self._attention != "default":
            model.set_attn_implementation(self._attention)
            backend = f"{self._attention}-{self._way}"
        return HfEsmc(model, self._way, backend)

    def synthesize(self, model_name: str, seed: int = 0) -> Any:
        """A model of that size with random weights, in FP32 on the CPU."""
        transformers, shape = _transformers(), model_shape(model_name)
        settings = transformers.EsmcConfig(
            hidden_size=shape.embed_dim,
            intermediate_size=4 * shape.embed_dim,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=max(1, shape.embed_dim // _HEAD_DIM),
        )

        def make() -> Any:
            model = transformers.EsmcModel(settings)
            # The library's own 0.02 would leave every layer next to nothing to do.
            torch.nn.init.normal_(model.embed_tokens.weight)
            return model

        return from_seed(make, seed)


def _transformers() -> ModuleType:
    transformers = import_needed("hf-esmc")
    if not hasattr(transformers, "EsmcModel"):
        raise MissingPackageError(
            f"transformers {transformers.__version__} has no EsmcModel: "
            f"pip install 'transformers>=5.24'."
        )
    return transformers


class HfEsmc:
    """An `EsmcModel` as an `Embedder` without an oracle."""

    def __init__(self, model: Any, way: str, backend: str) -> None:
        self._model = model
        self._way = way
        self.backend = backend

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Parameters and buffers by name."""
        return dict([*self._model.named_parameters(), *self._model.named_buffers()])

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """[T] -> {layer: [T, D]}."""
        found = self._model(ids[None], output_hidden_states=True).hidden_states
        return {layer: rows[0] for layer, rows in enumerate(found)}

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """[tokens] -> {layer: [tokens, D]}."""
        if self._way == "padded":
            return embed_padded(ids, cu_seqlens, self._padded)
        owner = owner_ids(cu_seqlens)[None]
        found = self._model(ids[None], sequence_id=owner, output_hidden_states=True).hidden_states
        return {layer: rows[0] for layer, rows in enumerate(found)}

    def _padded(self, batch: torch.Tensor, mask: torch.Tensor) -> Any:
        given = {"attention_mask": mask.long(), "output_hidden_states": True}
        return self._model(batch, **given).hidden_states
