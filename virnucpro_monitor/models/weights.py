"""ESM-2 checkpoints: where they come from, and how they are read without running their code.

Three sources: `official` (fair-esm's own download and cache), a path, and `synthetic`, made here
from a seed in fair-esm's own format; `synthetic-outliers` are the same with channels of the
residual stream as large as trained models have. A path may be fair-esm's `.pt` or another package's
(`models.weight_files`), which is written anew in fair-esm's format into the cache.
"""

import argparse
import errno
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from esm import Alphabet
from esm.model.esm2 import ESM2

from virnucpro_monitor.disks import path_from, writing
from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.models.synthetic import (
    Calibration,
    calibration_for,
    synthetic_state,
    with_outliers,
)
from virnucpro_monitor.models.unfilled import unfilled
from virnucpro_monitor.models.weight_digests import encoder_digest, remembered, replacing
from virnucpro_monitor.models.weight_files import (
    digest_of_other,
    files_of,
    is_foreign,
    other_family,
    read_foreign,
)
from virnucpro_monitor.models.weight_names import is_of_encoder
from virnucpro_monitor.records import content_digest

_OFFICIAL_URL = "https://dl.fbaipublicfiles.com/fair-esm"
_STATE_PREFIXES = ("encoder.sentence_encoder.", "encoder.")


SYNTHETIC_OUTLIERS = "synthetic-outliers"
SYNTHETIC = ("synthetic", SYNTHETIC_OUTLIERS)
# What the demo watches: as deep as 8M, its heads as wide but a fifth as many, so that two cores
# measure a history in seconds. Nobody has trained one: its weights are synthetic.
DEMO_MODEL = "esm2_t6_demo"


@dataclass(frozen=True, slots=True)
class ModelShape:
    num_layers: int
    embed_dim: int
    num_heads: int

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads


