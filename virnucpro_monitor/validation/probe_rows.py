"""What probes share: passes, differences, and the worst of many values."""

from dataclasses import dataclass

import torch

from virnucpro_monitor.records import ProbeDocument
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.measure import check_batch
from virnucpro_monitor.validation.poison import poisoned, zeroed
from virnucpro_monitor.validation.subject import (
    PackedBatch,
    Subject,
    embed_packed,
    embed_unpacked,
)


class Worst:
    """The largest value seen and where; a value that is not finite beats every other."""

    def __init__(self) -> None:
        self._value, self._broken, self.where, self._any = 0.0, False, "", False

    def add(self, value: float | None, where: str) -> bool:
        """Returns whether this is the worst so far."""
        if self._broken:
            return False
        if value is None:
            self._broken, self.where = True, where
            return True
        worst = not self._any or value > self._value
        self._any = True
        if worst:
            self._value, self.where = value, where
        return worst

    @property
    def value(self) -> float | None:
        return None if self._broken else self._value

    @property
    def text(self) -> str:
        if self._broken:
            return "a value that is not finite"
        value = self._value
        return f"{value:.2g}" if value == 0 or 1e-3 <= value < 1e4 else f"{value:.1e}"

    @property
    def place(self) -> str:
        return f" (most: {self.where})" if self.where and self.value != 0 else ""


@dataclass(slots=True)
class Probed:
    """One pack and its rows.

    Attributes:
        last: [tokens, D], the last layer.
        first: [tokens, D], layer 0; None where the target does not give it, or nobody asked.
        why: then the reason.
    """

    pack: PackedBatch
    last: torch.Tensor
    first: torch.Tensor | None = None
    why: str = ""


class Alone:
    """Unpacked rows of the probes, each computed once in a run."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._last: dict[tuple[int, ...], torch.Tensor] = {}
        self._first: dict[tuple[int, ...], torch.Tensor] = {}
        self.why = ""

    def last(self, tokens: torch.Tensor, *, first_too: bool = False) -> torch.Tensor:
        """The last layer, [T, D]; `first_too` where layer 0 will be asked for as well."""
        key = tuple(tokens.tolist())
        if key not in self._last:
            self._compute(key, tokens.to(self._subject.device), first_too)
        return self._last[key]

    def first(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """Layer 0, [T, D] on the CPU; None where the target does not give it: `why` says so."""
        key = tuple(tokens.tolist())
        if key not in self._first and not self.why:
            self._compute(key, tokens.to(self._subject.device), True)
        return self._first.get(key)

    def _compute(self, key: tuple[int, ...], tokens: torch.Tensor, first_too: bool) -> None:
        last = self._subject.num_layers
        if first_too and not self.why:
            try:
                found = self._subject.embed_unpacked_layers(tokens, [0, last])
                self._first[key], self._last[key] = found[0].cpu(), found[last]
                return
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the target's own code: it has no layer 0
                self.why = f"The target does not give its embedding layer ({error!r})."
        self._last[key] = embed_unpacked(self._subject, tokens)


def not_judged(reason: str, unit: str = "relative L2") -> ProbeDocument:
    return ProbeDocument(unit=unit, not_judged=reason)


def worst_side(packed: float | None, unpacked: float | None) -> float | None:
    return None if packed is None or unpacked is None else max(packed, unpacked)


def embed(subject: Subject, pack: PackedBatch) -> torch.Tensor:
    """The last layer of a pack, [tokens, D], checked."""
    rows = embed_packed(subject, pack)
    check_batch(pack, rows)
    return rows


def embed_poisoned(subject: Subject, pack: PackedBatch) -> torch.Tensor:
    """The same, where memory that nobody wrote holds NaN."""
    with poisoned(subject.device):
        return embed(subject, pack)


def embed_on_zeros(subject: Subject, pack: PackedBatch) -> torch.Tensor:
    """The same, where memory that nobody wrote holds zeros."""
    with zeroed(subject.device):
        return embed(subject, pack)


def embed_first_and_last(subject: Subject, pack: PackedBatch, *, on_zeros: bool = False) -> Probed:
    """Layer 0 and the last layer in one pass, on poisoned memory or on zeros."""
    last = subject.num_layers
    try:
        with (zeroed if on_zeros else poisoned)(subject.device):
            found = subject.embed_packed_layers(pack, [0, last])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the target's own code: whatever it raises, it has no layer 0
        why = f"The target does not give its embedding layer ({error!r})."
        embedding = embed_on_zeros if on_zeros else embed_poisoned
        return Probed(pack, embedding(subject, pack), None, why)
    check_batch(pack, found[last])
    return Probed(pack, found[last], found[0])


def max_abs(a: torch.Tensor, b: torch.Tensor) -> float | None:
    """Largest absolute difference; exactly 0 only where all values are equal."""
    if a.numel() == 0:
        return 0.0
    return measures.finite_or_none(float((a.double() - b.double()).abs().max()))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two results are equal; NaN equals NaN."""
    return bool(((a == b) | (a.isnan() & b.isnan())).all())
