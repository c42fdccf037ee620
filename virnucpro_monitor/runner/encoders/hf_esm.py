"""Hugging Face's `EsmModel`, three ways of putting several sequences through it."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.families import ESM2
from virnucpro_monitor.models.unfilled import undrawn
from virnucpro_monitor.models.weight_files import hugging_face_settings
from virnucpro_monitor.models.weight_names import HUGGING_FACE, Naming, is_of_encoder
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.encoders.hf_index import import_model
from virnucpro_monitor.runner.layouts import embed_padded, owner_ids, position_ids


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
        import_model("hf-esm", "esm")  # first of all, so that a missing one is told at once
        source, _ = load_checkpoint(request.model_name, request.checkpoint)
        return HfEsm(
            hf_esm_model(source, attention=self._attention),
            source,
            request,
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


def hf_esm_model(source: Any, *, attention: str) -> torch.nn.Module:
    """An `EsmModel` with the weights of fair-esm's `ESM2`, in FP32 on the CPU.

    Raises:
        TargetError: the installed release does not take them.
    """
    theirs = import_model("hf-esm", "esm")
    extra = {} if attention == "default" else {"attn_implementation": attention}
    settings = theirs.EsmConfig(**hugging_face_settings(source), **extra)
    with undrawn():
        model = theirs.EsmModel(settings, add_pooling_layer=False)
    return load_named(model, source, HUGGING_FACE)


def names_in(model: torch.nn.Module, state: Mapping[str, Any], naming: Naming) -> dict[str, str]:
    """fair-esm's name by the model's, of all tensors of a fair-esm state that the model takes.

    The contact head is left alone, and that of the language model where there is none.
    """
    has = model.state_dict()
    prefix = "" if any(name.startswith("esm.") for name in has) else "esm."
    table = {wanted.removeprefix(prefix): name for wanted, name in naming.table(state).items()}
    return {
        wanted: name
        for wanted, name in table.items()
        if is_of_encoder(name) or (wanted in has and name.startswith("lm_head."))
    }


def load_named(model: torch.nn.Module, source: Any, naming: Naming) -> torch.nn.Module:
    """Load the tensors of fair-esm's `ESM2` into a model that names them otherwise; returns it.

    Raises:
        TargetError: a tensor has no counterpart.
    """
    state = source.state_dict()
    names = names_in(model, state, naming)
    missing, unexpected = model.load_state_dict(
        {wanted: state[name] for wanted, name in names.items()}, strict=False
    )
    # What a checkpoint does not have: constants of the rotation, and what no embedding needs.
    lacking = [one for one in missing if not re.search("inv_freq|contact|position|lm_head", one)]
    if lacking or unexpected:
        raise TargetError(
            f"{type(model).__name__} of this release names ESM-2's weights in another way: "
            f"{(lacking or unexpected)[0]} has no counterpart."
        )
    return model


class HfEsm:
    """An `EsmModel` as an `Embedder`."""

    def __init__(
        self,
        model: torch.nn.Module,
        source: Any,
        request: LoadRequest,
        *,
        way: str,
        backend: str,
        mask_dtype: torch.dtype = torch.long,
    ) -> None:
        self._names = names_in(model, source.state_dict(), HUGGING_FACE)
        self._model = with_dtype(model, request.dtype).to(request.device).eval()
        self._way, self._mask_dtype = way, mask_dtype
        self.backend = backend

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The parameters by fair-esm's names."""
        named = self._model.named_parameters()
        return {self._names[name]: tensor for name, tensor in named if name in self._names}

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """[T] -> {layer: [T, D]}."""
        return self._padded(ids, torch.tensor([0, len(ids)], device=ids.device))

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """[tokens] -> {layer: [tokens, D]}."""
        if self._way == "padded":
            return self._padded(ids, cu_seqlens)
        given: dict[str, Any] = {"position_ids": position_ids(cu_seqlens, ESM2.positions)[None]}
        if self._way == "kwargs":
            given |= {"cu_seq_lens_q": cu_seqlens, "cu_seq_lens_k": cu_seqlens}
            given |= {"max_length_q": max_seqlen, "max_length_k": max_seqlen}
        else:
            owner = owner_ids(cu_seqlens)
            given["attention_mask"] = (owner[:, None] == owner[None, :])[None, None]
        return _rows(self._model(ids[None], output_hidden_states=True, **given))

    def _padded(self, ids: torch.Tensor, cu_seqlens: torch.Tensor) -> Mapping[int, torch.Tensor]:
        def embed(batch: torch.Tensor, mask: torch.Tensor) -> Any:
            given = {"attention_mask": mask.to(self._mask_dtype), "output_hidden_states": True}
            return self._model(batch, **given).hidden_states

        return embed_padded(ids, cu_seqlens, embed)


def _rows(output: Any) -> dict[int, torch.Tensor]:
    """One row's hidden states; transformers numbers them as fair-esm does."""
    return {layer: rows[0] for layer, rows in enumerate(output.hidden_states)}
