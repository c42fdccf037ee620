"""A subject at the other end of a channel gives what the subject itself gives, to the last bit."""

import json
import mmap
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.runner.conftest import MODEL, SEQUENCES
from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.weights import resolve_weights
from virnucpro_monitor.records.calls import Call, EmbedPack, Given, Loaded, OnePack, Packs
from virnucpro_monitor.records.messages import MeasureJob, MessageError
from virnucpro_monitor.runner import channel
from virnucpro_monitor.runner import remote as remote_module
from virnucpro_monitor.runner.channel import Channel, ChannelClosedError
from virnucpro_monitor.runner.remote import (
    RemoteSubject,
    TargetOutOfMemoryError,
    TargetRaisedError,
)
from virnucpro_monitor.runner.target_process import Host
from virnucpro_monitor.validation.builtin import BuiltinSubject, load_builtin
from virnucpro_monitor.validation.fingerprints import fingerprints
from virnucpro_monitor.validation.poison import poisoned, zeroed
from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import encode

PAIRS = [(one.id, one.residues) for one in SEQUENCES]


class Marking(BuiltinSubject):
    """Writes into its input, and runs out of memory."""

    def embed_packed_layers(self, batch: PackedBatch, layers: Any) -> Any:
        if layers == [2]:
            raise torch.OutOfMemoryError("no room")
        if layers == [3]:
            raise TargetError("no layer 3")
        found = dict(super().embed_packed_layers(batch, layers))
        batch.input_ids[1] = 5
        return found


@pytest.fixture(scope="module")
def subject(cache_folder: Path) -> Marking:
    weights = resolve_weights(MODEL, "synthetic", cache_folder=cache_folder)
    healthy = load_builtin(
        MODEL, weights=Path(weights.path), device="cpu", dtype="float32", backend="sdpa",
        token_budget=60,
    )  # fmt: skip
    return Marking(healthy.model, healthy.batch_converter, model_name=MODEL, token_budget=60)


@pytest.fixture
def asked() -> list[Call]:
    """What the other side was asked."""
    return []


@pytest.fixture(params=["sent", "shared"])
def remote(
    subject: Marking, asked: list[Call], request: pytest.FixtureRequest
) -> Iterator[RemoteSubject]:
    ours, theirs = socket.socketpair()
    memory = channel.shared_memory() if request.param == "shared" else None
    far = Channel(theirs, memory, writes=True)
    host = Host(cast(MeasureJob, type("Job", (), {"checkout": "."})))
    host._subject = subject

    def serve() -> None:
        while True:
            try:
                call, tensors = cast(Any, far.receive())
            except ChannelClosedError:
                return
            asked.append(call)
            try:
                far.send(*host.answer(call, tensors))
            except Exception as error:
                far.send(host.raised(error))

    server = threading.Thread(target=serve)
    server.start()
    far_loaded = Loaded(
        model_name=MODEL, num_layers=6, dtype="float32", device="cpu", backend="sdpa",
        token_budget=60, fills=True,
    )  # fmt: skip
    far.send(far_loaded)
    near = Channel(ours, memory)
    with RemoteSubject(near) as remote:
        remote.wait()
        yield remote
    near.close()
    server.join()
    far.close()


