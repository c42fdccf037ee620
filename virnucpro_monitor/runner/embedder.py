"""Any other model: two functions that embed, from which a `Subject` is made.

The monitor packs, pads and checks; an adapter's author writes no more than this.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.families import ESM2, Family, FamilyFacts
from virnucpro_monitor.validation.builtin import make_packs
from virnucpro_monitor.validation.subject import Layers, PackedBatch, dtype_name
from virnucpro_monitor.validation.tokens import alphabet, encode

_WANTED = "not embeddings by layer: give {layer number: tensor [tokens, channels]}"


@runtime_checkable
class Embedder(Protocol):
    """What an adapter's `load` may give in place of a `Subject`.

    Layers are numbered as fair-esm numbers them, and the highest that is given is the model's last;
    that one is enough, but without layer 0 the embedding layer is not judged. Tokens are ESM-2's
    (`<cls>` 0, `<pad>` 1, `<eos>` 2), on the device that was asked for; an attribute `family`, a
    `models.families.Family`, has those of another kind of encoder come instead, with as many rows.
    An attribute `backend` names what the attention runs on; a method `tensors` gives parameters
    and buffers by fair-esm's names, so that they are watched and compared with the checkpoint's.
    """

    def alone(self, ids: torch.Tensor) -> Mapping[int, torch.Tensor]:
        """Embed one sequence: ids [T] int64 -> {layer: [T, D]}."""
        ...

    def together(
        self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int
    ) -> Mapping[int, torch.Tensor]:
        """Embed a pack: ids [tokens] int64, cu_seqlens [n + 1] int32 -> {layer: [tokens, D]}."""
        ...


class EmbedderSubject:
    """An `Embedder` as a `Subject`.

    Args:
        device: "cpu" or "cuda:N".
        dtype: that the embeddings must have.
        family: whose tokens the embedder reads.

    Raises:
        TargetError: it gives no embeddings, or of another dtype.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        model_name: str,
        device: str,
        dtype: torch.dtype,
        token_budget: int,
        family: Family = ESM2,
    ) -> None:
        self._embedder = embedder
        self._family = family
        self.model_name = model_name
        self.token_budget = token_budget
        self.device = torch.device(device)
        self.dtype = dtype
        self.backend = str(getattr(embedder, "backend", None) or "own")
        self._widths: dict[int, int] = {}  # channels by layer, as they were first given
        self.num_layers = max(self._alone(encode("MK"), None))

    @property
    def family(self) -> FamilyFacts:
        return self._family.facts

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Those that the embedder shows."""
        show = getattr(self._embedder, "tensors", None)
        return {} if show is None else dict(show())

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        """tokens [T] int64 -> {layer: [T, D]}."""
        return self._alone(tokens, layers)

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        """{layer: [tokens, D]}, rows in the order of `batch.input_ids`."""
        ids, bounds = batch.input_ids.to(self.device), batch.cu_seqlens.to(self.device)
        if self._family.is_esm2:
            return self._run(layers, ids.numel(), "together", ids, bounds, batch.max_seqlen)
        ids, bounds, places = self._family.translated(ids, bounds)
        longest = int(bounds.diff().max())
        found = self._run(layers, ids.numel(), "together", ids, bounds, longest)
        return {layer: rows[places] for layer, rows in found.items()}

    def _alone(self, tokens: torch.Tensor, layers: Sequence[int] | None) -> Layers:
        ids = tokens.to(self.device)
        if self._family.is_esm2:
            return self._run(layers, ids.numel(), "alone", ids)
        ids, _, places = self._family.translated(ids, torch.tensor([0, ids.numel()]))
        found = self._run(layers, ids.numel(), "alone", ids)
        return {layer: rows[places] for layer, rows in found.items()}

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        """Pack (id, residues) pairs with our own collator."""
        converter = alphabet().get_batch_converter()
        return make_packs(converter, sequences, self.token_budget, per_call=per_call)

    def _run(
        self, layers: Sequence[int] | None, num_tokens: int, how: str, *arguments: Any
    ) -> Layers:
        """What the embedder gives of these layers (None: of all), looked at."""
        with torch.no_grad():
            given = getattr(self._embedder, how)(*arguments)
        if isinstance(given, torch.Tensor):
            raise TargetError(f"{how} gives a tensor: give {{layer: embeddings}} instead.")
        if not isinstance(given, Mapping) or not given:
            what = "nothing" if given is None else f"an empty or wrong {type(given).__name__}"
            raise TargetError(f"{how} gives {what}, {_WANTED}.")
        found = dict(given) if layers is None else _chosen(given, layers, how)
        for layer, rows in found.items():
            if not isinstance(layer, int) or not isinstance(rows, torch.Tensor):
                raise TargetError(f"{how} gives {layer!r}: {type(rows).__name__}, {_WANTED}.")
            if layer < 0:
                raise TargetError(
                    f"{how} gives layer {layer}: number the layers from 0, the embeddings before "
                    f"the first, up to the model's last."
                )
            if rows.layout is not torch.strided:
                raise TargetError(f"{how} gives a sparse tensor in layer {layer}: make it dense.")
            if rows.dim() != 2 or rows.shape[0] != num_tokens:
                raise TargetError(
                    f"{how} gives embeddings of shape {tuple(rows.shape)} for {num_tokens} tokens "
                    f"in layer {layer}: give one row for each token, [{num_tokens}, channels]."
                )
            if rows.device.type != self.device.type:
                raise TargetError(
                    f"{how} gives rows on {rows.device}, asked for {self.device}: bring the model "
                    f"to request.device, and make tensors of its own on that of ids."
                )
            width = self._widths.setdefault(layer, rows.shape[1])
            if rows.shape[1] != width:
                raise TargetError(
                    f"{how} gives {rows.shape[1]} channels in layer {layer}, where it was {width} "
                    f"before: alone and together must give the same width."
                )
            if not rows.is_floating_point():
                raise TargetError(
                    f"{how} gives {dtype_name(rows.dtype)} in layer {layer}, which is no float "
                    f"dtype: give the hidden states as the model computes them."
                )
            if rows.dtype is not self.dtype:
                raise TargetError(
                    f"{how} gives {dtype_name(rows.dtype)}, not {dtype_name(self.dtype)}: bring "
                    f"the model to request.dtype, or run it with the --dtype that it has."
                )
        return found


def _chosen(found: Mapping[int, torch.Tensor], layers: Sequence[int], how: str) -> Layers:
    missing = [layer for layer in layers if layer not in found]
    if missing:
        raise TargetError(
            f"{how} gives no layer {missing[0]} (it gives {', '.join(map(str, found))}): "
            f"alone and together must give the same layers, whatever the pack."
        )
    return {layer: found[layer] for layer in layers}
