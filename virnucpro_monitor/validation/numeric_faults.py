"""Injected faults of arithmetic: precision, weights, activations, tables and the embedding."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from virnucpro_monitor.models import esm2_flash
from virnucpro_monitor.models.packed_attention import packed_attention
from virnucpro_monitor.validation import fault_parts as parts
from virnucpro_monitor.validation import fault_tools as tools
from virnucpro_monitor.validation.fault_tools import Tables
from virnucpro_monitor.validation.faulty_subject import Fault, Rows
from virnucpro_monitor.validation.planting import Patch
from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import alphabet

_BF16 = torch.bfloat16


def _attention_in(dtype: torch.dtype) -> parts.Patches:
    return parts.attention(
        lambda q, k, v, pack, backend: packed_attention(
            q.to(dtype), k.to(dtype), v.to(dtype), pack, backend
        ).to(q)
    )


def _rounded_weights(module: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, module.weight.to(_BF16).to(x), module.bias)


def _rounded_products(module: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x.to(_BF16), module.weight.to(_BF16), module.bias.to(_BF16)).to(x)


def _layers(change: Callable[..., torch.Tensor | None], only: int | None = None) -> parts.Patches:
    """Layers as a function of (original, hidden, attend)."""
    return lambda model: [
        Patch(layer, "forward", change)
        for number, layer in enumerate(model.layers)
        if only in (None, number)
    ]


def _clamped(original: Any, hidden: torch.Tensor, attend: Any) -> torch.Tensor | None:
    found: torch.Tensor = original(hidden, attend)
    return found.clamp(-60.0, 60.0) if bool((found.abs() > 60.0).any()) else None


def _norm_without_bias(model: Any) -> list[Patch]:
    def without(norm: Any) -> Callable[..., torch.Tensor]:
        return lambda original, x: functional.layer_norm(
            x, norm.normalized_shape, norm.weight, None, norm.eps
        )

    return [
        Patch(layer.attention_norm, "forward", without(layer.attention_norm))
        for layer in model.layers
    ]


def _gelu(instead: Callable[[torch.Tensor], torch.Tensor]) -> parts.Patches:
    return lambda model: [Patch(functional, "gelu", lambda original, x: instead(x))]


def _short_table(size: int, *, wraps: bool = False) -> parts.Patches:
    def get(original: Any, length: int, device: torch.device) -> Tables | None:
        if length <= size:
            return None
        cos, sin = original(length, device)
        places = torch.arange(len(cos), device=device)
        places = places % size if wraps else places.clamp(max=size - 1)
        return cos[places], sin[places]

    return parts.tables(lambda tables: get)


def _turned_back(original: Any, length: int, device: torch.device) -> Tables:
    cos, sin = original(length, device)
    return cos, -sin


def _without_token_dropout(
    embed: Any,
    tokens: torch.Tensor,
    masked: torch.Tensor,
    num_masked: torch.Tensor,
    length: torch.Tensor,
) -> torch.Tensor:
    found: torch.Tensor = embed(tokens, torch.zeros_like(masked), num_masked * 0, length) / 0.88
    return found


def _read_as_x(letter: str) -> Callable[..., torch.Tensor | None]:
    token, other = alphabet().get_idx(letter), alphabet().get_idx("X")

    def embed(original: Any, tokens: torch.Tensor, *given: torch.Tensor) -> torch.Tensor | None:
        if not bool((tokens == token).any()):
            return None
        found: torch.Tensor = original(tokens.masked_fill(tokens == token, other), *given)
        return found

    return embed


def _rounded_table(model: Any) -> list[Patch]:
    table = model.embed_tokens

    def forward(original: Any, tokens: torch.Tensor) -> torch.Tensor:
        return functional.embedding(tokens, table.weight.to(_BF16).to(table.weight))

    return [Patch(table, "forward", forward)]


def _last(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Rows]:
    """The last layer's rows changed."""

    def on_rows(rows: Rows, batch: PackedBatch, last: int, memory: dict[str, Any]) -> Rows:
        return {**rows, last: change(rows[last])} if last in rows else rows

    return on_rows