MODEL_SHAPES = {
    "esm2_t6_8M_UR50D": ModelShape(6, 320, 20),
    "esm2_t12_35M_UR50D": ModelShape(12, 480, 20),
    "esm2_t30_150M_UR50D": ModelShape(30, 640, 20),
    "esm2_t33_650M_UR50D": ModelShape(33, 1280, 20),
    "esm2_t36_3B_UR50D": ModelShape(36, 2560, 40),
    "esm2_t48_15B_UR50D": ModelShape(48, 5120, 40),
    DEMO_MODEL: ModelShape(6, 64, 4),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint on this machine.

    Attributes:
        path: the model's `.pt` file; its stem is the model's name, as fair-esm's loaders want. Of
            another family's weights the Hugging Face folder, which fair-esm cannot load.
        regression_path: the contact head's own file, which fair-esm's loaders want beside it.
        source: "official", one of `SYNTHETIC` or the name of the file or folder that was given.
        digest: of the encoder's tensors (`weight_digests.encoder_digest`): the same weights have
            one in every format and dtype that holds their values.
    """

    path: Path
    regression_path: Path
    source: str
    digest: str


def model_shape(model_name: str) -> ModelShape:
    """Raises `WeightsError` for a name that is no ESM-2 model's."""
    try:
        return MODEL_SHAPES[model_name]
    except KeyError:
        raise WeightsError(
            f"Unknown model {model_name!r}: choose one of {', '.join(MODEL_SHAPES)}."
        ) from None


def default_cache_folder() -> Path:
    """Where synthetic weights go when the caller names no folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "virnucpro-monitor"


def resolve_weights(
    model_name: str,
    weights: str,
    *,
    cache_folder: Path | None = None,
    seed: int = 0,
) -> Weights:
    """Find, download or make the checkpoint that `weights` names.

    Args:
        weights: "official", one of `SYNTHETIC` or the path of a `.pt` file, of a safetensors file
            or of a Hugging Face folder.
        cache_folder: where synthetic and converted weights are kept; the user's cache folder by
            default.
        seed: of synthetic weights.

    Raises:
        WeightsError: unknown model, no such file, one that cannot be read, or the download failed.
    """
    model_shape(model_name)
    cache_folder = cache_folder or default_cache_folder()
    if weights == "official":
        path, regression_path = _download_official(model_name)
        source = "official"
    elif weights in SYNTHETIC:
        path = cache_folder / "weights" / f"{weights}-v1-seed{seed}" / f"{model_name}.pt"
        regression_path = _regression_beside(path)
        source = weights
        if not (path.is_file() and regression_path.is_file()):
            calibration = calibration_for(model_shape(model_name).num_layers)
            if weights == SYNTHETIC_OUTLIERS:
                calibration = with_outliers(calibration)
            synthesize(model_name, path, seed, calibration)
    else:
        given = path_from(weights)
        source = given.name
        if other_family(given) is not None:
            files = files_of(given)
            digest = remembered(given, "weights", lambda: digest_of_other(given), files=files)
            return Weights(given.resolve(), given.resolve(), source, digest)
        path = checkpoint_file(model_name, given, cache_folder)
        regression_path = _regression_beside(path)
        if not regression_path.is_file():
            # The embeddings don't need the contact head, but fair-esm's loaders insist on it.
            regression_path = cache_folder / "weights" / f"{model_name}-contact-regression.pt"
            _save(_zero_regression(model_name), regression_path)
    digest = remembered(path, "weights", lambda: checkpoint_digest(path))
    return Weights(path.resolve(), regression_path.resolve(), source, digest)


def checkpoint_file(model_name: str, path: Path, cache_folder: Path) -> Path:
    """A `.pt` file with the weights at `path`: itself, or what another package's was made into.

    Raises:
        WeightsError: there is nothing there, or it is no ESM-2.
    """
    if not path.exists():
        raise WeightsError(
            f"No checkpoint at {path}: give the path of a .pt file, of a safetensors file or of a "
            "Hugging Face folder, or 'official', or 'synthetic'."
        )
    if not is_foreign(path):
        return path
    stamps = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files_of(path)]
    key = content_digest([model_name, str(path.resolve()), stamps])
    converted = cache_folder / "weights" / f"converted-{key[:16]}" / f"{model_name}.pt"
    if not converted.is_file():
        _convert(model_name, path, converted)
    return converted


def checkpoint_digest(path: Path) -> str:
    """The digest of a `.pt` file's encoder.

    Raises:
        WeightsError: it cannot be read, or is not in fair-esm's format.
    """
    checkpoint = _read(path)
    try:
        config = checkpoint["cfg"]["model"]
        state = {_plain_name(name): tensor for name, tensor in checkpoint["model"].items()}
        return encoder_digest(
            state,
            num_heads=int(config.encoder_attention_heads),
            token_dropout=bool(config.token_dropout),
        )
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _not_fair_esm(path, error) from error


def _convert(model_name: str, path: Path, converted: Path) -> None:
    """Write another package's weights as fair-esm has them, what it lacks of the heads as zeros."""
    shape, found = model_shape(model_name), read_foreign(path)
    if found.num_heads not in (None, shape.num_heads):
        raise WeightsError(
            f"{path} is a model of {found.num_heads} attention heads, which is not {model_name}; "
            "name the model it belongs to."
        )
    with unfilled():
        expected = _empty_model(shape, found.token_dropout)[0].state_dict()
    state: dict[str, torch.Tensor] = {}
    heads: dict[str, torch.Tensor] = {}
    for name, empty in expected.items():
        tensor = found.state.get(name)
        if tensor is None and is_of_encoder(name):
            raise WeightsError(f"{path} does not fit {model_name}: it has no {name}.")
        if tensor is None:
            tensor = _filled_in(name, empty, found.state)
        (heads if name.startswith("contact_head.") else state)[name] = tensor
    strange = sorted(found.state.keys() - expected.keys())
    if strange:
        raise WeightsError(f"{path} does not fit {model_name}, which has no {strange[0]}.")
    _save({"model": heads}, _regression_beside(converted))
    content = {"cfg": {"model": _config(shape, found.token_dropout)}, "model": state}
    _save(content, converted)


def _filled_in(name: str, empty: torch.Tensor, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What a file may lack: constants of the rotation, and heads that no embedding needs."""
    if name.endswith("inv_freq"):
        pairs = empty.shape[0]
        return 1.0 / (10000 ** (torch.arange(0, 2 * pairs, 2).float() / (2 * pairs)))
    if name == "lm_head.weight":
        return state["embed_tokens.weight"]
    return torch.zeros(empty.shape)


def synthesize(
    model_name: str, path: Path, seed: int = 0, calibration: Calibration | None = None
) -> None:
    """Write random weights to `path`, in fair-esm's own format, with the contact head beside it.

    The same model, seed and calibration give the same file.
    """
    shape = model_shape(model_name)
    calibration = calibration or calibration_for(shape.num_layers)
    state, regression = synthetic_state(
        shape.num_layers, shape.embed_dim, shape.num_heads, seed, calibration
    )
    _save({"model": regression}, _regression_beside(path))
    _save({"cfg": {"model": _config(shape)}, "model": state}, path)


def _config(shape: ModelShape, token_dropout: bool = True) -> argparse.Namespace:
    return argparse.Namespace(
        arch="roberta_base",
        encoder_layers=shape.num_layers,
        encoder_embed_dim=shape.embed_dim,
        encoder_ffn_embed_dim=4 * shape.embed_dim,
        encoder_attention_heads=shape.num_heads,
        token_dropout=token_dropout,
    )


def load_checkpoint(model_name: str, path: Path) -> tuple[ESM2, Alphabet]:
    """Unmodified fair-esm's model in FP32 and eval mode on the CPU, and its alphabet.

    The file is read with `weights_only`, which admits tensors, containers and
    `argparse.Namespace` and nothing that could run code.

    Raises:
        WeightsError: missing, corrupt, unsafe, or a checkpoint of another model.
    """
    shape = model_shape(model_name)
    checkpoint = _read(path)
    try:
        config = checkpoint["cfg"]["model"]
        found = ModelShape(
            config.encoder_layers, config.encoder_embed_dim, config.encoder_attention_heads
        )
        token_dropout = config.token_dropout
        state = {_plain_name(name): tensor for name, tensor in checkpoint["model"].items()}
        regression_path = _regression_beside(path)
        has_regression = regression_path.is_file()
        regression = _read(regression_path) if has_regression else _zero_regression(model_name)
        state |= regression["model"]
    except (KeyError, TypeError, AttributeError) as error:
        raise _not_fair_esm(path, error) from error
    if found != shape:
        raise WeightsError(
            f"{path} holds a model of {found.num_layers} layers, width {found.embed_dim} and "
            f"{found.num_heads} heads, which is not {model_name}; name the model it belongs to."
        )
    # On the meta device nothing is allocated or initialised, which saves most of the loading
    # time; `assign` then puts the file's tensors in place.
    with unfilled():
        model, alphabet = _empty_model(shape, token_dropout)
    try:
        model.load_state_dict(
            {name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True
        )
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not fit {model_name}: {' '.join(str(error).split())[:300]}"
        ) from error
    return model.eval().requires_grad_(False), alphabet


def _empty_model(shape: ModelShape, token_dropout: bool) -> tuple[ESM2, Alphabet]:
    alphabet = Alphabet.from_architecture("ESM-1b")
    model = ESM2(
        num_layers=shape.num_layers,
        embed_dim=shape.embed_dim,
        attention_heads=shape.num_heads,
        alphabet=alphabet,
        token_dropout=token_dropout,
    )
    return model, alphabet


def _not_fair_esm(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is not an ESM-2 checkpoint in fair-esm's format (no {error}); download the "
        "official one, or use 'synthetic'."
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        if other_family(path) is not None:
            raise WeightsError(
                f"{path} holds another model than ESM-2, which only an adapter of its own family "
                "can load, held against another oracle than fair-esm."
            )
        raise WeightsError(f"No checkpoint at {path}: give the path of a .pt file.")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # of a damaged file's versions: it is told below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} was refused: it holds something else than tensors and plain settings, and "
            "loading it could run code; use a checkpoint from a source you trust."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise WeightsError(
            f"{path} cannot be read as a PyTorch checkpoint: it is damaged or of another kind; "
            "download it again."
        ) from error


def _plain_name(name: str) -> str:
    for prefix in _STATE_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _regression_beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-contact-regression.pt")


def _zero_regression(model_name: str) -> dict[str, dict[str, torch.Tensor]]:
    shape = model_shape(model_name)
    return {
        "model": {
            "contact_head.regression.weight": torch.zeros(1, shape.num_layers * shape.num_heads),
            "contact_head.regression.bias": torch.zeros(1),
        }
    }


def _download_official(model_name: str) -> tuple[Path, Path]:
    if model_name == DEMO_MODEL:
        raise WeightsError(
            f"There are no official weights of {model_name}, the demo's encoder, which nobody has "
            "trained: use 'synthetic' weights, or name one of ESM-2's sizes."
        )
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / f"{model_name}.pt"
    regression_path = _regression_beside(path)
    for file, kind in ((path, "models"), (regression_path, "regression")):
        if file.is_file():
            continue
        url = f"{_OFFICIAL_URL}/{kind}/{file.name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), progress=False)
        except (URLError, OSError) as error:
            raise WeightsError(
                f"The official weights of {model_name} are not in {folder} and could not be "
                f"downloaded ({error}); put {file.name} there, or use 'synthetic' weights."
            ) from error
    return path, regression_path


def _save(content: Any, path: Path) -> None:
    with (
        writing("The checkpoint", path),
        replacing(path) as temporary,
        temporary.open("wb") as file,
    ):
        # Through a file object the archive inside isn't named after the temporary file, so equal
        # content gives equal bytes.
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what torch makes of a disk without room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
