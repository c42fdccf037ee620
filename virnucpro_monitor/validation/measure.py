"""Measure a subject on a benchmark set: every sequence alone, and all of them packed.

It streams: one pack at a time, and of it one sequence at a time in float64, so that memory does
not grow with the benchmark set. What is found of a pack leaves its device in one piece. Where the
passes run on a card by another process, one pack is compared while that embeds the next.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.records import (
    BenchmarkSet,
    NotFinite,
    PacksDocument,
    PooledEmbeddings,
    SequenceResult,
    SequenceStatus,
)
from virnucpro_monitor.validation.comparing import Comparing, Notes, Pair
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.poison import poisoned
from virnucpro_monitor.validation.probe_packs import own_pack
from virnucpro_monitor.validation.subject import (
    PackedBatch,
    Subject,
    embed_packed,
    embed_unpacked,
    foresee_packs,
)
from virnucpro_monitor.validation.tokens import encode
from virnucpro_monitor.validation.worst_rows import WorstRows


@dataclass(slots=True)
class Measurement:
    """What one pass over a benchmark set found.

    Attributes:
        sequences: in the benchmark's order.
        packs: what the pass found beside the sequences' measures.
        batches: the packs themselves, for the trace.
        pooled: of each side.
        worst: the sequences that differ most, the worst first.
    """

    sequences: tuple[SequenceResult, ...]
    packs: PacksDocument
    batches: list[PackedBatch]
    pooled: PooledEmbeddings
    worst: tuple[WorstRows, ...]


def measure(
    subject: Subject,
    benchmark: BenchmarkSet,
    oracle: Oracle | None,
    on_progress: Callable[[int, int], None] | None = None,
    on_pack: Callable[[float], None] = lambda _: None,
    on_embedded: Callable[[], None] = lambda: None,
) -> Measurement:
    """Embed the benchmark both ways and compare; see `SequenceResult` for the measures.

    Args:
        on_pack: called after each pack with the share of the set's tokens that is left.
        on_embedded: called once all is embedded, while the last pack may still be compared.

    Raises:
        TargetError: a pack or an embedding does not have the shape that the interface promises.
        BenchmarkError: a sequence is empty or has a character the alphabet lacks.
    """
    texts = [truncate(sequence.residues)[0] for sequence in benchmark.sequences]
    indices = {sequence.id: index for index, sequence in enumerate(benchmark.sequences)}
    expected = [encode(text) for text in texts]
    pairs = [(s.id, text) for s, text in zip(benchmark.sequences, texts, strict=True)]
    own_tokens = {name: expected[index] for name, index in indices.items()}
    num_tokens = sum(map(len, expected))
    notes, batches, done = Notes(), list[PackedBatch](), set[int]()
    with Comparing(oracle, notes, beside=_is_beside(subject)) as comparing:
        packs: Iterable[PackedBatch] = subject.pack(pairs)
        ahead = _is_beside(subject) and _are_reused(subject, expected)
        if ahead:
            packs = list(packs)
            foresee_packs(subject, packs, [subject.num_layers], "nan")
        seen_s = 0.0
        for number, batch in enumerate(packs):
            of_others = _other_tokens(batch, own_tokens)
            notes.other_tokens += of_others
            with poisoned(subject.device):
                # A pass that was asked ahead begins as soon as the one before it has ended.
                started = seen_s if ahead and batches else _now_s(subject)
                batch, rows = _embed(subject, batch, dict(pairs) if of_others else {})
                seen_s = _now_s(subject)
                notes.packed_s += seen_s - started
            batches.append(batch)
            notes.num_tokens += int(batch.input_ids.numel())
            bounds = check_batch(batch, rows)
            notes.width = _check_width(rows, oracle)
            pairs_of_pack: list[Pair] = []
            for slot, sequence_id in enumerate(batch.sequence_ids):
                notes.seen[sequence_id] += 1
                if sequence_id not in indices:
                    notes.unknown_ids.append(sequence_id)
                    continue
                index = indices[sequence_id]
                start, end = bounds[slot], bounds[slot + 1]
                alone, spent_s = _embed_alone(subject, expected[index])
                if notes.unpacked_s is not None:
                    notes.unpacked_s = None if spent_s is None else notes.unpacked_s + spent_s
                if alone.shape[-1] != rows.shape[1]:
                    raise TargetError(
                        f"The target gives {rows.shape[1]} channels packed and {alone.shape[-1]} "
                        f"alone ({sequence_id}): both must be the same model's last layer."
                    )
                residues = cut_residues(rows, start, end)
                pair = Pair(index, sequence_id, slot, (start, end), residues, alone)
                pairs_of_pack.append(pair)
                done.add(index)
                if on_progress:
                    on_progress(len(done), len(texts))
            comparing.add(number, rows, pairs_of_pack)
            on_pack(max(0.0, 1 - notes.num_tokens / num_tokens))
        on_embedded()
    sequences = tuple(
        _finish(notes, benchmark, index, len(text)) for index, text in enumerate(texts)
    )
    document = _document(notes, len(batches), subject.num_layers)
    return Measurement(
        sequences,
        document,
        batches,
        _gathered(notes, len(texts)),
        notes.worst.sorted(sequences),
    )


def _are_reused(subject: Subject, expected: Sequence[torch.Tensor]) -> bool:
    """Whether the rows of all sequences alone are known, so that only packs are embedded."""
    reused_rows = getattr(subject, "reused_rows", None)
    return reused_rows is not None and all(reused_rows(one) is not None for one in expected)


def _is_beside(subject: Subject) -> bool:
    """Whether passes run in another process and on a card: this one is idle meanwhile."""
    return subject.device.type == "cuda" and hasattr(subject, "embed_packed_span")


def _other_tokens(batch: PackedBatch, own_tokens: Mapping[str, torch.Tensor]) -> list[str]:
    """Ids under which a pack holds other tokens than the sequence's own."""
    tokens = batch.input_ids.cpu()
    bounds = [int(bound) for bound in batch.cu_seqlens.tolist()]
    return [
        name
        for name, (start, end) in zip(batch.sequence_ids, itertools.pairwise(bounds), strict=False)
        if name in own_tokens and not torch.equal(tokens[start:end], own_tokens[name])
    ]


