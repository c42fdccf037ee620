"""Hugging Face's `EsmModel`, three ways of putting several sequences through it."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.packages import import_needed
from virnucpro_monitor.runner.layouts import PAD, owner_ids, pad, position_ids

# A padded batch takes the room of its longest sequence as often as it has sequences: packs with one
# long sequence and many short ones are put through in several batches.
MAX_PADDED_TOKENS = 16_384

_PARTS = {  # fair-esm's names -> transformers'
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "final_layer_norm": "LayerNorm",
}
_WHOLE = {
    "embed_tokens.weight": "embeddings.word_embeddings.weight",
    "emb_layer_norm_after.weight": "encoder.emb_layer_norm_after.weight",
    "emb_layer_norm_after.bias": "encoder.emb_layer_norm_after.bias",
}
_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")


class HfEsmAdapter:
    """Loads an `EsmModel` with the weights of a fair-esm checkpoint.

    Args:
        way: "padded", a batch with an attention mask; "kwargs", one row with `position_ids` and the
            `cu_seq_lens` arguments; "mask", one row with a block-diagonal mask.
        attention: transformers' own name of the attention to use; "default" leaves it to the
            release. Early ones know "eager" alone.
    """

    def __init__(self, way: str = "padded", attention: str = "default") -> None:
        self._way, self._attention = way, attention

    def load(self, request: LoadRequest) -> "HfEsm":
        import_needed("hf-esm")
        source, _ = load_checkpoint(request.model_name, request.checkpoint)
        model = hf_esm_model(source, attention=self._attention)
        return HfEsm(
            with_dtype(model, request.dtype).to(request.device).eval(),
            names={wanted: name for name in source.state_dict() if (wanted := hf_esm_name(name))},
            way=self._way,
            # One name for all releases, so that they are one series.
            backend=self._way if self._attention == "default" else f"{self._attention}-{self._way}",
        )


def with_dtype(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """`model.to(dtype)` as `from_pretrained` does it: constants of the rotation stay in FP32."""
    exact = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name == "inv_freq"
    ]
    model = model.to(dtype)
    for module, name, buffer in exact:
        setattr(module, name, buffer)
    return model


def hf_esm_model(source: Any, *, attention: str) -> Any:
    """An `EsmModel` with the weights of fair-esm's `ESM2`, in FP32 on the CPU.

    Raises:
        TargetError: the installed release does not take them.
    """
    from transformers import EsmConfig, EsmModel

    settings = EsmConfig(
        vocab_size=source.embed_tokens.num_embeddings,
        mask_token_id=source.mask_idx,
        pad_token_id=source.padding_idx,
        hidden_size=source.embed_dim,
        num_hidden_layers=source.num_layers,
        num_attention_heads=source.attention_heads,
        intermediate_size=4 * source.embed_dim,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        layer_norm_eps=1e-5,
        token_dropout=source.token_dropout,
        emb_layer_norm_before=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **({} if attention == "default" else {"attn_implementation": attention}),
    )
    model = EsmModel(settings, add_pooling_layer=False)
    state = source.state_dict()
    names = {wanted: name for name in state if (wanted := hf_esm_name(name))}
    renamed = {wanted: state[name] for wanted, name in names.items()}
    missing, unexpected = model.load_state_dict(renamed, strict=False)
    # What a checkpoint does not have: constants of the rotation, and the contact head.
    lacking = [name for name in missing if not re.search("inv_freq|contact|position", name)]
    if lacking or unexpected:
        raise TargetError(
            f"This release of transformers names ESM-2's weights in another way: "
            f"{(lacking or unexpected)[0]} has no counterpart."
        )
    return model


def hf_esm_name(name: str) -> str:
    """An encoder's tensor by transformers' name, from fair-esm's; empty for one of a head."""
    match = _LAYER.fullmatch(name)
    if match and match[2] in _PARTS:
        return f"encoder.layer.{match[1]}.{_PARTS[match[2]]}.{match[3]}"
    return _WHOLE.get(name, "")


class HfEsm:
    """An `EsmModel` as an `Embedder`."""

    def __init__(self, model: Any, *, names: Mapping[str, str], way: str, backend: str) -> None:
        self._model = model
        self._names = names  # transformers' -> fair-esm's
        self._way = way
        self.backend = backend

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The encoder's parameters by fair-esm's names; the contact head is not loaded."""
        named = self._model.named_parameters()
        return {self._names[name]: tensor for name, tensor in named if name in self._names}

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """[T] -> {layer: [T, D]}."""
        mask = torch.ones_like(ids)[None]
        return _rows(self._model(ids[None], attention_mask=mask, output_hidden_states=True))

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """[tokens] -> {layer: [tokens, D]}."""
        if self._way == "padded":
            return self._padded(ids, cu_seqlens)
        given: dict[str, Any] = {"position_ids": position_ids(cu_seqlens)[None]}
        if self._way == "kwargs":
            given |= {"cu_seq_lens_q": cu_seqlens, "cu_seq_lens_k": cu_seqlens}
            given |= {"max_length_q": max_seqlen, "max_length_k": max_seqlen}
        else:
            owner = owner_ids(cu_seqlens)
            given["attention_mask"] = (owner[:, None] == owner[None, :])[None, None]
        return _rows(self._model(ids[None], output_hidden_states=True, **given))

    def _padded(self, ids: torch.Tensor, cu_seqlens: torch.Tensor) -> dict[int, torch.Tensor]:
        parts: dict[int, list[torch.Tensor]] = {}
        for first, last in _batches(cu_seqlens.diff().tolist()):
            bounds = cu_seqlens[first : last + 1]
            start, end = int(bounds[0]), int(bounds[-1])
            batch, mask = pad(ids[start:end], bounds - start, PAD)
            found = self._model(batch, attention_mask=mask.long(), output_hidden_states=True)
            for layer, rows in enumerate(found.hidden_states):
                parts.setdefault(layer, []).append(rows[mask])
        return {layer: torch.cat(rows) for layer, rows in parts.items()}


def _batches(lengths: list[int]) -> list[tuple[int, int]]:
    """Neighbours of a pack that are padded together: (first, one past the last)."""
    found, first, longest = [], 0, 0
    for place, length in enumerate(lengths):
        if place > first and max(longest, length) * (place - first + 1) > MAX_PADDED_TOKENS:
            found.append((first, place))
            first, longest = place, 0
        longest = max(longest, length)
    return [*found, (first, len(lengths))]


def _rows(output: Any) -> dict[int, torch.Tensor]:
    """One row's hidden states; transformers numbers them as fair-esm does."""
    return {layer: rows[0] for layer, rows in enumerate(output.hidden_states)}
