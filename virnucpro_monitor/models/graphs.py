"""Captured passes over packs, for models whose kernels take less time than launching them.

A small model's pass is some hundred kernels of a few microseconds each, and the host needs longer
to launch one than the GPU to run it. A CUDA graph launches them all at once, but for one shape: so
packs are filled up to a shape that many share. What fills them is a last sequence of `<pad>`, and
empty sequences before it:

    tokens      <cls> M K <eos> <cls> V <eos> <pad> <pad> <pad>      filled to 10
    cu_seqlens  0               4             7 7 7             10   two sequences filled to five
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TOKEN_STEP = 1024
"""Packs are filled to a multiple of this many tokens, which is also the least `max_seqlen`."""
MAX_GRAPHS = 8
"""Kept at once; the one used longest ago goes first."""
_WARM_UPS = 2

PackedPass = Callable[[Tensor, Tensor, int, Sequence[int]], dict[int, Tensor]]
"""input_ids [tokens], cu_seqlens [n + 1], max_seqlen, layers -> {layer: [tokens, embed_dim]}"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What packs have to share for one graph to serve them."""

    num_tokens: int
    num_sequences: int
    max_seqlen: int
    layers: tuple[int, ...]

    @classmethod
    def of(
        cls, num_tokens: int, num_sequences: int, max_seqlen: int, layers: Sequence[int]
    ) -> "Shape":
        """The smallest shape that takes such a pack and the sequence that fills it up."""
        tokens = -(-num_tokens // TOKEN_STEP) * TOKEN_STEP
        return cls(
            tokens,
            1 << num_sequences.bit_length(),  # above num_sequences: one place for the filling
            max(TOKEN_STEP, 1 << (max_seqlen - 1).bit_length()),
            tuple(sorted(set(layers))),
        )


class _Graph:
    """One captured pass and the buffers that it reads and writes."""

    def __init__(
        self,
        shape: Shape,
        run: PackedPass,
        device: torch.device,
        padding: int,
        pool: Any,
    ) -> None:
        self._padding = padding
        self._input_ids = torch.full((shape.num_tokens,), padding, device=device)
        # Until there is a real pack, equal sequences, none of them past the rotary tables.
        bounds = torch.arange(shape.num_sequences + 1) * shape.num_tokens // shape.num_sequences
        self._cu_seqlens = bounds.int().to(device)
        arguments = (self._input_ids, self._cu_seqlens, shape.max_seqlen, shape.layers)
        present = torch.cuda.current_stream(device)
        warm_up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        warm_up.wait_stream(present)
        with torch.cuda.stream(warm_up):
            for _ in range(_WARM_UPS):  # what is compiled or allocated once must not be captured
                run(*arguments)
        present.wait_stream(warm_up)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._results = run(*arguments)

    def replay(self, input_ids: Tensor, cu_seqlens: Tensor) -> dict[int, Tensor]:
        num_tokens, num_bounds = input_ids.numel(), cu_seqlens.numel()
        self._input_ids[:num_tokens].copy_(input_ids)
        self._input_ids[num_tokens:].fill_(self._padding)
        self._cu_seqlens[:num_bounds].copy_(cu_seqlens)
        self._cu_seqlens[num_bounds:-1].fill_(num_tokens)
        self._graph.replay()
        # The next replay writes over its results.
        return {layer: result[:num_tokens].clone() for layer, result in self._results.items()}


class GraphedPasses:
    """Runs packs as graphs where that is possible; a shape is captured when it is met again.

    Args:
        run: the pass; it must not wait for the device.
        padding: the token that fills a pack up.
    """

    def __init__(self, run: PackedPass, padding: int) -> None:
        self._run = run
        self._padding = padding
        self._graphs: OrderedDict[tuple[object, ...], _Graph | None] = OrderedDict()
        self._pools: dict[int, Any] = {}  # by stream
        self._lock = threading.Lock()  # a graph's buffers serve one pack at a time

    def __reduce__(self) -> tuple[object, ...]:
        """A copy begins without graphs: they hold the addresses of another model's weights."""
        return (GraphedPasses, (self._run, self._padding))

    def __call__(
        self,
        input_ids: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        layers: Sequence[int],
        state: tuple[object, ...],
    ) -> dict[int, Tensor] | None:
        """{layer: [tokens, embed_dim]}, or None where this pack has to be run without a graph.

        Args:
            state: whatever a captured pass depends on besides its input, such as the addresses of
                the weights: another state is another graph.
        """
        if torch.cuda.is_current_stream_capturing() or torch.compiler.is_compiling():
            return None
        shape = Shape.of(input_ids.numel(), cu_seqlens.numel() - 1, max_seqlen, layers)
        stream = torch.cuda.current_stream(input_ids.device).cuda_stream
        key = (shape, stream, state)
        with self._lock:
            if key not in self._graphs:
                self._remember(key, None)
                return None
            graph = self._graphs[key]
            if graph is None:
                # Graphs of one stream never run at the same time, so they share their memory.
                pool = self._pools.setdefault(stream, torch.cuda.graph_pool_handle())
                # What is made in inference mode could not be written to outside it.
                with torch.inference_mode(False), torch.no_grad():
                    graph = _Graph(shape, self._run, input_ids.device, self._padding, pool)
            self._remember(key, graph)
            return graph.replay(input_ids, cu_seqlens)

    def _remember(self, key: tuple[object, ...], graph: _Graph | None) -> None:
        self._graphs[key] = graph
        self._graphs.move_to_end(key)
        while len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)
