"""The channel between a judge and the process that runs its target.

Each message is the length of a JSON header (4 bytes), the header, and the bytes of the tensors that
the header lists. Nothing is unpickled; sizes are bounded before anything is read. Where both ends
share memory, rows lie there in place of following: a card writes and reads them at once. Only one
end writes, and only in answer to the other, which has copied by the time that it asks again. Who
asks twice before the first answer names a half of the memory for each, in turns.
"""

import json
import math
import mmap
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from virnucpro_monitor.records.calls import Answer, Call, call_from_json, call_to_json
from virnucpro_monitor.records.messages import MAX_MESSAGE_BYTES, MessageError, parse_json

MAX_TENSOR_BYTES = 2 * 1024**3  # of one message; ten times what the longest trace asks at once
_BUFFER_BYTES = 4 * 1024**2
_SHARED_BYTES = 192 * 1024**2  # no memory until it is written or pinned; what is more is sent
_ALIGNED = 64  # bytes
_DTYPES = {
    str(one).removeprefix("torch."): one
    for one in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
    )
}  # fmt: skip


class ChannelClosedError(ConnectionError):
    """The other side has gone."""


def shared_memory() -> mmap.mmap:
    """Memory that this process and all that it forks from here on share."""
    return mmap.mmap(-1, _SHARED_BYTES)


