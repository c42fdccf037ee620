"""Encoders of other families: their own weights or random ones, and what they have in common."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.families import Family
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.hf_esm import with_dtype
from virnucpro_monitor.runner.layouts import embed_padded


def from_seed(make: Callable[[], Any], seed: int = 0) -> Any:
    """What `make` gives with torch's random numbers from a seed, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def own_model(request: LoadRequest, kind: Any, synthesize: Callable[[str], Any]) -> Any:
    """A model with the weights of the folder that the request names, or with random ones.

    Args:
        kind: the class whose `from_pretrained` reads the folder.

    Returns:
        In the request's dtype, on its device, in evaluation mode.
    """
    if request.checkpoint.is_dir():
        try:
            model = kind.from_pretrained(request.checkpoint)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise TargetError(
                f"{kind.__name__} cannot be loaded from {request.checkpoint.name} "
                f"({' '.join(str(error).split())[:200]})."
            ) from error
    else:
        model = synthesize(request.model_name)
    return with_dtype(model, request.dtype).to(request.device).eval()


class Padded:
    """A Hugging Face encoder that takes a padded batch with its mask, as an `Embedder`."""

    backend = "padded"

    def __init__(self, model: Any, family: Family) -> None:
        self._model, self.family = model, family

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Parameters and buffers by name."""
        return dict([*self._model.named_parameters(), *self._model.named_buffers()])

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """[T] -> {layer: [T, D]}."""
        return self.together(ids, torch.tensor([0, len(ids)], device=ids.device), len(ids))

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """[tokens] -> {layer: [tokens, D]}."""
        return embed_padded(ids, cu_seqlens, self._padded, self.family.pad)

    def _padded(self, batch: torch.Tensor, mask: torch.Tensor) -> Any:
        return self._model(**self._given(batch, mask), output_hidden_states=True).hidden_states

    def _given(self, batch: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"input_ids": batch, "attention_mask": mask.long()}