def _embed(
    subject: Subject, batch: PackedBatch, texts: Mapping[str, str]
) -> tuple[PackedBatch, torch.Tensor]:
    """A pack and its rows [tokens, D].

    Args:
        texts: by id, where the pack's tokens are wrong already: whatever they break, a pack of our
            own making takes its place, and the model is judged by that.
    """
    try:
        return batch, embed_packed(subject, batch)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        if not any(name in texts for name in batch.sequence_ids):
            raise
        own = own_pack(batch, texts)
        return own, embed_packed(subject, own)


def _gathered(notes: Notes, num_sequences: int) -> PooledEmbeddings:
    """Both sides' pooled embeddings in the benchmark's order, NaN where a sequence was lost."""
    sides = torch.full((2, num_sequences, notes.width or 0), torch.nan)
    for index, pair in notes.pooled.items():
        for side, pooled in enumerate(pair):
            sides[side, index] = pooled.float()
    return PooledEmbeddings(packed=sides[0].numpy(), unpacked=sides[1].numpy())


def _check_width(rows: torch.Tensor, oracle: Oracle | None) -> int:
    """The number of channels of [tokens, D], which must be the oracle's."""
    width = int(rows.shape[1])
    if oracle is not None and width != oracle.pooled.shape[1]:
        raise TargetError(
            f"The target gives {width} channels, and {oracle.model_name or oracle.kind} has "
            f"{oracle.pooled.shape[1]}: give the hidden states of that model's last layer, or, "
            f"where it is another model, name it with oracle=none."
        )
    return width


def check_batch(batch: PackedBatch, rows: torch.Tensor) -> list[int]:
    """Check a pack and its embedding [tokens, D]; returns `cu_seqlens` as a list.

    Raises:
        TargetError: shapes that do not fit together.
    """
    bounds = [int(bound) for bound in batch.cu_seqlens.tolist()]
    tokens = int(batch.input_ids.numel())
    if len(bounds) != len(batch.sequence_ids) + 1:
        raise TargetError(
            f"The target's collator gave {len(batch.sequence_ids)} ids but {len(bounds) - 1} "
            "boundaries: `cu_seqlens` must have one entry more than `sequence_ids`."
        )
    if bounds[0] != 0 or any(b < a for a, b in itertools.pairwise(bounds)):
        raise TargetError("The target's `cu_seqlens` does not rise from 0: correct its collator.")
    if rows.ndim != 2 or rows.shape[0] != tokens:
        raise TargetError(
            f"The target's forward_packed gave shape {tuple(rows.shape)} for {tokens} tokens: "
            "it must be [tokens, D]."
        )
    return bounds


def cut_residues(rows: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """One sequence's residues out of a pack, without BOS and EOS: [tokens, D] -> [len, D]."""
    return rows[start + 1 : end - 1]


def _finish(notes: Notes, benchmark: BenchmarkSet, index: int, length: int) -> SequenceResult:
    """The sequence's result under its own length.

    A doubled one has no similarity, since nobody can say which copy a user would take, but keeps
    its worst copy's other measures, so that each gate still judges what it is about.
    """
    sequence = benchmark.sequences[index]
    truncated = len(sequence.residues) > length
    result = notes.results.get(index)
    if result is not None and notes.seen[sequence.id] == 1:
        return replace(result, length=length, truncated=truncated)
    if result is not None:
        return replace(
            result,
            length=length,
            truncated=truncated,
            status=SequenceStatus.DOUBLED,
            similarity=None,
        )
    return SequenceResult(
        index=index,
        sequence_id=sequence.id,
        length=length,
        truncated=truncated,
        status=SequenceStatus.LOST,
    )


def _document(notes: Notes, num_packs: int, num_layers: int) -> PacksDocument:
    return PacksDocument(
        num_packs=num_packs,
        num_tokens=notes.num_tokens,
        num_layers=num_layers,
        width=notes.width,
        packed_s=notes.packed_s,
        unpacked_s=notes.unpacked_s,
        unknown_ids=tuple(notes.unknown_ids),
        other_tokens=tuple(notes.other_tokens),
        not_finite=NotFinite(
            packed=tuple(notes.packed_not_finite), unpacked=tuple(notes.unpacked_not_finite)
        ),
        residue_errors=notes.residue_errors,
    )


def _embed_alone(subject: Subject, tokens: torch.Tensor) -> tuple[torch.Tensor, float | None]:
    """One sequence alone, and the seconds of its pass.

    A subject that remembers what an earlier commit gave has a method `reused_rows` for it: these
    rows on the CPU, and how long this commit took for them where it was asked again.
    """
    reused_rows = getattr(subject, "reused_rows", None)
    reused: tuple[torch.Tensor, float | None] | None = reused_rows and reused_rows(tokens)
    if reused is not None:
        return reused
    started = _now_s(subject)
    rows = embed_unpacked(subject, tokens.to(subject.device))
    return rows, _now_s(subject) - started


def _now_s(subject: Subject) -> float:
    """A clock that has waited for the GPU, so that each side is charged with its own work.

    Rows of another process have waited for it there; here it compares.
    """
    if subject.device.type == "cuda" and not hasattr(subject, "embed_packed_span"):
        torch.cuda.synchronize(subject.device)
    return time.perf_counter()