class Channel:
    """One end of a connected stream socket.

    Args:
        shared: memory that the other end has as well; None for none.
        writes: whether it is this end that writes there.
    """

    def __init__(
        self,
        connection: socket.socket,
        shared: mmap.mmap | None = None,
        *,
        writes: bool = False,
    ) -> None:
        self._connection = connection
        self._shared = None if shared is None else torch.frombuffer(shared, dtype=torch.uint8)
        self._writes = writes
        self._half: int | None = None  # of the memory, in which the next answer is to lie
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)

    def send(
        self,
        message: Call | Answer,
        tensors: Sequence[torch.Tensor] = (),
        *,
        half: int | None = None,
    ) -> None:
        """Send a message with the tensors that it names.

        Args:
            half: of the shared memory for the answer, 0 or 1; None for all of it.

        Raises:
            ChannelClosedError: nobody listens any more.
            MessageError: a tensor is of a kind that cannot be sent, or there is too much of it.
        """
        places = self._places(tensors) if self._writes else None
        rows = [_checked_kind(one) for one in tensors] if places else list(map(_plain, tensors))
        shapes = [[str(one.dtype).removeprefix("torch."), list(one.shape)] for one in rows]
        fields = {**call_to_json(message), "tensors": shapes}
        if places:
            fields["shared"] = True
        if half is not None:
            fields["half"] = half
        header = json.dumps(fields, allow_nan=False).encode()
        # Refused here, so that it is told as what it is, and not as noise at the other end.
        if len(header) > MAX_MESSAGE_BYTES:
            raise MessageError(f"A header of {len(header)} bytes is longer than any message.")
        _checked(shapes)
        for place, one in zip(places or (), rows, strict=False):
            self._view(place, one.dtype, one.shape).copy_(one)
        try:
            self._connection.sendall(struct.pack(">I", len(header)) + header)
            for one in () if places else rows:
                if one.numel():
                    self._connection.sendall(_bytes_of(one))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosedError("The other side has gone.") from error

    def receive(
        self, device: torch.device | None = None, half: int | None = None
    ) -> tuple[Call | Answer, list[torch.Tensor]]:
        """The next message and its tensors, which are this process's own.

        Args:
            device: where tensors go that lie in shared memory; all others are on the CPU.
            half: of that memory, as it was named when this was asked for.

        Raises:
            ChannelClosedError: nobody is there any more.
            MessageError: what came is no message.
        """
        (length,) = struct.unpack(">I", self._take(bytearray(4)))
        if length > MAX_MESSAGE_BYTES:
            raise MessageError(f"A header of {length} bytes is longer than any message.")
        content = parse_json(bytes(self._take(bytearray(length))))
        shapes = content.pop("tensors", None) if isinstance(content, dict) else None
        shared = content.pop("shared", False) if isinstance(content, dict) else False
        asked_half = content.pop("half", None) if isinstance(content, dict) else None
        self._half = asked_half if asked_half in (0, 1) else None
        message = call_from_json(content)
        if shared is not False:
            return message, self._copied(_checked(shapes), device, half)
        tensors = [_empty(one) for one in _checked(shapes)]
        for one in tensors:
            if one.numel():
                self._take(_bytes_of(one))
        return message, tensors

    def pin(self, device: str) -> None:
        """Let a card reach the shared memory by itself; where it cannot, it is copied as before."""
        if self._shared is None:
            return
        with suppress(RuntimeError), torch.cuda.device(device):
            cudart: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            refused = cudart.cudaHostRegister(self._shared.data_ptr(), self._shared.numel(), 0)
            if int(refused):
                torch.zeros(1, device=device)  # takes the error, which the next call would tell

    def close(self) -> None:
        self._connection.close()

    def _places(self, tensors: Sequence[Any]) -> list[int] | None:
        """Where each tensor comes to lie in the shared memory; None where not all do."""
        if self._shared is None or not tensors:
            return None
        if not all(isinstance(one, torch.Tensor) for one in tensors):
            return None
        sizes = [one.numel() * one.element_size() for one in tensors]
        first, room = self._room(self._half)
        places, end = _laid_out(sizes, first)
        return places if end <= first + room else None

    def _room(self, half: int | None) -> tuple[int, int]:
        """The first byte of the shared memory, or of one half of it, and how many these are."""
        size = 0 if self._shared is None else self._shared.numel()
        return (0, size) if half is None else (half * (size // 2), size // 2)

    def _view(self, place: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
        assert self._shared is not None
        size = math.prod(shape) * dtype.itemsize
        view: torch.Tensor = self._shared[place : place + size].view(dtype).reshape(list(shape))
        return view

    def _copied(
        self,
        shapes: list[tuple[str, list[int]]],
        device: torch.device | None,
        half: int | None,
    ) -> list[torch.Tensor]:
        """The tensors that lie in the shared memory, copied."""
        kinds = [(_DTYPES[dtype], shape) for dtype, shape in shapes]
        first, room = self._room(half)
        sizes = [math.prod(shape) * dtype.itemsize for dtype, shape in kinds]
        places, end = _laid_out(sizes, first)
        if self._shared is None or end > first + room:
            raise MessageError("Tensors lie where no memory is shared.")
        return [
            self._view(place, *kind).to(device or "cpu", copy=True)
            for place, kind in zip(places, kinds, strict=True)
        ]

    def _take(self, room: Any) -> Any:
        view = memoryview(room)
        while view:
            try:
                count = self._connection.recv_into(view)
            except ConnectionResetError:
                count = 0
            if not count:
                raise ChannelClosedError("The other side has gone.")
            view = view[count:]
        return room


def _laid_out(sizes: Sequence[int], first: int) -> tuple[list[int], int]:
    """The first byte of each of several tensors of these bytes, and the one behind the last."""
    places, end = [], first
    for size in sizes:
        places.append(end)
        end += -(-size // _ALIGNED) * _ALIGNED
    return places, end


def _plain(tensor: Any) -> torch.Tensor:
    kind = _checked_kind(tensor)
    plain: torch.Tensor = kind.cpu().contiguous()
    return plain


def _checked_kind(tensor: Any) -> torch.Tensor:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        raise MessageError(f"{type(tensor).__name__} is no plain tensor.")
    if str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        raise MessageError(f"A tensor of {tensor.dtype} cannot be sent.")
    if tensor.is_meta:
        raise MessageError(f"A tensor on the device {tensor.device} has no values.")
    detached: torch.Tensor = tensor.detach()
    return detached


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def _checked(shapes: Any) -> list[tuple[str, list[int]]]:
    if not isinstance(shapes, list):
        raise MessageError("An answer does not list its tensors.")
    total = 0
    for one in shapes:
        if not (isinstance(one, list) and len(one) == 2 and isinstance(one[1], list)):
            raise MessageError("An answer lists a tensor without its shape.")
        dtype, shape = one
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise MessageError("An answer lists a tensor of no dtype that is known.")
        can_be = len(shape) <= 4 and all(type(size) is int and 0 <= size < 2**40 for size in shape)
        # Of an empty tensor, too, torch multiplies the other sizes in 64 bits.
        if not can_be or math.prod(size for size in shape if size) >= 2**60:
            raise MessageError("An answer lists a tensor of no shape that can be.")
        total += math.prod(shape) * _DTYPES[dtype].itemsize
    if total > MAX_TENSOR_BYTES:
        raise MessageError(f"Tensors of {total} bytes are more than any answer holds.")
    return shapes


def _empty(listed: tuple[str, list[int]]) -> torch.Tensor:
    dtype, shape = listed
    return torch.empty(shape, dtype=_DTYPES[dtype])
