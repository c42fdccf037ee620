"""The packed engine and its peers behind one interface: tokens in, nothing out, time is measured.

Each builder takes a model's shape and gives a callable per batch. Peers that aren't importable are
left out by the caller. Weights are random and made on the GPU; they don't change the speed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from esm import Alphabet
from esm.model.esm2 import ESM2
from torch import Tensor

from virnucpro_monitor.data import GreedyPacker
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention
from virnucpro_monitor.models.weights import ModelShape

ALPHABET = Alphabet.from_architecture("ESM-1b")


@dataclass(frozen=True)
class Pack:
    input_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int


def random_sequences(count: int, seed: int = 0) -> list[Tensor]:
    """Token rows with <cls> and <eos>; lengths lognormal around 290 aa, from 8 to 1022."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, generator=generator)
    lengths = (math.log(290) + 0.6 * normal).exp().clamp(8, 1022).int().tolist()
    ends = torch.tensor([ALPHABET.cls_idx]), torch.tensor([ALPHABET.eos_idx])
    return [
        torch.cat((ends[0], torch.randint(4, 24, (length,), generator=generator), ends[1]))
        for length in lengths
    ]


def make_packs(sequences: list[Tensor], budget: int, device: str) -> list[Pack]:
    packs = []
    for plan in GreedyPacker(budget).pack([tokens.numel() for tokens in sequences]):
        rows = [sequences[index] for index in plan.indices]
        lengths = torch.tensor([0] + [row.numel() for row in rows])
        packs.append(
            Pack(
                torch.cat(rows).to(device),
                lengths.cumsum(0).int().to(device),
                int(lengths.max()),
            )
        )
    return packs


def make_padded(sequences: list[Tensor], budget: int, device: str) -> list[Tensor]:
    """Length-sorted batches [B, T] of at most `budget` tokens, padding included."""
    batches: list[Tensor] = []
    group: list[Tensor] = []
    for tokens in sorted(sequences, key=len, reverse=True):
        if group and (len(group) + 1) * len(group[0]) > budget:
            batches.append(_pad(group, device))
            group = []
        group.append(tokens)
    return [*batches, _pad(group, device)]


def _pad(rows: list[Tensor], device: str) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(
        rows, batch_first=True, padding_value=ALPHABET.padding_idx
    ).to(device)


def random_fair_esm(shape: ModelShape, device: str) -> ESM2:
    """fair-esm's model with its own initialisation, FP32, made on the device."""
    with torch.device(device):
        base = ESM2(shape.num_layers, shape.embed_dim, shape.num_heads, alphabet=ALPHABET)
    return base.eval().requires_grad_(False)


Run = Callable[[Any], Any]


def ours(shape: ModelShape, device: str, dtype: torch.dtype, backend: str) -> Run:
    model = ESM2WithFlashAttention(
        random_fair_esm(shape, device), ALPHABET, backend=backend, device=device, dtype=dtype
    )

    def run(pack: Pack) -> Any:
        return model.forward_packed(
            pack.input_ids,
            pack.cu_seqlens,
            pack.max_seqlen,
            repr_layers=[shape.num_layers],
            check=False,
        )

    return run


def fair_esm(shape: ModelShape, device: str, dtype: torch.dtype) -> Run:
    model = random_fair_esm(shape, device).to(dtype)
    return lambda tokens: model(tokens, repr_layers=[shape.num_layers])


def hugging_face(shape: ModelShape, device: str, dtype: torch.dtype) -> Run:
    from transformers import EsmConfig, EsmModel

    config = EsmConfig(
        vocab_size=33,
        mask_token_id=ALPHABET.mask_idx,
        pad_token_id=ALPHABET.padding_idx,
        hidden_size=shape.embed_dim,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=4 * shape.embed_dim,
        max_position_embeddings=1026,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
    )
    with torch.device(device):
        model = EsmModel._from_config(config, attn_implementation="sdpa", add_pooling_layer=False)
    model = model.eval().to(dtype)
    return lambda tokens: model(tokens, attention_mask=tokens.ne(ALPHABET.padding_idx).long())


def virnucpro(shape: ModelShape, device: str, dtype: torch.dtype) -> Run:
    from virnucpro.models.esm2_flash import ESM2WithFlashAttention as Peer

    model = Peer(random_fair_esm(shape, device), torch.device(device))
    return lambda pack: model.forward_packed(
        pack.input_ids, pack.cu_seqlens, pack.max_seqlen, repr_layers=[shape.num_layers]
    )


def esm_efficient(shape: ModelShape, device: str, dtype: torch.dtype) -> Run:
    from esme import ESM2 as PEER

    with torch.device(device):
        model = PEER(shape.num_layers, shape.embed_dim, shape.num_heads, dtype=dtype).eval()
    return lambda pack: model.forward_representation(
        pack.input_ids, (pack.cu_seqlens, pack.max_seqlen)
    )


@dataclass(frozen=True)
class Variant:
    """A name, how its input is laid out ("alone", "padded" or "packed"), and its builder."""

    name: str
    layout: str
    build: Callable[[ModelShape, str, torch.dtype], Run]


def variants(backends: list[str]) -> Iterator[Variant]:
    yield Variant("fair-esm, one sequence at a time", "alone", fair_esm)
    yield Variant("fair-esm, padded, length-sorted", "padded", fair_esm)
    yield Variant("HF EsmModel sdpa, padded, length-sorted", "padded", hugging_face)
    yield Variant("VirNucPro HEAD forward_packed", "packed", virnucpro)
    yield Variant("esm-efficient packed", "packed", esm_efficient)
    for backend in backends:
        yield Variant(
            f"virnucpro-monitor, {backend}",
            "packed",
            lambda shape, device, dtype, backend=backend: ours(shape, device, dtype, backend),
        )
