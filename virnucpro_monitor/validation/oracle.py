"""Oracles: reference embeddings of a benchmark set, kept on disk by digest.

One folder per digest (model, weights, benchmark, layer, definition) holds

    pooled.npy      [n, D] float64     mean over residues
    residues.npy    [sum of lengths, D] float32, read one sequence at a time
    embedding.npy   [33, D] float32    the checkpoint's own token table
    oracle.json     what it was made from, and each file's fingerprint

The usual one is unmodified fair-esm in FP32 with TF32 off. Others (`validation.other_oracles`) may
know no residues and no token table.

It is written into a private folder and renamed into place, so that a reader sees all of it or none
and two writers don't disturb each other. A torn or altered file is noticed when it is opened.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.data.pooling import mean_pool
from virnucpro_monitor.disks import writing
from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.models.weights import MODEL_SHAPES, Weights, load_checkpoint
from virnucpro_monitor.records import FAIR_ESM_ORACLE, BenchmarkSet, Json, content_digest
from virnucpro_monitor.scratch import scratch_folder, sweep
from virnucpro_monitor.validation.measures import all_finite
from virnucpro_monitor.validation.tokens import encode

DEFINITION = "fair-esm 2.0.0, FP32, TF32 off, final LayerNorm, mean over residues in FP64; 1"
_POOLED, _RESIDUES, _EMBEDDING = "pooled.npy", "residues.npy", "embedding.npy"
_FACTS = "oracle.json"
_RESIDUE_DTYPE = np.dtype("<f4")
_HEADER_LENGTH_AT = 8  # in a .npy file of format 1.0: two bytes, after which the header comes
_HASHED_BYTES = 32 * 1024**2  # at either end of a file: opening a large oracle stays cheap


class TornOracleError(WeightsError):
    """The cached oracle is incomplete or altered; `prepare_oracle` makes it anew."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """Reference embeddings of one benchmark set.

    Attributes:
        pooled: [n, D] float64, in the benchmark's order.
        residues_path: of the [sum of lengths, D] float32 array; None where it knows none.
        starts: n + 1 row numbers into that array.
        embedding: [33, D] float32, the token table; None where it knows none.
        model_name, weights_path: what a trace loads; the path may be gone by now, and is None where
            it is another model than fair-esm's.
        weights_digest: empty where the run's weights have no part in it.
        kind: what a run calls it.
    """

    digest: str
    model_name: str
    weights_digest: str
    benchmark_digest: str
    weights_path: Path | None
    pooled: np.ndarray[Any, np.dtype[np.float64]]
    residues_path: Path | None
    starts: tuple[int, ...]
    embedding: np.ndarray[Any, np.dtype[np.float32]] | None
    kind: str = FAIR_ESM_ORACLE

    def residues_of(self, index: int) -> torch.Tensor:
        """[len, D] float32 of the benchmark's sequence `index`, a copy.

        Raises:
            TornOracleError: the file has gone since the oracle was opened.
        """
        return self._read(slice(self.starts[index], self.starts[index + 1]))

    def residue_of(self, index: int, residue: int) -> torch.Tensor:
        """[D] float32 of one residue of the benchmark's sequence `index`, a copy.

        Raises:
            TornOracleError: the file has gone since the oracle was opened.
        """
        row = self.starts[index] + residue
        return self._read(slice(row, row + 1))[0]

    def _read(self, rows: slice) -> torch.Tensor:
        assert self.residues_path is not None
        # Read and not mapped: a mapping's pages count as this process's memory as long as it stays,
        # and one that is made anew for each row costs more than all that is done with the row.
        width, item_bytes = self.pooled.shape[1], _RESIDUE_DTYPE.itemsize
        count = rows.stop - rows.start
        try:
            with self.residues_path.open("rb", buffering=0) as file:
                start = (
                    _HEADER_LENGTH_AT
                    + 2
                    + int.from_bytes(file.read(_HEADER_LENGTH_AT + 2)[_HEADER_LENGTH_AT:], "little")
                )
                num_bytes = start + self.starts[-1] * width * item_bytes
                if os.fstat(file.fileno()).st_size != num_bytes:
                    raise ValueError(f"it is not {num_bytes} bytes long")
                file.seek(start + rows.start * width * item_bytes)
                found = np.fromfile(file, dtype=_RESIDUE_DTYPE, count=count * width)
            return torch.from_numpy(found.astype(np.float32, copy=False).reshape(count, width))
        except (OSError, ValueError) as error:
            raise TornOracleError(
                f"The oracle file {self.residues_path} cannot be read any more ({error}): start "
                "again."
            ) from error

    def pooled_of(self, index: int) -> torch.Tensor:
        """[D] float64."""
        return torch.from_numpy(np.array(self.pooled[index]))

    @staticmethod
    def open(folder: Path) -> "Oracle":
        """Open a cached oracle without reading its residues.

        Raises:
            TornOracleError: a file is missing, cut short or altered.
        """
        try:
            facts: Json = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
            files = facts["files"]
            for name in files:
                if files[name] != _fingerprint(folder / name):
                    raise TornOracleError(
                        f"The oracle file {folder / name} is torn or altered: delete {folder}."
                    )
            return Oracle(
                digest=facts["digest"],
                model_name=facts["model"],
                weights_digest=facts["weights_digest"],
                benchmark_digest=facts["benchmark_digest"],
                weights_path=Path(facts["weights_path"]) if facts["weights_path"] else None,
                pooled=np.load(folder / _POOLED),
                residues_path=folder / _RESIDUES if _RESIDUES in files else None,
                starts=tuple(facts["starts"]),
                embedding=np.load(folder / _EMBEDDING) if _EMBEDDING in files else None,
                kind=facts.get("kind", FAIR_ESM_ORACLE),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TornOracleError(
                f"The oracle in {folder} is incomplete ({error}): delete the folder."
            ) from error


def oracle_folder(cache_folder: Path, digest: str) -> Path:
    return cache_folder / "oracle" / digest


def oracle_digest(model_name: str, weights_digest: str, benchmark_digest: str) -> str:
    layer = MODEL_SHAPES[model_name].num_layers
    return content_digest([model_name, weights_digest, benchmark_digest, layer, DEFINITION])


def prepare_oracle(
    model_name: str,
    weights: Weights,
    benchmark: BenchmarkSet,
    *,
    cache_folder: Path,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> Oracle:
    """Open the oracle of a benchmark set, computing it where the cache has none.

    Args:
        device: where a missing oracle is computed.
        on_progress: called with (sequences done, all sequences) while it is computed.

    Raises:
        WeightsError: the checkpoint cannot be loaded, or gives values that are not finite.
    """
    digest = oracle_digest(model_name, weights.digest, benchmark.digest)

    def compute(folder: Path) -> None:
        model, _ = load_checkpoint(model_name, weights.path)
        model = model.to(device)
        layer = model.num_layers

        def embed(text: str) -> torch.Tensor:
            tokens = encode(text).to(device)[None]
            rows = model(tokens, repr_layers=[layer])["representations"][layer][0, 1:-1]
            return cast(torch.Tensor, rows)

        facts = {
            "digest": digest,
            "definition": DEFINITION,
            "model": model_name,
            "weights_digest": weights.digest,
            "weights_path": str(Path(weights.path).resolve()),
            "device": device,
        }
        table = model.embed_tokens.weight.detach().float().cpu().numpy()
        with full_float32(), torch.inference_mode():
            write_oracle(
                folder,
                benchmark,
                embed,
                facts,
                maker=f"The weights {weights.path.name} in FP32",
                table=table,
                on_progress=on_progress,
            )

    return kept_oracle(cache_folder, digest, compute)


def kept_oracle(cache_folder: Path, digest: str, compute: Callable[[Path], None]) -> Oracle:
    """Open an oracle, letting `compute` fill a folder where the cache has none.

    Raises:
        Exception: what `compute` raises.
    """
    folder = oracle_folder(cache_folder, digest)
    if folder.is_dir():
        try:
            return Oracle.open(folder)
        except TornOracleError:
            shutil.rmtree(folder, ignore_errors=True)
    sweep(folder.parent, ".")
    with (
        writing("The oracle", folder),
        scratch_folder(folder.parent, f".{digest[:12]}-") as private,
    ):
        if folder.is_symlink() or folder.is_file():  # in the way, and nothing of ours
            folder.unlink()
        private.mkdir()
        compute(private)
        # Another writer may have been faster: its folder holds the same, ours is dropped.
        try:
            private.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return Oracle.open(folder)


def oracle_beside(oracle: Oracle, benchmark: BenchmarkSet, device: str) -> Oracle | None:
    """The oracle of another benchmark set under the same weights; None where those are gone.

    Raises:
        WeightsError: as `prepare_oracle` does.
    """
    path = oracle.weights_path
    if path is None or oracle.residues_path is None or not path.is_file():
        return None
    weights = Weights(
        path=path,
        regression_path=path.with_name(f"{path.stem}-contact-regression.pt"),
        digest=oracle.weights_digest,
        source=path.name,
    )
    return prepare_oracle(
        oracle.model_name,
        weights,
        benchmark,
        cache_folder=oracle.residues_path.parents[2],
        device=device,
    )


def write_oracle(
    folder: Path,
    benchmark: BenchmarkSet,
    embed: Callable[[str], torch.Tensor],
    facts: Mapping[str, Json],
    *,
    maker: str,
    table: np.ndarray[Any, np.dtype[np.float32]] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill an oracle's folder, one sequence at a time.

    Args:
        embed: residues, truncated as everywhere -> [len, D], or [D] where pooled is all that is
            known of it. All sequences have the same D.
        facts: what it was made from.
        maker: what it was made by, as the beginning of a sentence.
        table: [33, D], the token table.
        on_progress: called with (sequences done, all sequences).

    Raises:
        WeightsError: a value is not finite in FP32, or all values of a sequence are 0.
    """
    texts = [truncate(sequence.residues)[0] for sequence in benchmark.sequences]
    starts, pooled, first = [0], [], embed(texts[0])
    whole = first.dim() == 2
    for text in texts:
        starts.append(starts[-1] + len(text))
    with (folder / _RESIDUES).open("wb") as file:
        shape = (starts[-1], first.shape[-1])
        header = {"descr": _RESIDUE_DTYPE.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for index, text in enumerate(texts):
            rows = embed(text) if index else first
            pooled.append((mean_pool(rows) if whole else rows.double()).cpu().numpy())
            exact = rows.float()  # as it is kept: what FP32 cannot hold is infinite there
            if not (all_finite(exact) and np.isfinite(pooled[-1]).all()):
                raise WeightsError(
                    f"{maker} give values that are not finite for "
                    f"{benchmark.sequences[index].id!r}: use others."
                )
            if not pooled[-1].any():
                raise WeightsError(
                    f"{maker} give nothing but zeros for {benchmark.sequences[index].id!r}, from "
                    "which no distance can be told: use others."
                )
            if whole:
                file.write(np.ascontiguousarray(exact.cpu().numpy(), dtype=_RESIDUE_DTYPE).data)
            if on_progress:
                on_progress(index + 1, len(texts))
    names = [_POOLED, _RESIDUES]
    if not whole:
        names.remove(_RESIDUES)
        (folder / _RESIDUES).unlink()
    np.save(folder / _POOLED, np.stack(pooled))
    if table is not None:
        names.append(_EMBEDDING)
        np.save(folder / _EMBEDDING, table)
    known = {
        # Of no model, no checkpoint and no file of it, where the facts name none.
        **dict.fromkeys(("model", "weights_digest", "weights_path"), ""),
        **facts,
        "benchmark": benchmark.label,
        "benchmark_digest": benchmark.digest,
        "starts": starts,
        "files": {name: _fingerprint(folder / name) for name in names},
    }
    (folder / _FACTS).write_text(json.dumps(known), encoding="utf-8")
    for name in (*names, _FACTS):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def full_float32() -> Iterator[None]:
    """Turn TF32 and autocast off for the block, as the oracle needs."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = False, False
    try:
        with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _fingerprint(path: Path) -> list[Json]:
    """[size in bytes, SHA-256 of up to 32 MiB at either end]."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        if size > _HASHED_BYTES:
            file.seek(max(_HASHED_BYTES, size - _HASHED_BYTES))
            digest.update(file.read())
    return [size, digest.hexdigest()]
