"""A subject whose model lives in another process: what the judge asks goes over a channel.

The judge never imports what it judges. Whatever comes back is held against what was asked; figures
are made of it here.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import torch

from virnucpro_monitor.models.families import FamilyFacts
from virnucpro_monitor.records import Failure
from virnucpro_monitor.records.calls import (
    Answer,
    Call,
    Confined,
    EmbedAlone,
    Embedded,
    EmbedExactly,
    EmbedPack,
    Fingerprinted,
    Given,
    GiveTensor,
    Loaded,
    MakePacks,
    NamePackages,
    Packages,
    Packs,
    Raised,
    TakeFingerprints,
)
from virnucpro_monitor.records.messages import MAX_NAME_CHARACTERS, MessageError
from virnucpro_monitor.runner.channel import Channel
from virnucpro_monitor.validation.fingerprints import Fingerprints
from virnucpro_monitor.validation.poison import filled_elsewhere
from virnucpro_monitor.validation.subject import Layers, PackedBatch

_MAX_LAYERS = 1000
_PRINT = re.compile(r"([a-z0-9_]{1,40})((?: -?[0-9]{1,60})+)")
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_MOST_ASKED = 2  # passes at a time: one that is computed, and one that waits for it
_AHEAD_BYTES = 48 * 1024  # what waits must fit the socket, where its reader may wait to be read

_Kind = TypeVar("_Kind", bound=Answer)


@dataclass(slots=True, eq=False)
class _Ahead:
    """A pass that was foreseen, and what came of it."""

    call: Call
    inputs: Sequence[torch.Tensor]
    half: int = 0
    answer: tuple[Call | Answer, list[torch.Tensor]] | None = None

    def is_it(self, call: Call, inputs: Sequence[torch.Tensor]) -> bool:
        same = all(one is other for one, other in zip(self.inputs, inputs, strict=False))
        return same and self.call == call


class _FromTarget:
    """An exception that the target raised in its own process."""

    raised: Raised

    @property
    def failure(self) -> Failure:
        return self.raised.failure

    @property
    def ours(self) -> bool:
        return self.raised.ours

    def __repr__(self) -> str:
        return self.raised.shown


class TargetRaisedError(_FromTarget, Exception):
    """The target raised."""


class TargetOutOfMemoryError(_FromTarget, torch.OutOfMemoryError):
    """The target's device has no room."""


class TargetLeftError(_FromTarget, BaseException):
    """The target raised what only ends a process."""


FROM_TARGET = (TargetRaisedError, TargetOutOfMemoryError, TargetLeftError)


