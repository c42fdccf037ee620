"""Hugging Face's `T5EncoderModel` with ProtT5's tokens and shape of layers."""

from typing import Any

from virnucpro_monitor.models.families import FAMILIES
from virnucpro_monitor.models.weights import model_shape
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.packages import import_needed
from virnucpro_monitor.runner.encoders.random_model import Padded, from_seed, own_model


class HfT5Adapter:
    """Loads a `T5EncoderModel` of the requested ESM-2's depth and width.

    Its weights are the folder's that the request names, or random ones. It has no packed layout:
    what is held is that a padded batch equals each sequence alone.
    """

    def load(self, request: LoadRequest) -> Padded:
        kind = import_needed("hf-t5").T5EncoderModel
        return Padded(own_model(request, kind, self.synthesize), FAMILIES["prott5"])

    def synthesize(self, model_name: str, seed: int = 0) -> Any:
        """A model of that size with random weights, in FP32 on the CPU."""
        transformers, shape = import_needed("hf-t5"), model_shape(model_name)
        settings = transformers.T5Config(
            vocab_size=128,
            d_model=shape.embed_dim,
            d_kv=shape.head_dim,
            d_ff=4 * shape.embed_dim,
            num_layers=shape.num_layers,
            num_heads=shape.num_heads,
            dropout_rate=0.0,
            feed_forward_proj="relu",
        )
        return from_seed(lambda: transformers.T5EncoderModel(settings), seed)
