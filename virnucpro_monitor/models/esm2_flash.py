"""ESM-2 for padded batches (`forward`) and for packs without padding (`forward_packed`).

Both share the weights and the layers and differ in attention alone: `forward` runs plain PyTorch
with a padding mask, `forward_packed` the varlen kernels. They number hidden states as fair-esm
does: 0 is the embeddings, l the output of layer l, and the last one the output of the final
LayerNorm.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from esm import Alphabet
from esm.model.esm2 import ESM2
from torch import Tensor, nn
from torch.nn import functional

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.models.devices import checked_device
from virnucpro_monitor.models.fused import FusedAttention, can_fuse, run_layers
from virnucpro_monitor.models.graphs import GraphedPasses
from virnucpro_monitor.models.packed_attention import (
    HALF_DTYPES,
    SDPA,
    Pack,
    check_pack,
    choose_backend,
    packed_attention,
)
from virnucpro_monitor.models.rotary import RotaryTables, rotate
from virnucpro_monitor.models.unfilled import unfilled
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights

DTYPES = (torch.float32, *HALF_DTYPES)
# At inference too, fair-esm scales embeddings by the share of tokens left unmasked in training.
_TRAINING_MASK_RATIO = 0.15 * 0.8

_LAUNCHES_HIDE_FROM = 1280  # from this width on kernels take longer than launching them

Attend = Callable[[Tensor], Tensor]
"""Attention: the fused projections [..., 3 * embed_dim] -> [..., embed_dim]."""
BatchConverter = Callable[[Sequence[tuple[str, str]]], tuple[list[str], list[str], Tensor]]


class Layer(nn.Module):
    """One transformer layer, with the query, key and value projections as one matrix."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.fc1 = nn.Linear(embed_dim, 4 * embed_dim)
        self.fc2 = nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, hidden: Tensor, attend: Attend) -> Tensor:
        """[..., embed_dim] -> the same shape."""
        hidden = hidden + self.out(attend(self.qkv(self.attention_norm(hidden))))
        hidden = hidden + self.fc2(functional.gelu(self.fc1(self.mlp_norm(hidden))))
        return hidden