def test_rows_packs_and_fingerprints_are_those_of_the_subject(
    remote: RemoteSubject, subject: Marking
) -> None:
    for ours, theirs in zip(remote.pack(PAIRS), subject.pack(PAIRS), strict=True):
        assert ours.sequence_ids == theirs.sequence_ids
        assert ours.max_seqlen == theirs.max_seqlen
        for name in ("input_ids", "cu_seqlens"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert (one.dtype, one.tolist()) == (other.dtype, other.tolist())
        found = remote.embed_packed_layers(ours, [0, 6])
        expected = subject.embed_packed_layers(theirs, [0, 6])
        assert all(torch.equal(found[layer], expected[layer]) for layer in (0, 6))
        part = remote.embed_packed_span(ours, (2, 5), [6])[6]
        assert torch.equal(part, subject.embed_packed_layers(theirs, [6])[6][2:5])
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()  # what the pass made of them
        assert int(ours.input_ids[1]) == 5
    tokens = encode(SEQUENCES[0].residues)
    alone = remote.embed_unpacked_layers(tokens, [6])[6]
    assert torch.equal(alone, subject.embed_unpacked_layers(tokens, [6])[6])
    tensors = subject.tensors()
    assert fingerprints(remote.tensors()) == fingerprints(tensors)
    assert remote.tensors().dtypes() == {name: one.dtype for name, one in tensors.items()}
    name = "embed_tokens.weight"
    assert torch.equal(remote.tensors()[name], tensors[name])


def copied(pack: PackedBatch) -> PackedBatch:
    return replace(pack, input_ids=pack.input_ids.clone(), cu_seqlens=pack.cu_seqlens.clone())


@pytest.mark.parametrize("most_bytes", [0, 48 * 1024])
def test_packs_that_were_foreseen_give_what_they_give_when_asked_for(
    remote: RemoteSubject,
    subject: Marking,
    asked: list[Call],
    monkeypatch: pytest.MonkeyPatch,
    most_bytes: int,
) -> None:
    monkeypatch.setattr(remote_module, "_AHEAD_BYTES", most_bytes)
    remote.token_budget = 20
    packs = [copied(pack) for pack in remote.pack(PAIRS) for _ in range(3)]
    expected = [subject.embed_packed_layers(copied(pack), [6])[6] for pack in packs]
    assert len(packs) == 6
    asked.clear()
    remote.foresee_packs(packs, [6], "zeros")
    assert not asked  # nothing before the first is wanted
    with zeroed(remote.device):
        for number, pack in enumerate(packs[:4]):
            assert torch.equal(remote.embed_packed_layers(pack, [6])[6], expected[number])
            assert int(pack.input_ids[1]) == 5  # what that very pass made of it
            if number == 2:  # something else in between
                assert remote.tensors().fingerprints() == fingerprints(subject.tensors())
    alone = remote.embed_packed_layers(packs[5], [6])[6]  # another than the next
    assert torch.equal(alone, expected[5])
    kinds = [type(call).__name__ for call in asked]
    assert kinds.count("TakeFingerprints") == 1
    assert kinds.count("EmbedPack") == 5 + (2 if most_bytes else 1)  # and who was asked ahead
    assert kinds.index("TakeFingerprints") == (5 if most_bytes else 4)
    remote.foresee_packs((), [6], "")
    again = next(remote.pack(PAIRS))
    assert torch.equal(remote.embed_packed_layers(again, [6])[6], expected[0])


def test_what_a_foreseen_pack_raises_is_raised_where_it_is_wanted(
    remote: RemoteSubject, subject: Marking, asked: list[Call]
) -> None:
    (pack,) = remote.pack(PAIRS)
    packs = [copied(pack) for _ in range(4)]
    remote.foresee_packs(packs, [2], "", at_once=True)
    with pytest.raises(TargetOutOfMemoryError):
        remote.embed_packed_layers(packs[0], [2])
    assert len(asked) == 3  # its collator, and two passes
    rows = remote.embed_packed_layers(packs[1], [6])[6]
    assert torch.equal(rows, subject.embed_packed_layers(pack, [6])[6])


def test_the_number_of_packs_follows_the_budget_that_is_set(remote: RemoteSubject) -> None:
    remote.token_budget = 20
    assert len(list(remote.pack(PAIRS))) == 2
    remote.token_budget = 60
    assert len(list(remote.pack(PAIRS))) == 1


def test_memory_is_filled_where_the_model_is(remote: RemoteSubject, asked: list[Call]) -> None:
    (pack,) = remote.pack(PAIRS)
    for fill in (poisoned, zeroed):
        with fill(remote.device) as possible:
            assert possible
            assert not bool(torch.empty(4096).isnan().all())  # here nothing is
            remote.embed_packed_layers(pack, [6])
    remote.embed_packed_layers(pack, [6])
    fills = [call.fill for call in asked if isinstance(call, EmbedPack)]
    assert fills == ["nan", "zeros", ""]


def test_what_the_target_raises_is_raised_here(remote: RemoteSubject) -> None:
    (pack,) = remote.pack(PAIRS)
    with pytest.raises(TargetOutOfMemoryError, match="no room") as full:
        remote.embed_packed_layers(pack, [2])
    assert isinstance(full.value, torch.OutOfMemoryError)
    with pytest.raises(TargetRaisedError) as raised:
        remote.embed_packed_layers(pack, [3])
    assert repr(raised.value) == "TargetError('no layer 3')"
    assert raised.value.failure.kind == "interface"
    assert "no layer 3" in raised.value.failure.traceback


def test_an_answer_that_is_too_long_is_refused_where_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channel, "MAX_MESSAGE_BYTES", 1000)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = Packs(packs=(OnePack(max_seqlen=3, sequence_ids=("x" * 1000,)),))
        with pytest.raises(MessageError, match="longer than any message"):
            Channel(ours).send(answer)
        with pytest.raises(MessageError, match="on the device meta has no values"):
            Channel(ours).send(Packs(packs=()), [torch.empty(3, device="meta")])
        Channel(ours).send(Packs(packs=()))  # nothing of the others was sent
        assert Channel(theirs).receive()[0] == Packs(packs=())


