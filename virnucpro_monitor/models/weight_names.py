"""ESM-2's tensors by the names that other packages give them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True, slots=True)
class Naming:
    """How a package names what fair-esm names otherwise.

    Attributes:
        layer: where a layer's parts stand, with `{}` for its number.
        parts: of a layer, by fair-esm's names.
        whole: of the rest of the encoder, by fair-esm's names.
        head: of the language-model head, by fair-esm's names.
    """

    layer: str
    parts: Mapping[str, str]
    whole: Mapping[str, str]
    head: Mapping[str, str]

    def of(self, name: str) -> str:
        """The package's name of one of fair-esm's tensors; empty where it has none for it."""
        match = _LAYER.fullmatch(name)
        if match and match[2] in self.parts:
            return f"{self.layer.format(match[1])}.{self.parts[match[2]]}.{match[3]}"
        return self.whole.get(name) or self.head.get(name, "")

    def back(self, name: str) -> str:
        """fair-esm's name of one of the package's; empty where it has none for it."""
        name = name.removeprefix("esm.")
        for theirs in (self.whole, self.head):
            for ours, given in theirs.items():
                if given.removeprefix("esm.") == name:
                    return ours
        pattern = re.escape(self.layer.removeprefix("esm.")).replace(r"\{\}", r"(\d+)")
        match = re.fullmatch(rf"{pattern}\.(.+)\.(weight|bias)", name)
        parts = {given: ours for ours, given in self.parts.items()}
        if match and match[2] in parts:
            return f"layers.{match[1]}.{parts[match[2]]}.{match[3]}"
        return ""

    def table(self, names: Mapping[str, object]) -> dict[str, str]:
        """fair-esm's name by the package's, of those that it has."""
        return {wanted: name for name in names if (wanted := self.of(name))}


_HEAD = {
    f"lm_head.{part}": f"lm_head.{part}"
    for part in ("dense.weight", "dense.bias", "layer_norm.weight", "layer_norm.bias")
}

HUGGING_FACE = Naming(
    layer="esm.encoder.layer.{}",
    parts={
        "self_attn.q_proj": "attention.self.query",
        "self_attn.k_proj": "attention.self.key",
        "self_attn.v_proj": "attention.self.value",
        "self_attn.out_proj": "attention.output.dense",
        "self_attn_layer_norm": "attention.LayerNorm",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "final_layer_norm": "LayerNorm",
    },
    whole={
        "embed_tokens.weight": "esm.embeddings.word_embeddings.weight",
        "emb_layer_norm_after.weight": "esm.encoder.emb_layer_norm_after.weight",
        "emb_layer_norm_after.bias": "esm.encoder.emb_layer_norm_after.bias",
    },
    head={
        **_HEAD,
        "lm_head.bias": "lm_head.bias",
        "lm_head.weight": "lm_head.decoder.weight",
        "contact_head.regression.weight": "esm.contact_head.regression.weight",
        "contact_head.regression.bias": "esm.contact_head.regression.bias",
    },
)
"""Of an `EsmForMaskedLM`; an `EsmModel` has them without `esm.` in front."""

ESM_EFFICIENT = Naming(
    layer="layers.{}",
    parts={
        "self_attn.q_proj": "self_attn.q",
        "self_attn.k_proj": "self_attn.k",
        "self_attn.v_proj": "self_attn.v",
        "self_attn.out_proj": "self_attn.out",
        "self_attn_layer_norm": "self_attn.norm",
        "final_layer_norm": "final.0",
        "fc1": "final.1",
        "fc2": "final.3",
    },
    whole={
        name: name
        for name in (
            "embed_tokens.weight",
            "emb_layer_norm_after.weight",
            "emb_layer_norm_after.bias",
        )
    },
    head={
        **_HEAD,
        "lm_head.weight": "lm_head.final.weight",
        "lm_head.bias": "lm_head.final.bias",
    },
)
"""Of esm-efficient's own safetensors."""


def is_of_encoder(name: str) -> bool:
    """Whether one of fair-esm's tensors decides an embedding: no head's, no constant."""
    return bool(_LAYER.fullmatch(name)) or name in ESM_EFFICIENT.whole
