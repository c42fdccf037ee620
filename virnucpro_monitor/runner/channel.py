"""The channel between a judge and the process that runs its target.

Each message is the length of a JSON header (4 bytes), the header, and the bytes of the tensors that
the header lists. Nothing is unpickled; sizes are bounded before anything is read.
"""

import json
import math
import socket
import struct
from collections.abc import Sequence
from typing import Any

import torch

from virnucpro_monitor.records.calls import Answer, Call, call_from_json, call_to_json
from virnucpro_monitor.records.messages import MAX_MESSAGE_BYTES, MessageError, parse_json

MAX_TENSOR_BYTES = 2 * 1024**3  # of one message; ten times what the longest trace asks at once
_BUFFER_BYTES = 4 * 1024**2
_DTYPES = {
    str(one).removeprefix("torch."): one
    for one in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
        torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
    )
}  # fmt: skip


class ChannelClosedError(ConnectionError):
    """The other side has gone."""


class Channel:
    """One end of a connected stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)

    def send(self, message: Call | Answer, tensors: Sequence[torch.Tensor] = ()) -> None:
        """Send a message with the tensors that it names.

        Raises:
            ChannelClosedError: nobody listens any more.
            MessageError: a tensor is of a kind that cannot be sent, or there is too much of it.
        """
        rows = [_plain(one) for one in tensors]
        shapes = [[str(one.dtype).removeprefix("torch."), list(one.shape)] for one in rows]
        header = json.dumps({**call_to_json(message), "tensors": shapes}, allow_nan=False).encode()
        # Refused here, so that it is told as what it is, and not as noise at the other end.
        if len(header) > MAX_MESSAGE_BYTES:
            raise MessageError(f"A header of {len(header)} bytes is longer than any message.")
        _checked(shapes)
        try:
            self._connection.sendall(struct.pack(">I", len(header)) + header)
            for one in rows:
                if one.numel():
                    self._connection.sendall(_bytes_of(one))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosedError("The other side has gone.") from error

    def receive(self) -> tuple[Call | Answer, list[torch.Tensor]]:
        """The next message and its tensors, which are this process's own.

        Raises:
            ChannelClosedError: nobody is there any more.
            MessageError: what came is no message.
        """
        (length,) = struct.unpack(">I", self._take(bytearray(4)))
        if length > MAX_MESSAGE_BYTES:
            raise MessageError(f"A header of {length} bytes is longer than any message.")
        content = parse_json(bytes(self._take(bytearray(length))))
        shapes = content.pop("tensors", None) if isinstance(content, dict) else None
        message = call_from_json(content)
        tensors = [_empty(one) for one in _checked(shapes)]
        for one in tensors:
            if one.numel():
                self._take(_bytes_of(one))
        return message, tensors

    def close(self) -> None:
        self._connection.close()

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


def _plain(tensor: Any) -> torch.Tensor:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
        raise MessageError(f"{type(tensor).__name__} is no plain tensor.")
    if str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        raise MessageError(f"A tensor of {tensor.dtype} cannot be sent.")
    try:
        plain: torch.Tensor = tensor.detach().cpu().contiguous()
    except NotImplementedError as error:  # without data, as on the device "meta"
        raise MessageError(f"A tensor on the device {tensor.device} has no values.") from error
    return plain


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
        if len(shape) > 4 or not all(type(size) is int and 0 <= size < 2**40 for size in shape):
            raise MessageError("An answer lists a tensor of no shape that can be.")
        total += math.prod(shape) * _DTYPES[dtype].itemsize
    if total > MAX_TENSOR_BYTES:
        raise MessageError(f"Tensors of {total} bytes are more than any answer holds.")
    return shapes


def _empty(listed: tuple[str, list[int]]) -> torch.Tensor:
    dtype, shape = listed
    return torch.empty(shape, dtype=_DTYPES[dtype])