def test_rows_in_shared_memory_are_copied_and_those_that_do_not_fit_are_sent() -> None:
    ours, theirs = socket.socketpair()
    memory = mmap.mmap(-1, 256)
    rows = [torch.arange(6.0).reshape(2, 3).t(), torch.tensor([7], dtype=torch.int32)]
    large = torch.arange(65.0)
    with ours, theirs:
        far, near = Channel(ours, memory, writes=True), Channel(theirs, memory)
        far.send(Given(), rows)
        _, found = near.receive()
        far.send(Given(), [large])
        far.send(Given(), [torch.zeros(3), torch.zeros(3)])
        assert torch.equal(near.receive()[1][0], large)
        assert all(map(torch.equal, found, rows))  # though the memory holds other rows by now
        near.send(Given(), rows)  # by this end they are sent
        assert all(map(torch.equal, far.receive()[1], rows))
        assert not near.receive()[1][0].any()


@pytest.mark.parametrize("num_bytes", [None, 64])
def test_rows_that_lie_beyond_what_is_shared_are_refused(num_bytes: int | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours, mmap.mmap(-1, 256), writes=True).send(Given(), [torch.ones(33)])
        near = Channel(theirs, None if num_bytes is None else mmap.mmap(-1, num_bytes))
        with pytest.raises(MessageError, match="no memory is shared"):
            near.receive()


@pytest.mark.parametrize("shared", [False, True])
def test_sizes_that_no_number_holds_are_refused_of_an_empty_tensor_too(shared: bool) -> None:
    fields = {"kind": "Given", "shared": shared, "tensors": [["float32", [1 << 39] * 3 + [0]]]}
    header = json.dumps(fields).encode()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack(">I", len(header)) + header)
        with pytest.raises(MessageError, match="of no shape that can be"):
            Channel(theirs, mmap.mmap(-1, 256)).receive()


@pytest.mark.parametrize("name", ["model_name", "backend", "family"])
def test_a_name_that_no_database_holds_is_refused(name: str) -> None:
    loaded = Loaded(
        model_name="tiny",
        num_layers=2,
        dtype="float32",
        device="cpu",
        backend="own",
        token_budget=64,
        fills=False,
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send(replace(loaded, **{name: "a\x00b"}))
        with pytest.raises(MessageError, match="no usable name"):
            RemoteSubject(Channel(theirs)).wait()
