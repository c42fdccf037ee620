"""ESM-2's weights in other packages' files: read into fair-esm's state, written from it.

A Hugging Face folder (config.json with model.safetensors, its shards or pytorch_model.bin), one
safetensors file with Hugging Face's names, and esm-efficient's own safetensors.
"""

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.models.weight_digests import state_digest
from virnucpro_monitor.models.weight_names import ESM_EFFICIENT, HUGGING_FACE, Naming

SUFFIX = ".safetensors"
_ONE_FILE = f"model{SUFFIX}"
_CONFIG = "config.json"
# Constants that every package computes by itself, and tables of position that ESM-2 has no use for.
_DERIVED = ("inv_freq", "position_ids", "position_embeddings.weight")


# A configuration's model_type -> the family of encoders, as `models.families` has them.
_OTHER_FAMILIES = {"esmc": "esmc", "t5": "prott5", "E1": "e1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignWeights:
    """What another package's file holds.

    Attributes:
        state: tensors by fair-esm's names, those of the heads only where the file has them.
        num_heads: None where the file does not tell.
        token_dropout: whether embeddings are rescaled by their masks, as all ESM-2 do.
    """

    state: Mapping[str, torch.Tensor]
    num_heads: int | None
    token_dropout: bool


def is_foreign(path: Path) -> bool:
    """Whether a path is a folder or a file of another package's."""
    return path.is_dir() or path.suffix == SUFFIX


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold the weights of a folder or are themselves, settings first.

    Raises:
        WeightsError: a folder without weights.
    """
    if not path.is_dir():
        return (path,)
    index = path / f"{_ONE_FILE}.index.json"
    for names in ([_ONE_FILE], _shards(index), ["pytorch_model.bin"]):
        files = [path / name for name in names]
        if files and all(file.is_file() for file in files):
            config = path / _CONFIG
            return (*([config] if config.is_file() else []), *files)
    raise WeightsError(
        f"The folder {path} has neither {_ONE_FILE} nor pytorch_model.bin: give a folder as "
        f"save_pretrained writes it."
    )


def other_family(path: Path) -> str | None:
    """The family whose weights a Hugging Face folder holds; None where it may be ESM-2's."""
    try:
        found = json.loads(path.joinpath(_CONFIG).read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _OTHER_FAMILIES.get(found)


def digest_of_other(path: Path) -> str:
    """The digest of a Hugging Face folder of another family.

    Raises:
        WeightsError: the folder has no weights, or they are damaged.
    """
    settings, *files = files_of(path)
    tensors = _tensors(files)[0]
    kept = json.loads(settings.read_text(encoding="utf-8"))
    for name in ("transformers_version", "dtype", "torch_dtype"):  # what wrote it, and in what
        kept.pop(name, None)
    return state_digest(tensors, json.dumps(kept, sort_keys=True))


def read_foreign(path: Path) -> ForeignWeights:
    """Read another package's weights.

    Raises:
        WeightsError: they are damaged, of another kind of model, or lack a tensor's name.
    """
    files = files_of(path)
    config = _settings(files[0]) if files[0].name == _CONFIG else _settings_beside(path)
    tensors, metadata = _tensors([file for file in files if file.name != _CONFIG])
    naming = ESM_EFFICIENT if "embed_tokens.weight" in tensors else HUGGING_FACE
    heads = config.get("num_attention_heads") or metadata.get("attention_heads")
    return ForeignWeights(
        state=_renamed(tensors, naming, path),
        num_heads=None if heads is None else int(heads),
        token_dropout=bool(config.get("token_dropout", True)),
    )


def write_hugging_face(source: Any, folder: Path, *, rotations: bool = False) -> None:
    """Write fair-esm's `ESM2` as `EsmForMaskedLM.save_pretrained` does.

    Args:
        rotations: with each layer's constants of the rotation, which older releases wrote too.
    """
    tensors = _named(source, HUGGING_FACE)
    if rotations:
        for index, layer in enumerate(source.layers):
            name = f"{HUGGING_FACE.layer.format(index)}.attention.self.rotary_embeddings.inv_freq"
            tensors[name] = layer.self_attn.rot_emb.inv_freq.clone()
    folder.mkdir(parents=True, exist_ok=True)
    _save(tensors, folder / _ONE_FILE, {"format": "pt"})
    settings = {
        "architectures": ["EsmForMaskedLM"],
        "model_type": "esm",
        **hugging_face_settings(source),
    }
    folder.joinpath(_CONFIG).write_text(json.dumps(settings, indent=2), encoding="utf-8")


def write_esm_efficient(source: Any, path: Path, model_name: str) -> None:
    """Write fair-esm's `ESM2` as esm-efficient's `ESM2.from_pretrained` takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format": "pt",
        "name": model_name,
        "num_layers": str(source.num_layers),
        "embed_dim": str(source.embed_dim),
        "attention_heads": str(source.attention_heads),
    }
    _save(_named(source, ESM_EFFICIENT), path, metadata)


def _save(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
    """As `save_file`, for whom the user lets read files: safetensors makes them private."""
    save_file(tensors, path, metadata=metadata)
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def hugging_face_settings(source: Any) -> dict[str, Any]:
    """What an `EsmConfig` takes for a model like fair-esm's `ESM2`."""
    return {
        "vocab_size": source.embed_tokens.num_embeddings,
        "mask_token_id": source.mask_idx,
        "pad_token_id": source.padding_idx,
        "hidden_size": source.embed_dim,
        "num_hidden_layers": source.num_layers,
        "num_attention_heads": source.attention_heads,
        "intermediate_size": 4 * source.embed_dim,
        "max_position_embeddings": 1026,
        "position_embedding_type": "rotary",
        "layer_norm_eps": 1e-5,
        "token_dropout": source.token_dropout,
        "emb_layer_norm_before": False,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def _tensors(files: Sequence[Path]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of several files, and what safetensors say of themselves."""
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, str] = {}
    for file in files:
        try:
            if file.suffix == SUFFIX:
                with safe_open(file, framework="pt") as opened:
                    metadata |= opened.metadata() or {}
                tensors |= load_file(file)
            else:
                tensors |= torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
            raise WeightsError(
                f"{file} cannot be read: it is damaged or of another kind; download it again."
            ) from error
    return tensors, metadata


def _named(source: Any, naming: Naming) -> dict[str, torch.Tensor]:
    state = source.state_dict()
    # Copies: one file does not hold two names of one storage.
    return {wanted: state[name].clone() for wanted, name in naming.table(state).items()}


def _renamed(
    tensors: Mapping[str, torch.Tensor], naming: Naming, path: Path
) -> dict[str, torch.Tensor]:
    state, strange = {}, []
    for name, tensor in tensors.items():
        found = naming.back(name)
        if found:
            state[found] = tensor
        elif not name.endswith(_DERIVED) and ".pooler." not in f".{name}":
            strange.append(name)
    if strange or "embed_tokens.weight" not in state:
        raise WeightsError(
            f"{path} holds no ESM-2: {strange[0] if strange else 'its token embeddings'} "
            f"{'has' if strange else 'have'} no counterpart there."
        )
    return state


def _shards(index: Path) -> list[str]:
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError):
        return []
    return sorted({Path(str(name)).name for name in named})


def _settings_beside(path: Path) -> dict[str, Any]:
    config = path.parent / _CONFIG
    return _settings(config) if config.is_file() and path.name == _ONE_FILE else {}


def _settings(config: Path) -> dict[str, Any]:
    """config.json, where it is an ESM-2's.

    Raises:
        WeightsError: it is damaged, or another model's.
    """
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
        kind = found.get("model_type"), found.get("position_embedding_type", "rotary")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(f"{config} cannot be read as settings: download it again.") from error
    if kind != ("esm", "rotary") or found.get("emb_layer_norm_before"):
        raise WeightsError(
            f"{config} describes a model of type {kind[0]!r} with {kind[1]} positions, which is no "
            f"ESM-2: that is 'esm' with rotary ones."
        )
    return dict(found)
