"""Compare a pack's rows with those of each sequence alone, and with the oracle's, in float64.

What is found of a pack leaves its device in one piece.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch

from virnucpro_monitor.data.pooling import mean_pool
from virnucpro_monitor.records import SequenceResult, SequenceStatus
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.worst_rows import KeptRows

_LENGTHS_AHEAD = (6, 48, 200, 600, 1022)

# Of rows that cannot be compared: no value is finite, and residue 0 stands for the worst.
_NO_FIGURES = torch.tensor([torch.nan, torch.nan, 0.0, torch.nan], dtype=torch.float64)


@dataclass(slots=True)
class Notes:
    """What one pass over a benchmark set has seen so far."""

    results: dict[int, SequenceResult] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    unknown_ids: list[str] = field(default_factory=list)
    other_tokens: list[str] = field(default_factory=list)
    packed_not_finite: list[str] = field(default_factory=list)
    unpacked_not_finite: list[str] = field(default_factory=list)
    residue_errors: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    worst: KeptRows = field(default_factory=KeptRows)
    num_tokens: int = 0
    width: int | None = None
    pooled: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    packed_s: float = 0.0
    unpacked_s: float | None = 0.0  # None once a sequence was not timed


@dataclass(frozen=True, slots=True)
class Pair:
    """One sequence of a pack: where it lies, and its rows.

    Attributes:
        span: its slot among the pack's rows.
        residues: [n, D] out of the pack, which may be other residues than its own.
        alone: [T, D] by itself, BOS and EOS included; it may still lie on the CPU.
    """

    index: int
    sequence_id: str
    slot: int
    span: tuple[int, int]
    residues: torch.Tensor
    alone: torch.Tensor


class Comparing:
    """Compares packs, each as it comes or, `beside` the passes, in a thread: never two at once."""

    def __init__(self, oracle: Oracle | None, notes: Notes, *, beside: bool) -> None:
        self._oracle, self._notes = oracle, notes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compare") if beside else None
        self._last: Future[None] | None = None

    def __enter__(self) -> "Comparing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        if kind is None:
            self._wait()

    def add(self, number: int, rows: torch.Tensor, pairs: Sequence["Pair"]) -> None:
        """Compare a pack of these rows [tokens, D].

        Raises:
            Exception: what comparing the pack before it has raised.
        """
        self._wait()  # so that no more than two packs' rows are held
        if self._thread is None:
            self._compare(number, rows, pairs)
        else:
            self._last = self._thread.submit(self._compare, number, rows, pairs)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def _compare(self, number: int, rows: torch.Tensor, pairs: Sequence["Pair"]) -> None:
        notes = self._notes
        pairs = [replace(pair, alone=pair.alone.to(rows.device)) for pair in pairs]
        for pair, found in zip(pairs, _compare(pairs, self._oracle, notes), strict=True):
            result = _placed(found, number, pair.slot, pair.span[0])
            notes.results[pair.index] = _worse(notes.results.get(pair.index), result)
            if notes.results[pair.index] is result:
                notes.worst.offer(result, rows, pair.span, pair.residues, pair.alone)


def compare_ahead(device: torch.device, dtype: torch.dtype, width: int) -> None:
    """Have what comparing takes of a device loaded, by rows of ones."""
    pairs = []
    for length in _LENGTHS_AHEAD:
        rows = torch.ones(length + 2, width, dtype=dtype, device=device)
        pairs.append(Pair(0, "", 0, (0, length + 2), rows[1:-1], rows))
    for pair, _ in zip(pairs, _compare(pairs, None, Notes()), strict=True):
        measures.slots_relative_l2(pair.residues, pair.residues, [len(pair.residues)])


def _compare(
    pairs: Sequence[Pair], oracle: Oracle | None, notes: Notes
) -> Iterator[SequenceResult]:
    """Compare each sequence of a pack with itself alone; a device is waited for once for all."""
    figures: list[torch.Tensor] = []
    vectors: list[torch.Tensor] = []
    for pair in pairs:
        if pair.residues.shape[0] == 0:
            continue
        packed, unpacked = pair.residues.double(), pair.alone[1:-1].double()
        pooled = [mean_pool(packed), mean_pool(unpacked)]
        # A float64 sum of narrower numbers is finite exactly where all of them are.
        finite = torch.stack([torch.isfinite(one).all() for one in pooled]).double()
        alike = packed.shape == unpacked.shape
        agreement = measures.residue_figures(packed, unpacked) if alike else _NO_FIGURES.to(finite)
        figures.append(torch.cat([finite, agreement]))
        row = agreement[2:3].long()
        vectors += pooled + [one.index_select(0, row)[0] for one in (packed, unpacked)]
    numbers = iter(torch.stack(figures).tolist() if figures else ())
    rows = iter(torch.stack(vectors).cpu().reshape(len(figures), 4, -1) if figures else ())
    for pair in pairs:
        if pair.residues.shape[0]:
            yield _result(pair, next(numbers), next(rows), oracle, notes)
        else:
            yield SequenceResult(
                index=pair.index,
                sequence_id=pair.sequence_id,
                length=0,
                status=SequenceStatus.LOST,
            )


def _result(
    pair: Pair,
    figures: Sequence[float],
    vectors: torch.Tensor,
    oracle: Oracle | None,
    notes: Notes,
) -> SequenceResult:
    """What a sequence's figures say.

    Args:
        figures: whether packed and unpacked are finite, and `residue_figures`.
        vectors: [4, D] float64 on the CPU: both sides' pooled rows and their worst residue's.
    """
    index, sequence_id = pair.index, pair.sequence_id
    packed_ok, unpacked_ok = (bool(one) for one in figures[:2])
    if not packed_ok:
        notes.packed_not_finite.append(sequence_id)
    if not unpacked_ok:
        notes.unpacked_not_finite.append(sequence_id)
    values: dict[str, float | int | None] = {}
    pooled_packed, pooled_unpacked, worst_packed, worst_unpacked = vectors
    notes.pooled[index] = (pooled_packed.float(), pooled_unpacked.float())
    if oracle is not None:
        reference = oracle.pooled_of(index)
        for side, pooled, ok in (
            ("packed", pooled_packed, packed_ok),
            ("unpacked", pooled_unpacked, unpacked_ok),
        ):
            if ok:
                values[f"{side}_similarity"] = measures.cosine(pooled, reference)
                values[f"{side}_relative_l2"] = measures.relative_l2(pooled, reference)
    if packed_ok and unpacked_ok:
        values["similarity"] = measures.cosine(pooled_packed, pooled_unpacked)
        values["relative_l2"] = measures.relative_l2(pooled_packed, pooled_unpacked)
        values["gain"] = measures.gain(pooled_packed, pooled_unpacked)
        agreement = measures.agreement_of(figures[2:])
        if agreement is not None:
            values["worst_residue_similarity"] = agreement.worst
            values["p01_residue_similarity"] = agreement.p01
            values["worst_residue"] = agreement.worst_residue
            values["max_abs_difference"] = agreement.max_abs
            if oracle is not None and oracle.residues_path is not None:
                exact = oracle.residue_of(index, agreement.worst_residue)
                notes.residue_errors[sequence_id] = (
                    measures.relative_l2(worst_packed, exact),
                    measures.relative_l2(worst_unpacked, exact),
                )
    finite = packed_ok and unpacked_ok and values["similarity"] is not None
    status = SequenceStatus.OK if finite else SequenceStatus.NOT_FINITE
    return SequenceResult(
        index=index,
        sequence_id=sequence_id,
        length=pair.residues.shape[0],
        status=status,
        **values,  # type: ignore[arg-type]
    )


def _placed(result: SequenceResult, pack: int, slot: int, offset: int) -> SequenceResult:
    return replace(result, pack=pack, slot=slot, offset=offset)


def _worse(first: SequenceResult | None, second: SequenceResult) -> SequenceResult:
    """Of two copies of one sequence the one further from unpacked; not finite is the furthest."""
    if first is None:
        return second
    return max(
        first, second, key=lambda s: float("inf") if s.relative_l2 is None else s.relative_l2
    )
