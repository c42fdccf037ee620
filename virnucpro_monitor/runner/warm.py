"""Checkpoints mapped once, and fair-esm models built from them without random initialisation.

Mapping touches neither OpenMP nor CUDA, so it may happen before a fork; building happens after it.
What fair-esm does slowly beside it, a target's process does quickly, with the same result.
"""

import argparse
import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from virnucpro_monitor.disks import writing
from virnucpro_monitor.models.unfilled import unfilled

# SHA-256 of the source of `Alphabet.tokenize` in fair-esm 2.0.0.
_TOKENIZE_SHA256 = "209c22e7c6c30b511501ea9dc3c17716c23dbae250f498ad5ef07822ac4bbcc2"

_mapped: dict[tuple[str, int, int], Any] = {}


def map_checkpoint(path: Path) -> Any:
    """Map a checkpoint of fair-esm's format into memory, or return it where it is mapped already.

    The mapping is private: what a target writes into its parameters never reaches the file.
    """
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _mapped:
        with torch.serialization.safe_globals([argparse.Namespace]):
            _mapped[key] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return _mapped[key]


def build_model(checkpoint: Path, regression: Path) -> tuple[Any, Any]:
    """Build what fair-esm's hub loader gives for an ESM-2 checkpoint: (FP32 model, alphabet).

    Its parameters are the mapped file's own memory.

    Raises:
        RuntimeError: the checkpoint lacks a parameter or has one too many.
    """
    import esm.pretrained

    content, head = map_checkpoint(checkpoint), map_checkpoint(regression)
    data = {**content, "model": {**content["model"], **head["model"]}}
    with unfilled():
        model, alphabet, state = esm.pretrained._load_model_and_alphabet_core_v2(data)
    # fair-esm copies into FP32 parameters; large checkpoints are stored in half precision.
    state = {name: _full(value) for name, value in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.lm_head.weight = model.embed_tokens.weight  # tied, as the constructor ties them
    return model, alphabet


def _full(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def install_loader(model_name: str, checkpoint: Path, regression: Path) -> None:
    """Let fair-esm's hub loader give `model_name` from the mapped checkpoint, in this process."""
    import esm.pretrained

    original: Callable[[str], Any] = esm.pretrained.load_model_and_alphabet_hub

    def load(name: str) -> Any:
        if name == model_name:
            return build_model(checkpoint, regression)
        return original(name)

    esm.pretrained.load_model_and_alphabet_hub = load


def install_tokenizer() -> None:
    """Let fair-esm's alphabets take plain residues apart at once, in this process.

    fair-esm splits a text anew for each of its 33 tokens, which takes milliseconds for a long
    sequence, and collators are asked for thousands. Texts with anything but one-letter tokens are
    left to it. So is everything where a target brings a fair-esm of its own that tokenizes by other
    code: what that does is the target's to answer for.
    """
    from esm.data import Alphabet

    original: Callable[..., list[str]] = Alphabet.tokenize
    if _source_digest(original) != _TOKENIZE_SHA256:
        return

    def tokenize(self: Any, text: Any, **options: Any) -> list[str]:
        tokens = self.unique_no_split_tokens
        letters = {one for one in tokens if len(one) == 1 and not one.isspace()}
        plain = type(text) is str and letters.issuperset(text)
        if plain and not any(len(one) > 1 and letters.issuperset(one) for one in tokens):
            return list(text)
        return original(self, text, **options)

    Alphabet.tokenize = tokenize


def _source_digest(function: Callable[..., Any]) -> str | None:
    """SHA-256 of a function's source; None where there is none to read."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def make_torch_home(
    cache_folder: Path, model_name: str, checkpoint: Path, regression: Path, digest: str
) -> Path:
    """Make a `TORCH_HOME` in which fair-esm's hub finds the chosen weights under its own names."""
    home = cache_folder / "torch_home" / digest[:16]
    folder = home / "hub" / "checkpoints"
    with writing("The folder of links to the weights", folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in (
            (f"{model_name}.pt", checkpoint),
            (f"{model_name}-contact-regression.pt", regression),
        ):
            link, fresh = folder / name, folder / f".{name}.{os.getpid()}"
            if not (link.is_symlink() and link.readlink() == path):
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(path)
                fresh.replace(link)
    return home
