"""Oracles beside fair-esm: a file of embeddings, or the target's own unpacked path in FP64."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.disks import sha256_of
from virnucpro_monitor.errors import TargetError, WeightsError
from virnucpro_monitor.records import OWN_ORACLE, BenchmarkSet, content_digest
from virnucpro_monitor.validation.measures import relative_l2
from virnucpro_monitor.validation.oracle import Oracle, kept_oracle, write_oracle
from virnucpro_monitor.validation.tokens import encode

_ID_COLUMNS = ("id", "sequence_id")
_VALUES = "embedding"
# Of two ids of the same residues, relative L2: far above what another batch rounds in any dtype.
_SAME = 1e-2


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
    a column "embedding" of lists. Sequences of the same residues have a row of their own each.

    Raises:
        WeightsError: the file cannot be read, lacks a sequence, has one twice or in another shape,
            or has different embeddings of the same residues.
    """
    with _readable(path):
        digest = sha256_of(path)

    def compute(folder: Path) -> None:
        with _opened(path) as stream:
            fill(folder, _File(path, stream))

    def fill(folder: Path, known: _File) -> None:
        ids: dict[str, deque[str]] = {}
        for one in benchmark.sequences:
            ids.setdefault(truncate(one.residues)[0], deque()).append(one.id)

        def read(name: str, text: str) -> torch.Tensor:
            rows = known.rows(name)
            if rows.dim() == 2 and len(rows) != len(text):
                raise WeightsError(
                    f"The oracle file {path.name} has {len(rows)} rows for {name!r}, which has "
                    f"{len(text)} residues: leave BOS and EOS out."
                )
            return rows

        def embed(text: str) -> torch.Tensor:
            name, other = ids[text][0], ids[text][-1]
            rows = read(name, text)
            if other != name:
                _check_same(path, name, rows, other, read(other, text))
            ids[text].rotate(-1)  # asked again for these residues, it is for the next id
            return rows

        facts = {"digest": key, "kind": f"file:{path}"}
        write_oracle(folder, benchmark, embed, facts, maker=f"The oracle file {path.name}'s arrays")

    key = content_digest(["file, each id's own", str(path), digest, benchmark.digest])
    return kept_oracle(cache_folder, key, compute)


def check_oracle_file(path: Path) -> None:
    """Read all of a file of embeddings, whichever benchmark set it is for.

    Raises:
        WeightsError: it cannot be read, is empty, has an id twice, or arrays that don't fit.
    """
    with _opened(path) as stream:
        known = _File(path, stream)
        for name in known.names:
            known.rows(name)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"The oracle file {path} cannot be read: {error.strerror}.") from error


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    with _readable(path):
        stream = path.open("rb")
    with stream:  # ours, as numpy leaves its own open where the archive is broken
        yield stream


class _File:
    """The arrays of a .npz or .parquet file by sequence id, read one at a time.

    Raises:
        WeightsError: it cannot be read, is empty or has an id twice.
    """

    def __init__(self, path: Path, stream: BufferedReader) -> None:
        self._path = path
        self._shapes: set[tuple[int, int]] = set()  # dimensions, channels
        with self._reading():
            read = _npz if path.suffix == ".npz" else _parquet
            names, self._array = read(path, stream)
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise WeightsError(
                f"The oracle file {path.name} has the id {twice[0]!r} more than once: keep one of "
                "them."
            )
        if not names:
            raise WeightsError(f"The oracle file {path.name} has no embedding: write it anew.")
        self.names = frozenset(names)

    def rows(self, name: str) -> torch.Tensor:
        """[D] or [residues, D], as all others, in float16, float32 or float64.

        Raises:
            WeightsError: it is not there, cannot be read, or is of another dtype or shape.
        """
        if name not in self.names:
            raise WeightsError(f"The oracle file {self._path.name} has no embedding of {name!r}.")
        with self._reading(f", at {name!r}"):
            values = self._array(name)
        self._shapes.add((values.ndim, values.shape[-1] if values.ndim else 0))
        fits = values.dtype.kind == "f" and values.dtype.itemsize <= 8
        if not fits or len(self._shapes) > 1 or values.ndim not in (1, 2) or not values.size:
            raise WeightsError(
                f"The oracle file {self._path.name} has {values.dtype} of shape {values.shape} for "
                f"{name!r}: give every sequence [D], or every one [residues, D], in float32 or "
                "float64."
            )
        # A copy in this machine's order of bytes, which is all that torch takes.
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))

    @contextmanager
    def _reading(self, where: str = "") -> Iterator[None]:
        try:
            yield
        except WeightsError:
            raise
        # What a broken file makes zipfile, zlib, numpy and Arrow raise is no closed list.
        except Exception as error:
            raise WeightsError(
                f"The oracle file {self._path} cannot be read{where} ({type(error).__name__}): "
                "give a .npz of arrays by sequence id, or a .parquet with the columns id and "
                "embedding."
            ) from error


_Arrays = tuple[list[str], Callable[[str], np.ndarray[Any, Any]]]


def _npz(path: Path, stream: BufferedReader) -> _Arrays:
    found = np.load(stream, allow_pickle=False)
    if not isinstance(found, np.lib.npyio.NpzFile):
        raise WeightsError(
            f"The oracle file {path.name} is one array without ids: write it with numpy.savez."
        )

    def array(name: str) -> np.ndarray[Any, Any]:
        values = found[name]
        if not isinstance(values, np.ndarray):
            raise WeightsError(
                f"The oracle file {path.name} has no array at {name!r}: write it with numpy.savez."
            )
        return values

    return list(found.files), array


def _parquet(path: Path, stream: BufferedReader) -> _Arrays:
    from pyarrow import parquet

    table = parquet.read_table(stream)
    columns = [name for name in _ID_COLUMNS if name in table.column_names]
    if not columns or _VALUES not in table.column_names:
        raise WeightsError(
            f"The oracle file {path.name} has the columns {', '.join(table.column_names)}: give id "
            f"and {_VALUES}."
        )
    names = [str(name) for name in table.column(columns[0]).to_pylist()]
    values = table.column(_VALUES).to_pylist()
    known = dict(zip(names, values, strict=True))
    return names, lambda name: np.asarray(known[name], dtype=np.float64)


def _check_same(
    path: Path, name: str, rows: torch.Tensor, other: str, others: torch.Tensor
) -> None:
    """Two ids of the same residues: they may differ by what another batch rounds."""
    apart = relative_l2(rows, others)
    # Zeros and what is not finite have no distance, and are refused as they are written.
    if apart is not None and apart > _SAME:
        raise WeightsError(
            f"The oracle file {path.name} has different embeddings of the same residues, of "
            f"{other!r} and {name!r} ({apart:.1e} apart, relative L2): one of them is wrong."
        )
