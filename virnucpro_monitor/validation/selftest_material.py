"""What the self-test asks with: a few sequences, small parts of them, and shorter probes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from virnucpro_monitor.data.benchmarks import benchmark_digest, load_benchmark
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence, Protocol, content_digest
from virnucpro_monitor.validation.oracle import Oracle

SELFTEST_TOKEN_BUDGET = 512
SMALL_TOKEN_BUDGET = 160
"""So small that the usual sequences take two packs."""

USUAL_LENGTHS = (22, 40, 63, 90)
# Short and long, at least two packs, one long enough for rounded rotary angles to show.
WHOLE_LENGTHS = (22, 40, 63, 90, 129, 200, 420)
# Tile edges, one beyond a window of 512, and one with every letter that is no standard residue.
_OTHER_LENGTHS = (62, 600)
_LETTERS = "MKTAUIAKQZQISFVKSOFSRQBEERLGLUEVQAPILSRXG"
_SHORT_PROBE = 64
_SHORT_PROBES = 4


def selftest_benchmark() -> BenchmarkSet:
    """Sequences of the `proteome` set, cut to the lengths that matter, and one of rare letters."""
    remaining = sorted(load_benchmark("proteome").sequences, key=lambda s: (len(s.residues), s.id))
    chosen = [ProteinSequence(id="letters", residues=_LETTERS)]
    for length in sorted((*WHOLE_LENGTHS, *_OTHER_LENGTHS)):
        source = next(s for s in remaining if len(s.residues) >= length)
        remaining.remove(source)
        chosen.append(ProteinSequence(id=source.id, residues=source.residues[:length]))
    return BenchmarkSet(
        name="selftest",
        version=2,
        digest=benchmark_digest(chosen),
        description="Ten proteome-like sequences for the self-test.",
        sequences=tuple(chosen),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartOfOracle(Oracle):
    """Some of an oracle's sequences."""

    whole: Oracle
    indices: tuple[int, ...]

    def residues_of(self, index: int) -> torch.Tensor:
        return self.whole.residues_of(self.indices[index])


@dataclass(frozen=True, slots=True)
class Material:
    """A benchmark set and its oracle, to be asked for parts."""

    benchmark: BenchmarkSet
    oracle: Oracle

    def part(self, lengths: Sequence[int]) -> tuple[BenchmarkSet, Oracle]:
        """The sequences of these lengths; all where the set lacks one of them."""
        by_length = {len(s.residues): n for n, s in enumerate(self.benchmark.sequences)}
        if not by_length.keys() >= set(lengths):
            return self.benchmark, self.oracle
        indices = tuple(by_length[length] for length in lengths)
        sequences = tuple(self.benchmark.sequences[index] for index in indices)
        digest = benchmark_digest(sequences)
        part = BenchmarkSet(name="selftest", version=2, digest=digest, sequences=sequences)
        kept = {field.name: getattr(self.oracle, field.name) for field in fields(Oracle)}
        kept |= {"pooled": self.oracle.pooled[list(indices)], "benchmark_digest": digest}
        return part, PartOfOracle(**kept, whole=self.oracle, indices=indices)


def with_short_probes(protocol: Protocol) -> Protocol:
    """The same thresholds and limits, asked with a few short probe sequences."""
    content = copy.deepcopy(dict(protocol.content))
    texts = [text for text in content["probes"]["sequences"] if len(text) <= _SHORT_PROBE]
    content["probes"]["sequences"] = texts[-_SHORT_PROBES:]
    return Protocol(version=protocol.version, digest=content_digest(content), content=content)
