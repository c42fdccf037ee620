"""Profluent's E1 as FastPLMs runs it, at a commit of its repository."""

from types import ModuleType
from typing import Any

import torch

from virnucpro_monitor.models.families import FAMILIES
from virnucpro_monitor.models.weights import model_shape
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.packages import import_needed, in_front
from virnucpro_monitor.runner.encoders.random_model import Padded, from_seed, own_model


class FastPlmsE1Adapter:
    """Loads a `FAST_E1_ENCODER`: the request's folder, or one of an ESM-2's size at random.

    A row of several sequences is one family with its context to E1, and gives other embeddings by
    design: sequences that have nothing to do with each other come as a padded batch.
    """

    def load(self, request: LoadRequest) -> "E1":
        in_front(request.checkout / "src")
        kind = _theirs().FAST_E1_ENCODER
        return E1(own_model(request, kind, self.synthesize), FAMILIES["e1"])

    def synthesize(self, model_name: str, seed: int = 0) -> Any:
        """A model of that size with random weights, in FP32 on the CPU."""
        theirs, shape = _theirs(), model_shape(model_name)
        settings = theirs.E1Config(
            hidden_size=shape.embed_dim,
            intermediate_size=4 * shape.embed_dim,
            gated_mlp=True,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_heads,
            dtype="float32",
            attn_backend="sdpa",
        )

        def make() -> Any:
            model = theirs.FAST_E1_ENCODER(settings)
            torch.nn.init.normal_(model.embed_tokens.weight)
            return model

        return from_seed(make, seed)


def _theirs() -> ModuleType:
    return import_needed("fastplms-e1", "fastplms.models.e1.modeling_e1")


class E1(Padded):
    """A `FAST_E1_ENCODER` as an `Embedder`: every row one sequence, positions from its start."""

    def _given(self, batch: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        places = torch.arange(batch.shape[1], device=batch.device).expand(batch.shape)
        places = places.masked_fill(~mask, -1)
        sequences = torch.where(mask, 0, -1)
        return {
            "input_ids": batch,
            "within_seq_position_ids": places,
            "global_position_ids": places,
            "sequence_ids": sequences,
        }
