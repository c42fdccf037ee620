"""Reuse unpacked embeddings between commits, where the target's unpacked path did not change.

The unpacked side is the dear one: each sequence goes through the model alone. Before anything is
reused, the commit at hand must give bit-identical embeddings for a sample of lengths; otherwise
everything is computed, and kept for the next commit.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import torch

from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.records import BenchmarkSet
from virnucpro_monitor.scratch import scratch_folder, sweep
from virnucpro_monitor.validation.subject import (
    Layers,
    Subject,
    WrappedSubject,
    embed_unpacked,
)
from virnucpro_monitor.validation.tokens import encode

SAMPLE_SIZE = 12
MIN_SEQUENCES = 50  # below, every sequence is a sample: they cost no more than the probes
MAX_STORED_BYTES = 1024**3  # held in memory until the run has ended

_Key = tuple[int, tuple[int, ...]]


class ReusingSubject(WrappedSubject):
    """A subject whose unpacked embeddings come from `known` where they are in it.

    Args:
        sampled_s: by tokens, the seconds that the commit took for what it was asked as a sample.
    """

    def __init__(
        self,
        subject: Subject,
        known: Mapping[_Key, torch.Tensor],
        sampled_s: Mapping[tuple[int, ...], float],
    ) -> None:
        super().__init__(subject)
        self._known = known
        self._sampled_s = sampled_s
        self.computed: dict[_Key, torch.Tensor] = {}
        self._computed_bytes = 0

    @property
    def reuses(self) -> bool:
        """Whether what an earlier commit left is used."""
        return bool(self._known)

    def reused_rows(self, tokens: torch.Tensor) -> tuple[torch.Tensor, float | None] | None:
        """Rows of the last layer [T, D] on the CPU, and the seconds that they took this commit.

        Returns:
            None where they do not come from an earlier commit; no seconds for what was not sampled.
        """
        asked = tuple(tokens.tolist())
        rows = self._known.get((self._subject.num_layers, asked))
        return None if rows is None else (rows, self._sampled_s.get(asked))

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        keys = {layer: (layer, tuple(tokens.tolist())) for layer in layers}
        if all(key in self._known for key in keys.values()):
            return {layer: self._known[key].to(self._subject.device) for layer, key in keys.items()}
        found = self._subject.embed_unpacked_layers(tokens, layers)
        last = self._subject.num_layers
        for layer in layers if set(layers) in ({last}, {0, last}) else ():  # as sets and probes ask
            rows = found[layer]
            self._computed_bytes += rows.numel() * rows.element_size()
            if self._computed_bytes <= MAX_STORED_BYTES:
                self.computed[keys[layer]] = rows
            else:  # too much to keep: the next commit computes it too
                self.computed.clear()
        return found


@contextmanager
def reuse_unpacked(
    subject: Subject, benchmark: BenchmarkSet, folder: str | None, *, fresh: Sequence[str] = ()
) -> Iterator[Subject]:
    """Give a subject that reuses what an earlier commit left in `folder`, and leave its own there.

    Args:
        folder: cache of one environment and configuration; None turns reuse off.
        fresh: residues of sequences that every commit must compute itself.
    """
    if folder is None:
        yield subject
        return
    path = _path(folder, benchmark)
    stored = _read(path)
    tokens = _tokens(benchmark)
    sampled_s: dict[tuple[int, ...], float] = {}
    if not stored or not _gives_the_same(subject, tokens, stored, sampled_s):
        stored = {}
    reusing = ReusingSubject(subject, stored, sampled_s)
    yield reusing
    never = {tuple(encode(residues).tolist()) for residues in fresh}
    kept = {key: rows for key, rows in reusing.computed.items() if key[1] not in never}
    together = {**stored, **kept}
    whole = all((subject.num_layers, tuple(one.tolist())) in together for one in tokens)
    if whole and len(together) > len(stored):
        _write(path, together)


def read_ahead(benchmark: BenchmarkSet, folder: str | None) -> None:
    """Read what an earlier commit left, so that `reuse_unpacked` finds it in memory."""
    if folder is not None:
        _read(_path(folder, benchmark))


def _path(folder: str, benchmark: BenchmarkSet) -> Path:
    return Path(folder) / f"{benchmark.digest[:16]}.pt"


def _tokens(benchmark: BenchmarkSet) -> list[torch.Tensor]:
    return [encode(truncate(sequence.residues)[0]) for sequence in benchmark.sequences]


def _gives_the_same(
    subject: Subject,
    tokens: list[torch.Tensor],
    stored: Mapping[_Key, torch.Tensor],
    sampled_s: dict[tuple[int, ...], float],
) -> bool:
    """Whether a sample of lengths, shortest to longest, is bit-identical.

    The longest of all that is stored, a probe, is one of them.

    Args:
        sampled_s: gets the seconds of each pass, by tokens.
    """
    ordered = sorted(tokens, key=lambda one: one.numel())
    steps = len(ordered) if len(ordered) < MIN_SEQUENCES else SAMPLE_SIZE
    sample = [ordered[i * (len(ordered) - 1) // max(steps - 1, 1)] for i in range(steps)]
    longest = max((key[1] for key in stored), key=len)
    if len(longest) > sample[-1].numel():
        sample.append(torch.tensor(longest))
    for one in sample:
        before = stored.get((subject.num_layers, tuple(one.tolist())))
        if before is None:
            return False
        started = time.perf_counter()
        now = embed_unpacked(subject, one.to(subject.device))
        rows = now.cpu()  # waits for a card
        sampled_s[tuple(one.tolist())] = time.perf_counter() - started
        if now.dtype != before.dtype or not torch.equal(rows, before):
            return False
    return True


def _read(path: Path) -> Mapping[_Key, torch.Tensor]:
    try:
        status = path.stat()
    except OSError:
        return {}
    return _read_as(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _read_as(path: Path, *_version: int) -> Mapping[_Key, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        rows, bounds = content["rows"], content["bounds"].tolist()
        keys = [
            (layer, tuple(one))
            for layer, one in zip(content["layers"], content["tokens"], strict=True)
        ]
        return {key: rows[bounds[i] : bounds[i + 1]] for i, key in enumerate(keys)}
    except (OSError, RuntimeError, KeyError, ValueError, EOFError):
        return {}  # not there, or torn: computed anew


def _write(path: Path, kept: dict[_Key, torch.Tensor]) -> None:
    lengths = [0, *(rows.shape[0] for rows in kept.values())]
    content = {
        "layers": [key[0] for key in kept],
        "tokens": [list(key[1]) for key in kept],
        "bounds": torch.tensor(lengths).cumsum(0),
        "rows": torch.cat([rows.cpu() for rows in kept.values()]),
    }
    prefix = f".{path.name}-"
    sweep(path.parent, prefix)
    # A full disk, which torch reports as a RuntimeError, costs the next commit time, nothing else.
    with suppress(OSError, RuntimeError), scratch_folder(path.parent, prefix) as partial:
        torch.save(content, partial)
        partial.replace(path)
