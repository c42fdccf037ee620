"""Small modules with the interfaces of public packages, for the adapters that load those."""

import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from virnucpro_monitor.models.weight_files import read_foreign


def install(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Let `import NAME` give a module with this content, for one test."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        module = ModuleType(".".join(parts[:depth]))
        if depth == len(parts):
            vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)


class CppModel:
    """esm_cpp.Model: logits by numpy in and out, from a safetensors file."""

    def __init__(self, path: str) -> None:
        from esm import Alphabet
        from esm.model.esm2 import ESM2

        found = read_foreign(Path(path))
        width = found.state["embed_tokens.weight"].shape[1]
        layers = 1 + max(int(name.split(".")[1]) for name in found.state if "layers." in name)
        alphabet = Alphabet.from_architecture("ESM-1b")
        self.model = ESM2(layers, width, found.num_heads or 0, alphabet, True).eval()
        self.model.load_state_dict(dict(found.state), strict=False)

    @staticmethod
    def load_from_safetensors(path: str) -> "CppModel":
        return CppModel(path)

    def forward(self, ids: Any) -> Any:
        assert ids.dtype == np.int32
        with torch.no_grad():
            logits = self.model(torch.from_numpy(ids).long()[None])["logits"][0]
        return logits.numpy()

    def forward_packed(self, ids: Any, cu_seqlens: Any) -> list[Any]:
        assert cu_seqlens.dtype == np.int32
        return [self.forward(part) for part in np.split(ids, cu_seqlens[1:-1])]


class EsmeAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor, bounds: torch.Tensor, longest: int) -> torch.Tensor:
        from flash_attn import flash_attn_varlen_func

        x = self.norm(x)
        q, k, v = (one(x).unflatten(-1, (self.heads, -1)) for one in (self.q, self.k, self.v))
        q, k = (turned(one, bounds) for one in (q, k))
        seen = flash_attn_varlen_func(
            q,
            k,
            v,
            cu_seqlens_q=bounds,
            cu_seqlens_k=bounds,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
        )
        return self.out(seen.flatten(1))  # type: ignore[no-any-return]


class EsmeLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = EsmeAttention(width, heads)
        self.final = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, bounds: torch.Tensor, longest: int) -> torch.Tensor:
        x = x + self.self_attn(x, bounds, longest)
        return x + self.final(x)  # type: ignore[no-any-return]


class EsmeModel(nn.Module):
    """esme.esm.ESM2, with the rescale of its embeddings by 0.88 that the real one lacks."""

    def __init__(self, layers: int, width: int, heads: int, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_layers, self.embed_dim = layers, width
        self.embed_tokens = nn.Embedding(33, width)
        self.layers = nn.ModuleList([EsmeLayer(width, heads) for _ in range(layers)])
        self.emb_layer_norm_after = nn.LayerNorm(width)

    def embedding(self, tokens: torch.Tensor, pad_args: Any = None) -> torch.Tensor:
        return self.embed_tokens(tokens) * 0.88  # type: ignore[no-any-return]

    def forward_representation(
        self, tokens: torch.Tensor, pad_args: Any, layers: list[int]
    ) -> torch.Tensor:
        from flash_attn.bert_padding import pad_input, unpad_input

        x, places = self.embedding(tokens), None
        if pad_args is None:
            x, places, bounds, longest, _ = unpad_input(x, tokens.ne(1))
        else:
            bounds, longest = pad_args
        kept = []
        for index, layer in enumerate(self.layers):
            x = layer(x, bounds, longest)
            kept += [x] if index in layers else []
        found = torch.cat((self.emb_layer_norm_after(x), *kept), dim=-1)
        return found if places is None else pad_input(found, places, *tokens.shape)


def turned(x: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """[tokens, heads, head_dim], each pair by its angle: ESM-2's rotary positions."""
    places = torch.cat([torch.arange(length) for length in bounds.diff().tolist()])
    half = x.shape[-1] // 2
    angles = places[:, None] / 10000 ** (torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x.split(half, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


NV_RECIPE = {
    "modeling_esm_te.py": "",
    "convert.py": textwrap.dedent(
        """
        import torch


        class Base(torch.nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, ids, *, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k,
                        output_hidden_states):
                from transformers.modeling_outputs import BaseModelOutput

                assert torch.equal(cu_seq_lens_q, cu_seq_lens_k) and max_length_q == max_length_k
                parts = ids[0].tensor_split(cu_seq_lens_q[1:-1].long())
                found = [self.model(one[None], output_hidden_states=True) for one in parts]
                layers = zip(*(one.hidden_states for one in found))
                rows = [torch.cat(one, dim=1) for one in layers]
                return BaseModelOutput(hidden_states=(rows[0], *(one[0] for one in rows[1:])))


        def convert_esm_hf_to_te(model_hf, *, attn_input_format, dtype):
            assert attn_input_format == "thd"
            made = torch.nn.Module()
            made.base_model = Base(model_hf.esm)
            return made
        """
    ),
}

FASTPLMS = {
    "__init__.py": "",
    "models/__init__.py": "",
    "models/esm2/__init__.py": "",
    "models/esm2/modeling_fastesm.py": textwrap.dedent(
        """
        from transformers import EsmConfig, EsmModel


        class FastEsmConfig(EsmConfig):
            def __init__(self, attn_backend=None, **settings):
                super().__init__(**settings)
                assert attn_backend == "sdpa"


        class FAST_ESM_ENCODER(EsmModel):
            pass
        """
    ),
}


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
