"""Oracles beside fair-esm: a file of embeddings, or the target's own unpacked path in FP64."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.errors import TargetError, WeightsError
from virnucpro_monitor.records import OWN_ORACLE, BenchmarkSet, content_digest
from virnucpro_monitor.validation.oracle import Oracle, kept_oracle, write_oracle
from virnucpro_monitor.validation.tokens import encode

_ID_COLUMNS = ("id", "sequence_id")
_VALUES = "embedding"


class Exact(Protocol):
    """A subject that can also run in FP64."""

    model_name: str

    def embed_exactly(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [T] int64 -> [T, D] float64, alone."""
        ...


def own_oracle(
    subject: Exact,
    benchmark: BenchmarkSet,
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
) -> Oracle:
    """The target's own unpacked path in FP64. What it gets wrong on both sides stays unseen.

    Args:
        folder: empty, and kept as long as the oracle is used.

    Raises:
        TargetError: it gives no embeddings of one row for each token.
        WeightsError: they are not finite.
    """

    def embed(text: str) -> torch.Tensor:
        tokens = encode(text)
        rows = subject.embed_exactly(tokens)
        if rows.dim() != 2 or len(rows) != len(tokens) or rows.dtype != torch.float64:
            raise TargetError(
                f"The target in FP64 gives {rows.dtype} of shape {tuple(rows.shape)} for "
                f"{len(tokens)} tokens: choose another oracle."
            )
        return rows[1:-1]

    facts = {
        "digest": "",  # of this run alone
        "kind": OWN_ORACLE,
        "model": subject.model_name,
        "weights_digest": "",
        "weights_path": "",
    }
    write_oracle(
        folder,
        benchmark,
        embed,
        facts,
        maker="The target's weights in FP64",
        on_progress=on_progress,
    )
    return Oracle.open(folder)


def file_oracle(path: Path, benchmark: BenchmarkSet, *, cache_folder: Path) -> Oracle:
    """The embeddings of a file: of each sequence [D], pooled, or [residues, D].

    A .npz holds an array for each sequence id; a .parquet has a column "id" (or "sequence_id") and
    a column "embedding" of lists.

    Raises:
        WeightsError: the file cannot be read, lacks a sequence, or has one in another shape.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"The oracle file {path} cannot be read: {error.strerror}.") from error

    def compute(folder: Path) -> None:
        known = _read(path)
        ids = {truncate(one.residues)[0]: one.id for one in reversed(benchmark.sequences)}
        shapes: set[tuple[int, int]] = set()  # dimensions, channels

        def embed(text: str) -> torch.Tensor:
            name = ids[text]
            if name not in known:
                raise WeightsError(f"The oracle file {path.name} has no embedding of {name!r}.")
            rows = torch.from_numpy(np.array(known[name]))
            shapes.add((rows.dim(), rows.shape[-1] if rows.dim() else 0))
            if not rows.is_floating_point() or len(shapes) > 1 or rows.dim() not in (1, 2):
                raise WeightsError(
                    f"The oracle file {path.name} has {rows.dtype} of shape {tuple(rows.shape)} "
                    f"for {name!r}: give every sequence [D], or every one [residues, D]."
                )
            if rows.dim() == 2 and len(rows) != len(text):
                raise WeightsError(
                    f"The oracle file {path.name} has {len(rows)} rows for {name!r}, which has "
                    f"{len(text)} residues: leave BOS and EOS out."
                )
            return rows

        facts = {
            "digest": key,
            "kind": f"file:{path}",
            "model": "",
            "weights_digest": "",
            "weights_path": "",
        }
        write_oracle(folder, benchmark, embed, facts, maker=f"The oracle file {path.name}'s arrays")

    key = content_digest(["file", str(path), digest, benchmark.digest])
    return kept_oracle(cache_folder, key, compute)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".npz":
            found: Mapping[str, Any] = np.load(path, allow_pickle=False)
            return found
        from pyarrow import parquet

        table = parquet.read_table(path)
        column = next(name for name in _ID_COLUMNS if name in table.column_names)
        names = table.column(column).to_pylist()
        return {
            str(name): np.asarray(values, dtype=np.float64)
            for name, values in zip(names, table.column(_VALUES).to_pylist(), strict=True)
        }
    except (OSError, ValueError, KeyError, StopIteration, ImportError) as error:
        raise WeightsError(
            f"The oracle file {path} cannot be read ({type(error).__name__}): give a .npz of "
            f"arrays by sequence id, or a .parquet with the columns id and embedding."
        ) from error
