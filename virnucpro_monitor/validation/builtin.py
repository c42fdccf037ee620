"""The package's own packed ESM-2 as a subject."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from virnucpro_monitor.data.collators import VarlenCollator
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention, load_esm2_model
from virnucpro_monitor.validation.subject import Layers, PackedBatch


def load_builtin(
    model_name: str,
    *,
    weights: Path,
    device: str,
    dtype: str | torch.dtype,
    backend: str,
    token_budget: int,
) -> "BuiltinSubject":
    """The package's own model with these weights, ready to be validated.

    Args:
        weights: the checkpoint's file.

    Raises:
        WeightsError: the checkpoint cannot be used.
        ConfigurationError: unknown dtype, or the backend cannot run here.
        DeviceError: the device is not there.
    """
    model, batch_converter = load_esm2_model(
        model_name, device, weights=str(weights), dtype=dtype, backend=backend
    )
    return BuiltinSubject(model, batch_converter, model_name=model_name, token_budget=token_budget)


class BuiltinSubject:
    """`ESM2WithFlashAttention` with `VarlenCollator`, under one token budget.

    Args:
        model: in the dtype and on the device to validate, in evaluation mode.
        batch_converter: what `load_esm2_model` returned with it.
        token_budget: tokens in one pack.
    """

    def __init__(
        self,
        model: ESM2WithFlashAttention,
        batch_converter: Callable[..., Any],
        *,
        model_name: str,
        token_budget: int = 4096,
    ) -> None:
        self.model = model
        self.batch_converter = batch_converter
        self.model_name = model_name
        self.token_budget = token_budget

    @property
    def num_layers(self) -> int:
        return int(self.model.num_layers)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def backend(self) -> str:
        return str(self.model.backend)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Parameters and buffers by name."""
        return dict([*self.model.named_parameters(), *self.model.named_buffers()])

    @torch.inference_mode()
    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        """tokens [T] int64 -> {layer: [T, D]}, in one pass."""
        output = self.model(tokens[None].to(self.device), repr_layers=list(layers))
        return {layer: rows[0] for layer, rows in output["representations"].items()}

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        """Pack (id, residues) pairs, in as many packs as the token budget needs."""
        return make_packs(self.batch_converter, sequences, self.token_budget, per_call=per_call)

    @torch.inference_mode()
    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        """{layer: [tokens, D]} in one pass, rows in the order of `batch.input_ids`."""
        output = self.model.forward_packed(
            batch.input_ids.to(self.device),
            batch.cu_seqlens.to(self.device),
            batch.max_seqlen,
            repr_layers=list(layers),
        )
        representations: Layers = output["representations"]
        return representations


def make_packs(
    batch_converter: Callable[..., Any],
    sequences: Sequence[tuple[str, str]],
    token_budget: int,
    *,
    per_call: int | None = None,
) -> Iterator[PackedBatch]:
    """Pack (id, residues) pairs with this package's own collator, as `Subject.pack` asks it."""
    # Pinned memory opens the card, which a fork of a process that has counted cards cannot.
    collator = VarlenCollator(
        batch_converter, max_tokens_per_batch=token_budget, enable_packing=True, pin_memory=False
    )
    records = [{"id": id_, "sequence": text, "file": ""} for id_, text in sequences]
    size = per_call or max(1, len(records))
    calls = (collator(records[start : start + size]) for start in range(0, len(records), size))
    yield from (_to_batch(pack) for pack in calls if pack)
    yield from (_to_batch(pack) for pack in collator.flush() if pack)


def _to_batch(pack: Mapping[str, Any]) -> PackedBatch:
    return PackedBatch(
        input_ids=pack["input_ids"],
        cu_seqlens=pack["cu_seqlens"],
        max_seqlen=int(pack["max_seqlen"]),
        sequence_ids=tuple(pack["sequence_ids"]),
    )