class ESM2WithFlashAttention(nn.Module):
    """ESM-2, numerically fair-esm's.

    Args:
        base: fair-esm's model in float32, whose weights are copied.
        alphabet: fair-esm's.
        backend: of `forward_packed`; see `packed_attention.choose_backend`.
        device, dtype: of the copies.

    Attributes:
        num_layers, embed_dim, num_heads: the shape.
        alphabet: fair-esm's.
        use_kernels: False keeps `forward_packed` to plain PyTorch around the attention where it
            would use the Triton kernels (in half precision on a GPU).
        use_graphs: whether packs run as CUDA graphs where the Triton kernels do; by default in the
            models that are smaller than 650M, whose kernels are shorter than their launches.
    """

    def __init__(
        self,
        base: ESM2,
        alphabet: Alphabet,
        *,
        backend: str = "auto",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        inv_freq = base.layers[0].self_attn.rot_emb.inv_freq
        if inv_freq.dtype != torch.float32:
            raise ValueError(
                f"the base model is {inv_freq.dtype}, which has rounded its rotary frequencies; "
                "give it in float32 and choose the dtype here"
            )
        self.num_layers: int = base.num_layers
        self.embed_dim: int = base.embed_dim
        self.num_heads: int = base.attention_heads
        self.head_dim = self.embed_dim // self.num_heads
        self.alphabet = alphabet
        self.token_dropout: bool = base.token_dropout
        self._requested_backend = backend
        self.rotary = RotaryTables(inv_freq)
        self.use_kernels = True
        self.use_graphs = self.embed_dim < _LAUNCHES_HIDE_FROM
        self._graphs = GraphedPasses(self._forward_pack, alphabet.padding_idx)
        with unfilled():
            self.embed_tokens = nn.Embedding(len(alphabet), self.embed_dim)
            self.layers = nn.ModuleList(Layer(self.embed_dim) for _ in range(self.num_layers))
            self.final_norm = nn.LayerNorm(self.embed_dim)
        self.load_state_dict(_fused_state(base, torch.device(device), dtype), assign=True)
        self.requires_grad_(False)
        self.eval()

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_tokens.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    @property
    def backend(self) -> str:
        """The attention backend of `forward_packed` on the present device and dtype."""
        return choose_backend(self._requested_backend, self.device, self.dtype)

    @torch.no_grad()
    def forward(self, tokens: Tensor, repr_layers: Sequence[int] = ()) -> dict[str, Any]:
        """Embed a padded batch.

        Args:
            tokens: [B, T] int64, `<pad>` where a sequence has ended.
            repr_layers: which hidden states to return, 0 to `num_layers`.

        Returns:
            {"representations": {layer: [B, T, embed_dim]}}

        Raises:
            ValueError: wrong shape, device or dtype, or no such layer.
        """
        if tokens.ndim != 2:
            raise ValueError(f"tokens has shape {tuple(tokens.shape)}; a batch is [B, T]")
        self._check(tokens, repr_layers)
        padding = tokens.eq(self.alphabet.padding_idx)
        masked = tokens.eq(self.alphabet.mask_idx)
        hidden = self._embed(
            tokens, masked, masked.sum(-1, keepdim=True), (~padding).sum(-1, keepdim=True)
        )
        hidden = hidden.masked_fill(padding.unsqueeze(-1), 0)
        batch, length = tokens.shape
        cos, sin = (table[:length, None, :] for table in self.rotary.get(length, self.device))
        visible = ~padding[:, None, None, :] if bool(padding.any()) else None

        def attend(qkv: Tensor) -> Tensor:
            q, k, v = self._split(qkv, cos, sin)
            # [B, T, heads, head_dim] -> [B, heads, T, head_dim]
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            attended = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=visible, scale=1.0
            )
            # [B, heads, T, head_dim] -> [B, T, embed_dim]
            return attended.transpose(1, 2).reshape(batch, length, self.embed_dim)

        return {"representations": self._run(hidden, attend, repr_layers)}

    @torch.no_grad()
    def forward_packed(
        self,
        input_ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        repr_layers: Sequence[int] = (),
        *,
        check: bool = True,
    ) -> dict[str, Any]:
        """Embed a pack: sequences end to end, without padding.

        Args:
            input_ids: [tokens] int64, each sequence with its `<cls>` and `<eos>`.
            cu_seqlens: [n + 1] int32, the sequences' bounds, from 0 to `tokens`.
            max_seqlen: the longest sequence, in tokens.
            repr_layers: which hidden states to return, 0 to `num_layers`.
            check: False saves the one wait for the device, for packs that are known to be sound.

        Returns:
            {"representations": {layer: [tokens, embed_dim]}}

        Raises:
            ValueError: a malformed pack, wrong device or dtype, or no such layer.
        """
        self._check(input_ids, repr_layers)
        if check:
            check_pack(input_ids, cu_seqlens, max_seqlen)
        results = None
        on_cuda = self.device.type == "cuda"
        if on_cuda and self.use_graphs and self._fuses and self.backend != SDPA:
            results = self._graphs(
                input_ids, cu_seqlens, max_seqlen, repr_layers, self._captured_state()
            )
        if results is None:
            results = self._forward_pack(input_ids, cu_seqlens, max_seqlen, repr_layers)
        return {"representations": results}

    @property
    def _fuses(self) -> bool:
        """Whether the Triton kernels run."""
        return self.use_kernels and can_fuse(self.device, self.dtype)

    def _captured_state(self) -> tuple[object, ...]:
        """What a captured pass has built in: where weights and tables lie, which kernels."""
        tables = self.rotary.get(1, self.device)
        places = (tensor.data_ptr() for tensor in (*self.parameters(), *tables))
        return (self.dtype, self.backend, *places)

    def _forward_pack(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        """`forward_packed` on the device alone, its arguments known to be sound."""
        pack = Pack.from_cu_seqlens(cu_seqlens, max_seqlen, input_ids.numel())
        backend = self.backend
        masked = input_ids.eq(self.alphabet.mask_idx)
        counts = torch.zeros(pack.num_sequences, dtype=torch.int64, device=self.device)
        counts = counts.index_add(0, pack.sequence_index, masked.long())
        lengths = cu_seqlens.diff()
        hidden = self._embed(
            input_ids, masked, counts[pack.sequence_index], lengths[pack.sequence_index]
        )
        cos, sin = self.rotary.get(max_seqlen, self.device)
        if self._fuses:
            fused = FusedAttention(
                lambda q, k, v: packed_attention(q, k, v, pack, backend),
                cos,
                sin,
                pack.positions,
                self.num_heads,
            )
            return self._run(hidden, fused, repr_layers)
        cos, sin = cos[pack.positions, None, :], sin[pack.positions, None, :]

        def attend(qkv: Tensor) -> Tensor:
            q, k, v = self._split(qkv, cos, sin)
            # [tokens, heads, head_dim] -> [tokens, embed_dim]
            return packed_attention(q, k, v, pack, backend).flatten(1)

        return self._run(hidden, attend, repr_layers)

    def _check(self, tokens: Tensor, repr_layers: Sequence[int]) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"the model is {self.dtype}; it runs in {', '.join(map(str, DTYPES))}")
        if tokens.device != self.device:
            raise ValueError(f"the tokens are on {tokens.device}, the model on {self.device}")
        for layer in repr_layers:
            if not 0 <= layer <= self.num_layers:
                raise ValueError(f"there is no layer {layer}: choose from 0 to {self.num_layers}")

    def _embed(self, tokens: Tensor, masked: Tensor, num_masked: Tensor, length: Tensor) -> Tensor:
        """Embeddings with `<mask>` zeroed, rescaled by each sequence's share of masked tokens.

        Args:
            tokens, masked: [...]
            num_masked, length: of the token's sequence, broadcast to [...].

        Returns:
            [..., embed_dim]
        """
        if self.token_dropout and tokens.ndim == 1 and self._fuses:
            from virnucpro_monitor.models.kernels import embed

            return embed(
                tokens,
                self.embed_tokens.weight,
                masked,
                num_masked,
                length,
                scale=1 - _TRAINING_MASK_RATIO,
            )
        embedded: Tensor = self.embed_tokens(tokens)
        if not self.token_dropout:
            return embedded
        wide = embedded.masked_fill(masked.unsqueeze(-1), 0).float()
        observed = num_masked.float() / length
        scaled = wide * (1 - _TRAINING_MASK_RATIO) / (1 - observed).unsqueeze(-1)
        return scaled.to(self.dtype)

    def _split(self, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[..., 3 * embed_dim] -> scaled and turned q, turned k, and v, [..., heads, head_dim]."""
        q, k, v = self._heads(qkv)
        # fair-esm scales q before it turns it.
        return rotate(q.float() * self.head_dim**-0.5, cos, sin).to(k.dtype), rotate(k, cos, sin), v

    def _heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[..., 3 * embed_dim] -> q, k, v, views of [..., heads, head_dim]."""
        q, k, v = qkv.view(*qkv.shape[:-1], 3, self.num_heads, self.head_dim).unbind(-3)
        return q, k, v

    def _run(
        self, hidden: Tensor, attend: "Attend | FusedAttention", repr_layers: Sequence[int]
    ) -> dict[int, Tensor]:
        wanted = set(repr_layers)
        if isinstance(attend, FusedAttention):
            return run_layers(list(self.layers), self.final_norm, hidden, attend, wanted)
        representations = {0: hidden} if 0 in wanted else {}
        for number, layer in enumerate(self.layers, start=1):
            hidden = layer(hidden, attend)
            if number in wanted and number < self.num_layers:
                representations[number] = hidden
        if self.num_layers in wanted:
            representations[self.num_layers] = self.final_norm(hidden)
        return representations


def load_esm2_model(
    model_name: str = "esm2_t33_650M_UR50D",
    device: str | torch.device = "cuda:0",
    *,
    weights: str = "official",
    dtype: str | torch.dtype | None = None,
    backend: str = "auto",
    seed: int = 0,
    cache_folder: Path | None = None,
) -> tuple[ESM2WithFlashAttention, BatchConverter]:
    """Load ESM-2, ready to embed.

    Args:
        model_name: one of the six official names.
        weights: "official", "synthetic" or the path of a `.pt` file.
        dtype: by default float32 on the CPU and float16 on a GPU.
        backend: of `forward_packed`: "auto", "triton", "flash-attn", "torch-varlen" or "sdpa".
        seed: of synthetic weights.
        cache_folder: of synthetic weights; the user's cache folder by default.

    Returns:
        The model, and fair-esm's batch converter: [(id, residues)] -> (ids, residues, tokens).

    Raises:
        WeightsError: see `resolve_weights` and `load_checkpoint`.
        DeviceError: there is no such device.
        ConfigurationError: unknown dtype, or the backend cannot run here.
    """
    device = checked_device(device)
    dtype = _check_dtype(dtype, device)
    choose_backend(backend, device, dtype)
    resolved = resolve_weights(model_name, weights, cache_folder=cache_folder, seed=seed)
    base, alphabet = load_checkpoint(model_name, resolved.path)
    model = ESM2WithFlashAttention(base, alphabet, backend=backend, device=device, dtype=dtype)
    return model, alphabet.get_batch_converter()


def _check_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in DTYPES:
        names = ", ".join(str(known).removeprefix("torch.") for known in DTYPES)
        raise ConfigurationError(f"Unknown or unsupported dtype {dtype}: choose from {names}.")
    return found


def _fused_state(base: ESM2, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies of fair-esm's state under this module's names, with q, k and v in one matrix."""

    def copied(*parts: Tensor) -> Tensor:
        return torch.cat([part.to(device, dtype) for part in parts])

    state = {"embed_tokens.weight": copied(base.embed_tokens.weight)}
    for number, layer in enumerate(base.layers):
        attention = layer.self_attn
        modules = {
            "attention_norm": (layer.self_attn_layer_norm,),
            "qkv": (attention.q_proj, attention.k_proj, attention.v_proj),
            "out": (attention.out_proj,),
            "mlp_norm": (layer.final_layer_norm,),
            "fc1": (layer.fc1,),
            "fc2": (layer.fc2,),
        }
        for name, parts in modules.items():
            for kind in ("weight", "bias"):
                state[f"layers.{number}.{name}.{kind}"] = copied(
                    *(getattr(part, kind) for part in parts)
                )
    state["final_norm.weight"] = copied(base.emb_layer_norm_after.weight)
    state["final_norm.bias"] = copied(base.emb_layer_norm_after.bias)
    return state
