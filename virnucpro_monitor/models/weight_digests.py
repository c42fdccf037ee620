"""Digests of checkpoints: of a file's bytes, and of what it makes a model compute."""

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro_monitor.disks import sha256_of
from virnucpro_monitor.models.weight_names import is_of_encoder
from virnucpro_monitor.scratch import scratch_folder, sweep

if TYPE_CHECKING:
    import torch  # else a folder's digest would take seconds for the import alone

_unwritten: dict[Path, tuple[str, str]] = {}  # stamp and digest, by the note


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, remembered beside it for as long as size and time are the same."""

    return remembered(path, "sha256", lambda: sha256_of(path))


def files_of(folder: Path) -> tuple[Path, ...]:
    """All files of a folder and of those below it, in order."""
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def folder_digest(folder: Path) -> str:
    """SHA-256 (hex) of all files of a folder and of those below it, names and bytes.

    Remembered beside it for as long as names, sizes and times are the same.

    Raises:
        OSError: one cannot be read.
    """
    files = files_of(folder)
    return _folder_digest(folder, files, listing_of(folder, files))


@functools.lru_cache(maxsize=32)  # where no note can be left beside it
def _folder_digest(folder: Path, files: tuple[Path, ...], listing: str) -> str:
    def read() -> str:
        digest = hashlib.sha256()
        for path in files:
            about = f"{path.relative_to(folder)}\0{path.stat().st_size}\0"
            digest.update(about.encode(errors="surrogateescape"))
            digest.update(bytes.fromhex(sha256_of(path)))
        return digest.hexdigest()

    return _noted(folder, "sha256", listing, read)


def listing_of(folder: Path, files: Sequence[Path]) -> str:
    """What tells that files of a folder are as they were: SHA-256 of names, sizes and times."""
    listing = hashlib.sha256()
    for path in files:
        stamp = [path.stat().st_size, path.stat().st_mtime_ns]
        listing.update(f"{path.relative_to(folder)}\0{stamp}\0".encode(errors="surrogateescape"))
    return listing.hexdigest()


def encoder_digest(
    state: "Mapping[str, torch.Tensor]", *, num_heads: int, token_dropout: bool
) -> str:
    """SHA-256 (hex) of what decides an embedding, whatever file it came from and in whose dtype.

    Args:
        state: tensors by fair-esm's names; those of the heads and constants do not count.
    """
    encoder = {name: tensor for name, tensor in state.items() if is_of_encoder(name)}
    return state_digest(encoder, f"{num_heads} heads, token dropout {token_dropout}")


def state_digest(state: "Mapping[str, torch.Tensor]", settings: str) -> str:
    """SHA-256 (hex) of tensors by name, in FP32, and of what else decides what they compute."""
    digest = hashlib.sha256(f"{settings}\n".encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def remembered(
    path: Path, kind: str, compute: Callable[[], str], *, files: Sequence[Path] = ()
) -> str:
    """A digest of a file, kept beside it for as long as its size and time are the same.

    Args:
        kind: of digest, the suffix of the note.
        files: of a folder at `path`, whose names, sizes and times count.
    """
    stamp = listing_of(path, files) if files else f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    return _noted(path, kind, stamp, compute)


def _noted(path: Path, kind: str, stamp: str, compute: Callable[[], str]) -> str:
    """What `compute` gives, or what the note beside `path` has under this stamp."""
    note = path.with_name(f"{path.name}.{kind}")
    try:
        known, _, digest = note.read_text(encoding="ascii").rpartition(" ")
    except (OSError, UnicodeDecodeError):
        known, digest = "", ""
    if known == stamp and re.fullmatch("[0-9a-f]{64}", digest):
        return digest
    if _unwritten.get(note, ("", ""))[0] == stamp:
        return _unwritten[note][1]
    digest = compute()
    try:
        with replacing(note) as temporary:
            temporary.write_text(f"{stamp} {digest}")
    except OSError:  # a read-only folder: each process computes it once
        _unwritten[note] = stamp, digest
    return digest


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when all went well."""
    prefix = f".{path.name}."
    sweep(path.parent, prefix)  # gigabytes, where a start was killed
    with scratch_folder(path.parent, prefix) as temporary:
        yield temporary
        temporary.replace(path)