class RemoteSubject:
    """A `Subject` at the other end of a channel. Within the block, its memory is what is filled.

    Its rows come to the device that the target's model runs on, in this process.

    Raises (each method):
        TargetRaisedError, TargetOutOfMemoryError, TargetLeftError: as the target raised.
        ChannelClosedError: its process has gone.
        MessageError: what it answered is no answer.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._fill = ""
        self._foreseen: deque[_Ahead] = deque()  # not asked yet
        self._asked: deque[_Ahead] = deque()  # asked, the oldest first
        self._half = 0
        self._stack = ExitStack()

    def meet(self) -> None:
        """Hear what the target's process has given up, before it runs any foreign code."""
        self.confined, _ = self._await(Confined)

    def wait(self) -> None:
        """Wait until the target's model is there."""
        loaded, _ = self._await(Loaded)
        if loaded.dtype not in _DTYPES or not _DEVICE.fullmatch(loaded.device):
            raise MessageError("A model runs in no dtype or on no device that is known.")
        names = (loaded.model_name, loaded.backend, loaded.family)
        if not all(0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable() for name in names):
            raise MessageError("A model, its family or its backend has no usable name.")
        if not (0 <= loaded.num_layers <= _MAX_LAYERS and loaded.token_budget > 0):
            raise MessageError("A model has a number of layers or tokens that cannot be.")
        self._loaded = loaded
        self.token_budget = loaded.token_budget

    def __enter__(self) -> "RemoteSubject":
        self._stack.enter_context(filled_elsewhere(self._tell))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def model_name(self) -> str:
        return self._loaded.model_name

    @property
    def num_layers(self) -> int:
        return self._loaded.num_layers

    @property
    def dtype(self) -> torch.dtype:
        return _DTYPES[self._loaded.dtype]

    @property
    def device(self) -> torch.device:
        return torch.device(self._loaded.device)

    @property
    def backend(self) -> str:
        return self._loaded.backend

    @property
    def family(self) -> FamilyFacts:
        return FamilyFacts(self._loaded.family, self._loaded.hides_residues)

    def tensors(self) -> "RemoteTensors":
        """Parameters and buffers by name, fetched as they are looked at."""
        return RemoteTensors(self)

    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        """tokens [T] int64 -> {layer: [T, D]}."""
        call = EmbedAlone(layers=tuple(layers), fill=self._fill)
        return self._embed(call, tokens)

    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        """{layer: [tokens, D]}, rows in the order of `batch.input_ids`."""
        return self.embed_packed_span(batch, None, layers)

    def embed_packed_span(
        self, batch: PackedBatch, span: tuple[int, int] | None, layers: Sequence[int]
    ) -> Layers:
        """{layer: [rows, D]} of a part of the pack; no others come over the channel."""
        call = _pack_call(batch, span, layers, self._fill)
        return self._embed(call, batch.input_ids, batch.cu_seqlens)

    def foresee_packs(
        self,
        packs: Sequence[PackedBatch],
        layers: Sequence[int],
        fill: str,
        *,
        at_once: bool = False,
    ) -> None:
        """Say which packs are embedded next, in this order, so that none waits to be asked for.

        Nothing is asked before the first of them is, or else `at_once`. What is asked in between is
        answered after those that are asked already.
        """
        self._forget()
        self._foreseen.extend(
            _Ahead(_pack_call(one, None, layers, fill), (one.input_ids, one.cu_seqlens))
            for one in packs
        )
        if at_once:
            self._ask_ahead()

    def embed_exactly(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens [T] int64 -> [T, D] of the last layer in FP64, as the target has it."""
        _, tensors = self.ask(EmbedExactly(), Embedded, [tokens])
        if len(tensors) != 1:
            raise MessageError("Rows of one layer were asked for.")
        return tensors[0]

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        """Pack (id, residues) pairs with the target's own collator."""
        call = MakePacks(
            sequences=tuple(sequences), per_call=per_call, token_budget=self.token_budget
        )
        answer, tensors = self.ask(call, Packs)
        if len(tensors) != 2 * len(answer.packs):
            raise MessageError("A pack came without its tokens or bounds.")
        for number, one in enumerate(answer.packs):
            ids, bounds = tensors[2 * number : 2 * number + 2]
            if ids.dim() != 1 or bounds.dim() != 1 or bounds.numel() == 0:
                raise MessageError("A pack's tokens or bounds are no list.")
            yield PackedBatch(ids, bounds, one.max_seqlen, one.sequence_ids)

    def packages(self) -> tuple[str, ...]:
        """Names of the distributions that the target has imported so far."""
        return self.ask(NamePackages(), Packages)[0].names

    def ask(
        self,
        call: Call,
        kind: type[_Kind],
        tensors: Sequence[torch.Tensor] = (),
        device: torch.device | None = None,
    ) -> tuple[_Kind, list[torch.Tensor]]:
        """Ask, and wait for an answer of this kind and its tensors, perhaps on that device."""
        for one in tuple(self._asked):
            self._hear(one)
        self._channel.send(call, tensors)
        return self._await(kind, device)

    def _await(
        self, kind: type[_Kind], device: torch.device | None = None
    ) -> tuple[_Kind, list[torch.Tensor]]:
        return self._checked(kind, *self._channel.receive(device))

    def _checked(
        self, kind: type[_Kind], answer: Call | Answer, tensors: list[torch.Tensor]
    ) -> tuple[_Kind, list[torch.Tensor]]:
        if isinstance(answer, Raised):
            _raise(answer)
        if not isinstance(answer, kind):
            raise MessageError(f"{type(answer).__name__} came in place of {kind.__name__}.")
        return answer, tensors

    def _ask_ahead(self) -> None:
        while self._foreseen and len(self._asked) < _MOST_ASKED:
            if self._asked and sum(rows.nbytes for rows in self._foreseen[0].inputs) > _AHEAD_BYTES:
                return
            one = self._foreseen.popleft()
            one.half, self._half = self._half, 1 - self._half
            self._channel.send(one.call, one.inputs, half=one.half)
            self._asked.append(one)

    def _hear(self, one: _Ahead) -> tuple[Call | Answer, list[torch.Tensor]]:
        if one.answer is None:
            try:
                one.answer = self._channel.receive(self.device, one.half)
            except BaseException:  # no answer to this one comes any more
                self._asked.remove(one)
                self._foreseen.clear()
                raise
        return one.answer

    def _forget(self) -> None:
        """Foresee nothing any more."""
        self._foreseen.clear()
        while self._asked:
            self._hear(self._asked[0])
            self._asked.popleft()

    def _ask_or_hear(
        self, call: EmbedAlone | EmbedPack, inputs: Sequence[torch.Tensor]
    ) -> tuple[Embedded, list[torch.Tensor]]:
        """The answer to what was asked ahead, or else to what is asked now."""
        first = next(iter((*self._asked, *self._foreseen)), None)
        if first is None or not first.is_it(call, inputs):
            return self.ask(call, Embedded, inputs, self.device)
        self._ask_ahead()
        heard = self._hear(first)
        self._asked.popleft()
        try:
            found = self._checked(Embedded, *heard)
        except FROM_TARGET:
            with suppress(ConnectionError, MessageError):  # it has raised before that
                self._forget()
            raise
        self._ask_ahead()
        return found

    def _embed(self, call: EmbedAlone | EmbedPack, *inputs: torch.Tensor) -> Layers:
        answer, tensors = self._ask_or_hear(call, inputs)
        wanted = len(call.layers) + len(answer.changed)
        if answer.layers != call.layers or len(tensors) != wanted:
            raise MessageError("Rows came of other layers than were asked for.")
        if not set(answer.changed) <= set(range(len(inputs))):
            raise MessageError("Inputs came back that were not given.")
        for place in reversed(answer.changed):  # what the target did to its input is what it does
            given, now = inputs[place], tensors.pop()
            if now.shape != given.shape or now.dtype != given.dtype:
                raise MessageError("A changed input came in another shape.")
            given.copy_(now)
        return {
            layer: rows.to(self.device) for layer, rows in zip(call.layers, tensors, strict=True)
        }

    def _tell(self, fill: str) -> bool:
        self._fill = fill
        return self._loaded.fills


class RemoteTensors(Mapping[str, torch.Tensor]):
    """A distant model's parameters and buffers; fingerprints are taken where they lie."""

    def __init__(self, subject: RemoteSubject) -> None:
        self._subject = subject
        self._taken: dict[str, tuple[str, tuple[int, ...]]] | None = None

    def fingerprints(self) -> Fingerprints:
        """As they are now."""
        answer, _ = self._subject.ask(TakeFingerprints(), Fingerprinted)
        self._taken = {name: _read_print(text) for name, text in answer.prints.items()}
        return {name: numbers for name, (_, numbers) in self._taken.items()}

    def dtypes(self) -> dict[str, torch.dtype]:
        """By name."""
        found = {}
        for name, (dtype, _) in self._last().items():
            known = getattr(torch, dtype, None)
            if not isinstance(known, torch.dtype):
                raise MessageError("A tensor has no dtype that is known.")
            found[name] = known
        return found

    def __getitem__(self, name: str) -> torch.Tensor:
        tensors = self._subject.ask(GiveTensor(name=name), Given)[1]
        if len(tensors) != 1:
            raise MessageError("One tensor was asked for.")
        return tensors[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._last())

    def __len__(self) -> int:
        return len(self._last())

    def _last(self) -> Mapping[str, tuple[str, tuple[int, ...]]]:
        if self._taken is None:
            self.fingerprints()
        assert self._taken is not None
        return self._taken


def _pack_call(
    batch: PackedBatch, span: tuple[int, int] | None, layers: Sequence[int], fill: str
) -> EmbedPack:
    return EmbedPack(
        layers=tuple(layers),
        max_seqlen=batch.max_seqlen,
        sequence_ids=batch.sequence_ids,
        fill=fill,
        span=span,
    )


def _read_print(text: str) -> tuple[str, tuple[int, ...]]:
    """The dtype and the numbers of one fingerprint."""
    found = _PRINT.fullmatch(text)
    if found is None:
        raise MessageError("A fingerprint is no dtype with its numbers.")
    return found[1], tuple(map(int, found[2].split()))


def _raise(raised: Raised) -> NoReturn:
    kind: type[TargetRaisedError | TargetOutOfMemoryError | TargetLeftError] = TargetRaisedError
    if raised.ends:
        kind = TargetLeftError
    elif raised.out_of_memory:
        kind = TargetOutOfMemoryError
    error = kind(raised.failure.message)
    error.raised = raised
    raise error