NUMERIC_FAULTS: tuple[Fault, ...] = (
    Fault(
        name="attention in float16",
        kind="arithmetic",
        signature="attention float16",
        patches=_attention_in(torch.float16),
    ),
    Fault(
        name="attention in bfloat16",
        kind="arithmetic",
        signature="attention bfloat16",
        patches=_attention_in(_BF16),
    ),
    Fault(
        name="weights rounded to bfloat16",
        kind="arithmetic",
        signature="weights bfloat16",
        plain=True,
        patches=parts.products(_rounded_weights),
    ),
    Fault(
        name="one matrix of layer 3 rounded to bfloat16",
        kind="arithmetic",
        signature="weights bfloat16",
        plain=True,
        patches=parts.products(_rounded_weights, only=(2, "fc1")),
    ),
    Fault(
        name="token table rounded to bfloat16",
        plain=True,
        kind="arithmetic",
        signature="weights bfloat16",
        patches=_rounded_table,
    ),
    Fault(
        name="matrix products in bfloat16",
        kind="arithmetic",
        signature="products bfloat16",
        plain=True,
        patches=parts.products(_rounded_products),
    ),
    Fault(
        name="residual stream in bfloat16",
        kind="arithmetic",
        signature="stream bfloat16",
        plain=True,
        patches=_layers(lambda original, *given: original(*given).to(_BF16).to(given[0])),
    ),
    Fault(
        name="residual stream clamped to 60",
        kind="range",
        signature="stream clamped",
        plain=True,
        patches=_layers(_clamped),
    ),
    Fault(
        name="output rounded to bfloat16",
        kind="arithmetic",
        signature="output bfloat16",
        on_rows=_last(lambda rows: rows.to(_BF16).to(rows)),
    ),
    Fault(
        name="output scaled by 1.001",
        kind="arithmetic",
        signature="output scaled",
        on_rows=_last(lambda rows: rows * 1.001),
    ),
    Fault(name="ReLU for GELU", signature="gelu relu", plain=True, patches=_gelu(functional.relu)),
    Fault(name="SiLU for GELU", signature="gelu silu", plain=True, patches=_gelu(functional.silu)),
    Fault(
        name="feed-forward of layer 4 left out",
        signature="feed-forward left out",
        plain=True,
        patches=parts.products(lambda module, x: module.bias.expand(len(x), -1), only=(3, "fc2")),
    ),
    Fault(
        name="layer 4 skipped",
        signature="layer off by one",
        plain=True,
        patches=_layers(lambda original, hidden, attend: hidden, only=3),
    ),
    Fault(
        name="LayerNorm without its bias",
        signature="bias missing",
        plain=True,
        patches=_norm_without_bias,
    ),
    Fault(
        name="rotary table of 32 positions",
        signature="rotary table short",
        lengths=(90, 40, 22),
        patches=_short_table(32),
    ),
    Fault(
        name="rotary table wraps at 256",
        signature="rotary table short",
        lengths=(420, 22),
        patches=_short_table(256, wraps=True),
    ),
    Fault(
        name="RoPE turned the other way",
        signature="rotary reversed",
        patches=lambda model: [Patch(model.rotary, "get", _turned_back)],
    ),
    Fault(
        name="RoPE missing",
        signature="rotary missing",
        plain=True,
        patches=lambda model: [Patch(esm2_flash, "rotate", lambda original, x, cos, sin: x)],
    ),
    Fault(
        name="RoPE base 1e6",
        signature="rotary base",
        patches=parts.tables(lambda tables: tools.tables_with_base(tables, 1e6)),
    ),
    Fault(
        name="<mask> rescale by the whole pack's share",
        signature="mask rescale of the pack",
        probes=True,
        patches=parts.embedding(tools.share_of_the_pack),
    ),
    Fault(
        name="token dropout off",
        plain=True,
        signature="rescale missing",
        patches=parts.embedding(_without_token_dropout),
    ),
    Fault(
        name="U read as X in the embedding",
        signature="letters",
        lengths=(41, 22),
        patches=parts.embedding(_read_as_x("U")),
    ),
    Fault(
        name="embedding with the wrong sign",
        signature="sign",
        patches=parts.embedding(lambda embed, *given: -embed(*given)),
    ),
    Fault(
        name="embedding all zero",
        signature="zero",
        patches=parts.embedding(lambda embed, *given: embed(*given) * 0.0),
    ),
)
