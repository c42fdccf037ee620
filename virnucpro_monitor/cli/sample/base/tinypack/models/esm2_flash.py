"""ESM-2 with a packed forward pass, on top of fair-esm's model."""

from collections.abc import Callable, Sequence
from typing import Any

import esm
import torch
from torch import nn
from torch.nn.functional import gelu

from tinypack.models.attention import attend, find_sequences
from tinypack.models.rotary import make_tables, number_positions


class ESM2WithFlashAttention(nn.Module):
    """Embeds padded batches with fair-esm's own forward pass, and packs with ours."""

    def __init__(self, model: Any, alphabet: Any, device: torch.device) -> None:
        super().__init__()
        self.model: Any = model.to(device).eval()
        self.alphabet = alphabet
        self.device = device

    @torch.inference_mode()
    def forward(self, tokens: torch.Tensor, repr_layers: Sequence[int]) -> dict[str, Any]:
        """Embed a batch, [batch, length] -> {"representations": {layer: [batch, length, dim]}}."""
        return {"representations": self.model(tokens, repr_layers=repr_layers)["representations"]}

    @torch.inference_mode()
    def forward_packed(
        self,
        input_ids: torch.Tensor,
        cu_seqlens: torch.Tensor,
        max_seqlen: int,
        repr_layers: Sequence[int],
    ) -> dict[str, Any]:
        """Embed a pack, [tokens] -> {"representations": {layer: [tokens, dim]}}."""
        sequences = find_sequences(cu_seqlens)
        width = self.model.embed_dim // self.model.attention_heads
        tables = make_tables(number_positions(cu_seqlens), width)
        x = self._embed_tokens(input_ids, sequences)
        hidden = {0: x}
        for number, layer in enumerate(self.model.layers, start=1):
            x = x + attend(layer.self_attn, layer.self_attn_layer_norm(x), sequences, tables)
            x = x + layer.fc2(gelu(layer.fc1(layer.final_layer_norm(x))))
            hidden[number] = x
        # The last hidden state is the one after the final LayerNorm.
        hidden[number] = self.model.emb_layer_norm_after(x)
        return {"representations": {layer: hidden[layer] for layer in repr_layers}}

    def _embed_tokens(self, input_ids: torch.Tensor, sequences: list[slice]) -> torch.Tensor:
        masked = input_ids == self.model.mask_idx
        embeddings: torch.Tensor = self.model.embed_scale * self.model.embed_tokens(input_ids)
        embeddings = embeddings.masked_fill(masked.unsqueeze(-1), 0.0)
        for rows in sequences:
            # Training masked 15 % of the tokens and zeroed 80 % of those; fair-esm makes up for it.
            embeddings[rows] *= (1 - 0.15 * 0.8) / (1 - masked[rows].float().mean())
        return embeddings


def load_esm2_model(
    model_name: str = "esm2_t33_650M_UR50D", device: str = "cuda:0"
) -> tuple[ESM2WithFlashAttention, Callable[..., Any]]:
    """Load an ESM-2 model by its official name, and the converter that tokenises for it."""
    model, alphabet = esm.pretrained.load_model_and_alphabet(model_name)
    wrapped = ESM2WithFlashAttention(model, alphabet, torch.device(device))
    return wrapped, alphabet.get_batch_converter()
