"""ESM-2 checkpoints: where they come from, and how they are read without running their code.

Three sources: `official` (fair-esm's own download and cache), a `.pt` file, and `synthetic`, made
here from a seed in fair-esm's own format; `synthetic-outliers` are the same with channels of the
residual stream as large as trained models have.
"""

import argparse
import errno
import hashlib
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
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
from virnucpro_monitor.scratch import scratch_folder, sweep

_OFFICIAL_URL = "https://dl.fbaipublicfiles.com/fair-esm"
_STATE_PREFIXES = ("encoder.sentence_encoder.", "encoder.")


SYNTHETIC_OUTLIERS = "synthetic-outliers"
SYNTHETIC = ("synthetic", SYNTHETIC_OUTLIERS)


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
}


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint on this machine.

    Attributes:
        path: the model's `.pt` file; its stem is the model's name, as fair-esm's loaders want.
        regression_path: the contact head's own file, which fair-esm's loaders want beside it.
        source: "official", one of `SYNTHETIC` or the checkpoint's file name.
        digest: SHA-256 (hex) of the file at `path`.
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
        weights: "official", one of `SYNTHETIC` or the path of a `.pt` file.
        cache_folder: where synthetic weights are kept; the user's cache folder by default.
        seed: of synthetic weights.

    Raises:
        WeightsError: unknown model, no such file, or the download failed.
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
        path = path_from(weights)
        regression_path = _regression_beside(path)
        source = path.name
        if not path.is_file():
            raise WeightsError(
                f"No checkpoint at {weights}: give the path of a .pt file, or 'official', or "
                "'synthetic'."
            )
        if not regression_path.is_file():
            # The embeddings don't need the contact head, but fair-esm's loaders insist on it.
            regression_path = cache_folder / "weights" / f"{model_name}-contact-regression.pt"
            _save(_zero_regression(model_name), regression_path)
    return Weights(path.resolve(), regression_path.resolve(), source, file_digest(path))


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
    config = argparse.Namespace(
        arch="roberta_base",
        encoder_layers=shape.num_layers,
        encoder_embed_dim=shape.embed_dim,
        encoder_ffn_embed_dim=4 * shape.embed_dim,
        encoder_attention_heads=shape.num_heads,
        token_dropout=True,
    )
    _save({"model": regression}, _regression_beside(path))
    _save({"cfg": {"model": config}, "model": state}, path)


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
        raise WeightsError(
            f"{path} is not an ESM-2 checkpoint in fair-esm's format (no {error}); download the "
            "official one, or use 'synthetic'."
        ) from error
    if found != shape:
        raise WeightsError(
            f"{path} holds a model of {found.num_layers} layers, width {found.embed_dim} and "
            f"{found.num_heads} heads, which is not {model_name}; name the model it belongs to."
        )
    alphabet = Alphabet.from_architecture("ESM-1b")
    # On the meta device nothing is allocated or initialised, which saves most of the loading
    # time; `assign` then puts the file's tensors in place.
    with torch.device("meta"):
        model = ESM2(
            num_layers=shape.num_layers,
            embed_dim=shape.embed_dim,
            attention_heads=shape.num_heads,
            alphabet=alphabet,
            token_dropout=token_dropout,
        )
    try:
        model.load_state_dict(
            {name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True
        )
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not fit {model_name}: {' '.join(str(error).split())[:300]}"
        ) from error
    return model.eval().requires_grad_(False), alphabet


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, remembered beside it for as long as size and time are the same."""
    status = path.stat()
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    note = path.with_name(f"{path.name}.sha256")
    try:
        remembered, _, digest = note.read_text(encoding="ascii").rpartition(" ")
    except (OSError, UnicodeDecodeError):
        remembered, digest = "", ""
    if remembered == stamp and re.fullmatch("[0-9a-f]{64}", digest):
        return digest
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with _replacing(note) as temporary:
            temporary.write_text(f"{stamp} {digest}")
    except OSError:
        pass  # a read-only folder: the digest is only computed again next time
    return digest


def _read(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(f"No checkpoint at {path}: give the path of a .pt file.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
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
        _replacing(path) as temporary,
        temporary.open("wb") as file,
    ):
        # Through a file object the archive inside isn't named after the temporary file, so equal
        # content gives equal bytes.
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what torch makes of a disk without room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when all went well."""
    prefix = f".{path.name}."
    sweep(path.parent, prefix)  # gigabytes, where a start was killed
    with scratch_folder(path.parent, prefix) as temporary:
        yield temporary
        temporary.replace(path)
