"""Random ESM-2 weights that make a good yardstick.

fair-esm's own initialisation is a blind one: attention is nearly uniform, so that shuffling a
sequence leaves the pooled cosine at 0.9999. Larger query and key weights and a random LayerNorm
affine make the embeddings depend on order, position and every residual stream.
"""

import math
from dataclasses import dataclass, replace

import torch

_VOCABULARY_SIZE = 33
_PADDING_INDEX = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the weights depart from fair-esm's initialisation.

    Attributes:
        attention_gain: factor on the query and on the key weights; logits grow by its square.
        layer_norm_spread: standard deviation of the LayerNorm weights around 1 and biases
            around 0.
        outliers: what the first channels of the residual stream grow to by the last layer.
    """

    attention_gain: float
    layer_norm_spread: float
    outliers: tuple[float, ...] = ()


def calibration_for(num_layers: int) -> Calibration:
    """The calibration of `synthetic` weights.

    Gain 3 catches shuffling, restarted positions, a wrong RoPE base, a missing 0.88 rescale and
    leaks between neighbours up to 12 layers. Noise grows with depth too: at 30 layers and more,
    gain 3 would leave a healthy bfloat16 run no room under 0.999.
    """
    return Calibration(3.0 if num_layers <= 12 else 2.0, 0.25)


# Trained models keep a few channels of their residual stream at a hundred times the others.
OUTLIERS = (110.0, -85.0, 65.0)
# A channel's own variance in the stream, roughly, and what a LayerNorm leaves of an outlier.
_STREAM_VARIANCE = 4.0
_OUTLIER_WEIGHT = 0.1


def with_outliers(calibration: Calibration) -> Calibration:
    """The same with outlier channels, on which clamps and overflow show."""
    return replace(calibration, outliers=OUTLIERS)


def _add_outliers(
    state: dict[str, torch.Tensor], num_layers: int, outliers: tuple[float, ...]
) -> None:
    """Let the first channels grow by a share in each layer; the norms see to the other channels.

    Each LayerNorm divides by the whole row's deviation, so its weights make good for what the
    outliers add to that, as training does.
    """
    count = len(outliers)
    grown = torch.tensor(outliers)
    encoder = "encoder.sentence_encoder"
    for layer in range(num_layers):
        prefix = f"{encoder}.layers.{layer}"
        state[f"{prefix}.fc2.bias"][:count] += grown / num_layers
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            _make_good(state[f"{prefix}.{norm}.weight"], grown * layer / num_layers)
    _make_good(state[f"{encoder}.emb_layer_norm_after.weight"], grown)


def _make_good(weight: torch.Tensor, values: torch.Tensor) -> None:
    added = float(values.square().sum()) / len(weight)
    weight *= math.sqrt(1.0 + added / _STREAM_VARIANCE)
    if added > 0:
        weight[: len(values)] *= _OUTLIER_WEIGHT


def synthetic_state(
    num_layers: int, embed_dim: int, num_heads: int, seed: int, calibration: Calibration
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """State of an ESM-2 model and of its contact head, under the names of official checkpoints.

    All tensors are float32. The distributions are those of fair-esm's constructors, then
    calibrated.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(bound: float, *size: int) -> torch.Tensor:
        return torch.empty(size).uniform_(-bound, bound, generator=generator)

    def normal(mean: float, deviation: float, *size: int) -> torch.Tensor:
        return torch.empty(size).normal_(mean, deviation, generator=generator)

    def xavier(gain: float, rows: int, columns: int) -> torch.Tensor:
        return uniform(gain * math.sqrt(6 / (rows + columns)), rows, columns)

    state: dict[str, torch.Tensor] = {}

    def add_linear(name: str, rows: int, columns: int) -> None:
        bound = 1 / math.sqrt(columns)
        state[f"{name}.weight"] = uniform(bound, rows, columns)
        state[f"{name}.bias"] = uniform(bound, rows)

    def add_layer_norm(name: str) -> None:
        state[f"{name}.weight"] = normal(1, calibration.layer_norm_spread, embed_dim)
        state[f"{name}.bias"] = normal(0, calibration.layer_norm_spread, embed_dim)

    encoder = "encoder.sentence_encoder"
    head_dim = embed_dim // num_heads
    inv_freq = 1.0 / (10000 ** (torch.arange(0, head_dim, 2).float() / head_dim))
    embeddings = normal(0, 1, _VOCABULARY_SIZE, embed_dim)
    embeddings[_PADDING_INDEX] = 0
    state[f"{encoder}.embed_tokens.weight"] = embeddings
    for layer in range(num_layers):
        prefix = f"{encoder}.layers.{layer}"
        attention = f"{prefix}.self_attn"
        for part, gain in (
            ("q_proj", calibration.attention_gain),
            ("k_proj", calibration.attention_gain),
            ("v_proj", 1.0),
        ):
            state[f"{attention}.{part}.weight"] = gain * xavier(
                1 / math.sqrt(2), embed_dim, embed_dim
            )
            state[f"{attention}.{part}.bias"] = uniform(1 / math.sqrt(embed_dim), embed_dim)
        state[f"{attention}.out_proj.weight"] = xavier(1.0, embed_dim, embed_dim)
        state[f"{attention}.out_proj.bias"] = torch.zeros(embed_dim)
        state[f"{attention}.rot_emb.inv_freq"] = inv_freq.clone()
        add_layer_norm(f"{prefix}.self_attn_layer_norm")
        add_linear(f"{prefix}.fc1", 4 * embed_dim, embed_dim)
        add_linear(f"{prefix}.fc2", embed_dim, 4 * embed_dim)
        add_layer_norm(f"{prefix}.final_layer_norm")
    add_layer_norm(f"{encoder}.emb_layer_norm_after")
    state["encoder.lm_head.weight"] = embeddings
    state["encoder.lm_head.bias"] = torch.zeros(_VOCABULARY_SIZE)
    add_linear("encoder.lm_head.dense", embed_dim, embed_dim)
    state["encoder.lm_head.layer_norm.weight"] = torch.ones(embed_dim)
    state["encoder.lm_head.layer_norm.bias"] = torch.zeros(embed_dim)

    if calibration.outliers:
        _add_outliers(state, num_layers, calibration.outliers)
    bound = 1 / math.sqrt(num_layers * num_heads)
    regression = {
        "contact_head.regression.weight": uniform(bound, 1, num_layers * num_heads),
        "contact_head.regression.bias": uniform(bound, 1),
    }
    return state, regression
