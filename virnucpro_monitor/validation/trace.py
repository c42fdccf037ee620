"""Layer trace: at which layer a side departs from FP32, what that looks like, and whom it strikes.

For the worst sequences of a failed run, the error of every layer of either side is measured against
the oracle model. Outside the model is asked first; a layer is named only where its error exceeds
what healthy runs have at that depth and accounts for the error of the result. Where the sequences
are right and only a probe failed, the probe's own sequences are traced.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial

import torch

from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.errors import MonitorError, TargetError
from virnucpro_monitor.records import GATES, BenchmarkSet, Json
from virnucpro_monitor.validation.departure import (
    Departure,
    Errors,
    errors_of,
    find_departures,
    is_within_noise,
    pooled_error,
)
from virnucpro_monitor.validation.exact_model import oracle_model
from virnucpro_monitor.validation.grouping import Group, find_group
from virnucpro_monitor.validation.layer_noise import layer_limits
from virnucpro_monitor.validation.leak_trace import trace_leak
from virnucpro_monitor.validation.oracle import Oracle, full_float32
from virnucpro_monitor.validation.outside import OUTSIDE, name_slot_fault
from virnucpro_monitor.validation.pack_slot import shorten, surroundings, tokens_of
from virnucpro_monitor.validation.perturb import bounds_of, mask_pack
from virnucpro_monitor.validation.protocol import limits_key
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.signatures import (
    NOT_FINITE,
    ROWS_OF_OTHERS,
    UNWRITTEN,
    describe,
)
from virnucpro_monitor.validation.subject import (
    Layers,
    PackedBatch,
    Subject,
    dtype_name,
    embed_packed,
    embed_slot_layers,
    embed_unpacked,
)
from virnucpro_monitor.validation.tokens import encode
from virnucpro_monitor.validation.unsteady import name_unsteady
from virnucpro_monitor.validation.worst_rows import WorstRows

# Layers of a pack that are held at one time: 37 layers of 3B width would take gigabytes.
_PART_BYTES = 128 * 1024**2
# The result is off by this many times what the last layer is: then the layers are not to blame.
_OUTSIDE_FACTOR = 10.0
_MASKED_SHARES = (0.15, 0.5)
# Gates that probe sequences decide; where all others hold, these are what to trace.
PROBE_GATES = frozenset(gate.name for gate in GATES if not gate.from_sequences)
_LEAK_GATES = frozenset({"leak"})
# Rows that are another sequence's are the same ones, but for what half precision rounds.
_ROW_IS_THE_SAME, _NEARLY_ALL = 0.05, 0.9


def trace(
    subject: Subject,
    worst: Sequence[WorstRows],
    batches: Sequence[PackedBatch],
    oracle: Oracle | None,
    *,
    benchmark: BenchmarkSet | None = None,
    failing: Collection[str] = (),
    probe_batches: Callable[[], Sequence[PackedBatch]] = tuple,
) -> dict[str, Json]:
    """Trace what failed: {"finding", "signature", "layer", "part", "group", "sequences", …}.

    A target that does not give its hidden layers gets {"not_traced": why}. The document is empty
    where there is nothing to trace.

    Args:
        worst: the sequences that differ most, the worst first.
        benchmark: the sequences that were measured, whose tokens the packs should hold.
        failing: the gates that failed; where only probes did, their packs are traced.
        probe_batches: gives the packs of the probes.
    """
    if "unwritten" in failing:  # what else the passes show is what lay in memory
        return {"finding": UNWRITTEN.text, "signature": UNWRITTEN.name, "sequences": []}
    tracer = _Tracer(subject, oracle, benchmark)
    by_probe = bool(failing) and PROBE_GATES.issuperset(failing)
    try:
        with full_float32(), torch.inference_mode():
            if by_probe:
                return tracer.trace_probes(probe_batches(), failing)
            return tracer.trace_sequences(worst, batches, failing)
    except TargetError as error:
        return {"not_traced": f"The target does not give its hidden layers ({error})."}
    except (MonitorError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the target's own code, asked for layers it need not have
        return {"not_traced": f"The target does not give its hidden layers ({error!r})."}


class _Tracer:
    """What every sequence's trace shares."""

    def __init__(
        self, subject: Subject, oracle: Oracle | None, benchmark: BenchmarkSet | None
    ) -> None:
        self.subject, self.benchmark = subject, benchmark
        self.exact = oracle_model(oracle, subject.device)
        self.key = limits_key(dtype_name(subject.dtype), subject.device.type)
        self.layers = list(range(subject.num_layers + 1))

    def trace_sequences(
        self,
        chosen: Sequence[WorstRows],
        batches: Sequence[PackedBatch],
        failing: Collection[str],
    ) -> dict[str, Json]:
        if not chosen:
            return {}
        longest = tuple(sorted({batch.max_seqlen for batch in batches}))
        worst = batches[chosen[0].result.pack or 0]
        unsteady = name_unsteady(self.subject, self._right, worst, chosen[0])
        if unsteady is not None:
            return {"finding": unsteady.text, "signature": unsteady.name, "sequences": []}
        traced = []
        for seen in chosen:
            result = seen.result
            batch = batches[result.pack or 0]
            wrong = result.packed_relative_l2 if self.exact is not None else result.relative_l2
            expected = None
            if self.benchmark is not None:
                residues = truncate(self.benchmark.sequences[result.index].residues)[0]
                expected = encode(residues)
            traced.append(self._trace_one(batch, result.slot or 0, expected, wrong, longest, seen))
            if traced[-1]["signature"]:
                break
        told = next((one for one in traced if one["signature"]), traced[0])
        of_packed = told["signature"] is not None and told["side"] != "unpacked"
        if not of_packed and _LEAK_GATES & set(failing):
            leak = trace_leak(self.subject, worst)
            if leak is not None:
                told["finding"] = "; ".join(filter(None, [told["finding"], leak.signature.text]))
                told["signature"] = leak.signature.name
        group = None
        if told["signature"] != OUTSIDE.name and told["side"] == "packed":
            result = chosen[traced.index(told)].result
            error = told["packed"][-1] if self.exact is None else result.packed_relative_l2
            group = self._group(batches[result.pack or 0], result.slot or 0, error)
        return self._document(told, traced, group)

    def trace_probes(
        self, batches: Sequence[PackedBatch], failing: Collection[str]
    ) -> dict[str, Json]:
        """Trace the probe sequence that is most wrong, plain or with `<mask>` tokens."""
        if not batches:
            return {}
        for batch in batches:
            unsteady = None
            if "repeat" in failing:
                unsteady = name_unsteady(self.subject, self._right, batch)
            if unsteady is not None:
                return {"finding": unsteady.text, "signature": unsteady.name, "sequences": []}
        if _LEAK_GATES & set(failing):
            leaks = [leak for batch in batches if (leak := trace_leak(self.subject, batch))]
            if leaks:
                leak = max(leaks, key=lambda one: one.size)
                return {
                    "finding": f"{leak.signature.text} (most: {leak.sequence_id})",
                    "signature": leak.signature.name,
                    "layer": leak.layer,
                    "part": None,
                    "sequences": [],
                }
        tried = list(batches)
        if not {"probes"} >= set(failing):  # else they hold no masks, and are wrong as they are
            tried += [mask_pack(batch, _MASKED_SHARES)[0] for batch in batches]
        both = "probes" in failing  # either side may be the one that is off
        errors = {
            (number, slot): error
            for number, batch in enumerate(tried)
            for slot, error in enumerate(self._pooled_errors(batch, both=both))
        }
        number, slot = max(errors, key=lambda at: max(map(_or_infinite, errors[at])))
        packed, _ = errors[number, slot]
        if _is_noise(errors.values(), layer_limits(self.key, self.subject.num_layers)[-1]):
            outer = self._name_outer_rows(batches)
            if outer is not None:
                return {"finding": outer, "signature": NOT_FINITE.name, "sequences": []}
        traced = [self._trace_one(tried[number], slot, None, packed, ())]
        group = None
        if traced[0]["side"] == "packed":
            group = self._group(tried[number], slot, packed)
        return self._document(traced[0], traced, group)

    def _name_outer_rows(self, batches: Sequence[PackedBatch]) -> str | None:
        """Which rows are not finite though every residue's is; None where all are."""
        for batch in batches:
            finite = torch.isfinite(embed_packed(self.subject, batch)).all(-1).cpu()
            starts = [bool(finite[start]) for start in bounds_of(batch)[:-1]]
            ends = [bool(finite[end - 1]) for end in bounds_of(batch)[1:]]
            if not all(starts + ends):
                both = not all(starts) and not all(ends)
                which = "<cls> and <eos>" if both else "<eos>" if all(starts) else "<cls>"
                return f"not finite after the last layer in {which} rows, in no residue's"
        return None

    def _document(
        self, told: dict[str, Json], traced: list[dict[str, Json]], group: Group | None
    ) -> dict[str, Json]:
        finding = told["finding"]
        if finding and group:
            finding = group.told_in(finding)
        return {
            "finding": finding,
            "signature": told["signature"],
            "layer": told["departs_at"],
            "part": told["part"],
            "reference": "oracle" if self.exact is not None else "unpacked",
            "group": None if group is None else {"name": group.name, "text": group.text},
            "noise": layer_limits(self.key, self.subject.num_layers),
            "sequences": traced,
        }

    def _right(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        """A sequence alone, by the oracle model, or unpacked without one."""
        if self.exact is None:
            return self.subject.embed_unpacked_layers(tokens.to(self.subject.device), layers)
        return self.exact.layers(tokens, layers)

    def _pooled_errors(
        self, batch: PackedBatch, *, both: bool
    ) -> list[tuple[float | None, float | None]]:
        """By slot, of the packed side and, with `both`, of the unpacked one; else 0 for it."""
        rows, last = embed_packed(self.subject, batch).cpu(), self.layers[-1]
        known: dict[tuple[int, ...], tuple[torch.Tensor, float | None]] = {}
        errors = []
        for start, end in itertools.pairwise(bounds_of(batch)):
            tokens = batch.input_ids[start:end]
            key = tuple(tokens.tolist())
            if key not in known:  # a pack of hundreds holds the same few
                right = self._right(tokens, [last])[last].cpu()
                alone: float | None = 0.0
                if both and self.exact is not None:
                    own = embed_unpacked(self.subject, tokens.to(self.subject.device)).cpu()
                    alone = pooled_error(own, right)
                known[key] = right, alone
            right, alone = known[key]
            errors.append((pooled_error(rows[start:end], right), alone))
        return errors

    def _group(self, batch: PackedBatch, slot: int, error: float | None) -> Group | None:
        last = self.layers[-1]
        return find_group(
            self.subject,
            tokens_of(batch, slot),
            lambda tokens: self._right(tokens, [last])[last],
            error,
            self.key,
            num_tokens=int(batch.input_ids.numel()),
            num_sequences=len(batch.sequence_ids),
        )

    def _trace_one(
        self,
        batch: PackedBatch,
        slot: int,
        expected: torch.Tensor | None,
        wrong: float | None,
        other_lengths: tuple[int, ...],
        seen: WorstRows | None = None,
    ) -> dict[str, Json]:
        """Trace one sequence of a pack.

        Args:
            expected: its own tokens [T]; None where the pack is known to hold them.
            wrong: the relative L2 of the result that is to be explained.
            seen: its rows, where they are known.
        """
        subject, last = self.subject, self.layers[-1]
        sequence_id = batch.sequence_ids[slot]
        named = None if expected is None else name_slot_fault(expected, batch, slot)
        packed_errors: Errors = []
        unpacked_errors: Errors = []
        between: Errors = []
        pooled: float | None = None
        right = self._right(tokens_of(batch, slot), [last])[last] if seen is None else seen.packed
        width = right.shape[-1]

        def parts(one: PackedBatch) -> list[Sequence[int]]:
            layer_bytes = one.input_ids.numel() * width * subject.dtype.itemsize
            return list(_in_parts(self.layers, layer_bytes))

        batch, slot, known = shorten(
            subject, batch, slot, seen, asked=lambda short: parts(short)[-1]
        )
        sides: tuple[Layers, Layers, Layers] = {}, {}, {}
        for some in parts(batch):
            sides = packed, unpacked, exact = self._embed_three_ways(batch, slot, some, known)
            packed_errors += errors_of(packed, exact, some)
            between += errors_of(packed, unpacked, some)
            if self.exact is not None:
                unpacked_errors += errors_of(unpacked, exact, some)
            if some[-1] == last:
                pooled = pooled_error(packed[last], exact[last])
        found: list[tuple[str, Signature | None, str | None, Departure | None]] = []
        if named is not None:
            found.append((named.text, named, None, None))
        elif self._lies_outside(packed_errors, pooled, wrong):
            found.append((f"every layer is right, so {OUTSIDE.text}", OUTSIDE, None, None))
        else:
            for departure in find_departures(packed_errors, unpacked_errors, self.key):
                told = self._describe(batch, slot, departure, other_lengths, sides)
                if told[1] is None and self._holds_rows_of_others(batch, slot, departure):
                    text = f"after the last layer: {ROWS_OF_OTHERS.text}"
                    told = (text, ROWS_OF_OTHERS, "output")
                found.append((*told, departure))
        first = next((one for one in found if one[1] is not None), found[0] if found else None)
        departs = None if first is None else first[3]
        return {
            "sequence_id": sequence_id,
            "departs_at": None if departs is None else departs.layer,
            "side": "packed" if departs is None else departs.side,
            "part": None if first is None else first[2],
            "finding": "; ".join(one[0] for one in found) or None,
            "signature": first[1].name if first is not None and first[1] is not None else None,
            "packed": packed_errors,
            "unpacked": unpacked_errors,
            "packed_unpacked": between,
        }

    def _holds_rows_of_others(self, batch: PackedBatch, slot: int, departure: Departure) -> bool:
        """Whether nearly all of a sequence's rows are right ones of others, each another one."""
        last, bounds = self.layers[-1], bounds_of(batch)
        if departure.side != "packed" or departure.layer != last:
            return False
        span = bounds[slot], bounds[slot + 1]
        seen = embed_slot_layers(self.subject, batch, span, [last])[last].cpu().double()
        own = tokens_of(batch, slot)
        right = {
            tuple(tokens.tolist()): self._right(tokens, [last])[last].cpu().double()
            for tokens in map(partial(tokens_of, batch), range(len(bounds) - 1))
            if not torch.equal(tokens, own)
        }
        if not right:
            return False
        nearest = torch.cdist(seen, torch.cat(list(right.values()))).min(-1)
        near = nearest.values <= _ROW_IS_THE_SAME * seen.norm(dim=-1)
        return len(set(nearest.indices[near].tolist())) >= _NEARLY_ALL * len(seen)

    def _embed_three_ways(
        self, batch: PackedBatch, slot: int, layers: Sequence[int], known: Layers | None = None
    ) -> tuple[Layers, Layers, Layers]:
        """One sequence packed, unpacked and by the oracle model (without one: unpacked again).

        Args:
            known: its rows in this pack, of layers that were asked before.
        """
        subject, bounds = self.subject, bounds_of(batch)
        tokens = tokens_of(batch, slot).to(subject.device)
        if known is not None and known.keys() >= set(layers):
            packed: Layers = {layer: known[layer] for layer in layers}
        else:
            packed = embed_slot_layers(subject, batch, (bounds[slot], bounds[slot + 1]), layers)
        unpacked = subject.embed_unpacked_layers(tokens, layers)
        if self.exact is None:
            return packed, unpacked, unpacked
        exact = self.exact.layers(tokens, layers)
        return packed, unpacked, {layer: rows.to(subject.device) for layer, rows in exact.items()}

    def _lies_outside(self, packed: Errors, pooled: float | None, wrong: float | None) -> bool:
        """Whether the layers are right although the sequence's pooled embedding is not."""
        if pooled is None or wrong is None:
            return False
        if wrong > _OUTSIDE_FACTOR * pooled and is_within_noise(packed, self.key):
            return wrong > layer_limits(self.key, self.subject.num_layers)[-1]
        return False

    def _describe(
        self,
        batch: PackedBatch,
        slot: int,
        departure: Departure,
        other_lengths: tuple[int, ...],
        sides: tuple[Layers, Layers, Layers],
    ) -> tuple[str, Signature | None, str | None]:
        """Describe a departure.

        Args:
            sides: rows of some layers as `_embed_three_ways` gave them, used where they suffice.
        """
        some = [layer for layer in (departure.layer - 1, departure.layer) if layer >= 0]
        if not sides[0].keys() >= set(some):
            sides = self._embed_three_ways(batch, slot, some)
        packed, unpacked, exact = ({layer: rows[layer].cpu() for layer in some} for rows in sides)
        return describe(
            departure.layer,
            departure.side,
            unpacked if departure.side == "unpacked" else packed,
            exact,
            None if self.exact is None else self.exact.model,
            tokens_of(batch, slot),
            surroundings(batch, slot, other_lengths),
            self.layers[-1],
        )


def _is_noise(errors: Iterable[tuple[float | None, float | None]], limit: float) -> bool:
    return all(error is not None and error <= limit for both in errors for error in both)


def _or_infinite(error: float | None) -> float:
    return float("inf") if error is None else error


def _in_parts(layers: Sequence[int], layer_bytes: int) -> Iterator[Sequence[int]]:
    """The layers in parts whose rows of one pack take about `_PART_BYTES`."""
    count = max(1, _PART_BYTES // max(1, layer_bytes))
    for first in range(0, len(layers), count):
        yield layers[first : first + count]
