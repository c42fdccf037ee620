"""Packs run as CUDA graphs against the same packs run without."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.benchmarks.engine_subjects import ALPHABET, random_fair_esm
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention, load_esm2_model
from virnucpro_monitor.models.graphs import MAX_GRAPHS, Shape
from virnucpro_monitor.models.weights import MODEL_SHAPES

gpu = pytest.mark.gpu
MODELS = ["esm2_t6_8M_UR50D", "esm2_t12_35M_UR50D", "four layers of 150M"]
LENGTHS = (402, 64, 3, 127, 128, 129, 1024, 5)


@pytest.mark.parametrize(
    ("pack", "shape"),
    [
        ((1, 1, 1), (1024, 2, 1024)),
        ((1024, 1, 1024), (1024, 2, 1024)),
        ((1025, 2, 1024), (2048, 4, 1024)),
        ((16384, 63, 1025), (16384, 64, 2048)),
        ((16384, 64, 3000), (16384, 128, 4096)),
    ],
)
def test_a_shape_has_room_for_the_pack_and_for_what_fills_it(
    pack: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    found = Shape.of(*pack, layers=[6, 0, 6])
    assert (found.num_tokens, found.num_sequences, found.max_seqlen) == shape
    assert found.layers == (0, 6)
    assert found.num_sequences > pack[1]
    assert found.num_tokens - pack[0] < found.max_seqlen
    assert found.num_tokens <= found.num_sequences * found.max_seqlen


def make_pack(lengths: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, int]:
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    tokens = torch.randint(4, 25, (int(bounds[-1]),), generator=generator)
    tokens[torch.rand(tokens.shape, generator=generator) < 0.05] = 32  # <mask>
    tokens[bounds[:-1].long()], tokens[bounds[1:].long() - 1] = 0, 2
    return tokens.cuda(), bounds.cuda(), max(lengths)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Iterator[ESM2WithFlashAttention]:
    if request.param in MODEL_SHAPES:
        model, _ = load_esm2_model(request.param, "cuda:0", weights="synthetic")
    else:  # all thirty would take half a minute to make
        shape = replace(MODEL_SHAPES["esm2_t30_150M_UR50D"], num_layers=4)
        torch.manual_seed(0)
        base = random_fair_esm(shape, "cuda:0")
        model = ESM2WithFlashAttention(base, ALPHABET, device="cuda:0", dtype=torch.float16)
    assert model.use_graphs
    yield model
    torch.cuda.empty_cache()


def run(
    model: ESM2WithFlashAttention, lengths: tuple[int, ...], *, graphs: bool = True, seed: int = 0
) -> dict[int, Tensor]:
    layers = [0, 3, model.num_layers]
    model.use_graphs = graphs
    try:
        pack = make_pack(lengths, seed)
        found: dict[int, Tensor] = model.forward_packed(*pack, layers)["representations"]
        return found
    finally:
        model.use_graphs = True


def num_captured(model: ESM2WithFlashAttention) -> int:
    return sum(graph is not None for graph in model._graphs._graphs.values())


@gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_graphs_give_the_same_bits(model: ESM2WithFlashAttention, dtype: torch.dtype) -> None:
    model.to(dtype)
    run(model, LENGTHS)
    run(model, LENGTHS)
    assert num_captured(model) == 1
    # Of one shape, but none alike: fewer and more sequences, full to the last token and not.
    for seed, lengths in enumerate([LENGTHS, (*LENGTHS[1:], 568), (1000, 900, 3, 3, 3, 2, 40)]):
        graphed = run(model, lengths, seed=seed)
        plain = run(model, lengths, graphs=False, seed=seed)
        assert graphed.keys() == plain.keys()
        for layer in plain:
            assert torch.equal(graphed[layer], plain[layer])
            assert bool(plain[layer].isfinite().all())
    assert num_captured(model) == 1


@gpu
def test_a_neighbour_and_the_filling_change_nothing(model: ESM2WithFlashAttention) -> None:
    alone = run(model, (402, 64), graphs=False)
    for _ in range(2):
        run(model, (402, 64, 200))
    assert num_captured(model) == 1
    pack = make_pack((402, 64, 200))
    first = make_pack((402, 64))[0]
    for filling in (5, 30):
        pack[0][466:] = filling
        pack[0][:466] = first
        found = model.forward_packed(*pack, [0, 3, model.num_layers])["representations"]
        for layer, rows in alone.items():
            assert torch.equal(found[layer][:466], rows)


@gpu
def test_results_of_one_pack_are_not_written_over_by_the_next(
    model: ESM2WithFlashAttention,
) -> None:
    for _ in range(2):
        run(model, LENGTHS)
    kept = run(model, LENGTHS, seed=1)
    copies = {layer: rows.clone() for layer, rows in kept.items()}
    run(model, LENGTHS, seed=2)
    for layer, rows in kept.items():
        assert torch.equal(rows, copies[layer])


@gpu
def test_changed_weights_are_seen(model: ESM2WithFlashAttention) -> None:
    for _ in range(2):
        run(model, LENGTHS)
    model.layers[0].fc1.weight.mul_(1.5)  # in place: the same memory
    for layer, rows in run(model, LENGTHS, graphs=False).items():
        assert torch.equal(run(model, LENGTHS)[layer], rows)
    halved = torch.nn.Parameter(model.embed_tokens.weight / 2, requires_grad=False)
    model.embed_tokens.weight = halved  # other memory
    for layer, rows in run(model, LENGTHS, graphs=False).items():
        assert torch.equal(run(model, LENGTHS)[layer], rows)


@gpu
def test_graphs_work_inside_and_outside_inference_mode(model: ESM2WithFlashAttention) -> None:
    plain = run(model, LENGTHS, graphs=False)[model.num_layers]
    with torch.inference_mode():
        for _ in range(3):
            assert torch.equal(run(model, LENGTHS)[model.num_layers], plain)
    assert torch.equal(run(model, LENGTHS)[model.num_layers], plain)


@gpu
def test_no_more_graphs_are_kept_than_allowed(model: ESM2WithFlashAttention) -> None:
    for count in range(1, MAX_GRAPHS + 4):
        lengths = (1024,) * count
        plain = run(model, lengths, graphs=False)[model.num_layers]
        for _ in range(3):
            assert torch.equal(run(model, lengths)[model.num_layers], plain)
    assert num_captured(model) == MAX_GRAPHS


@gpu
def test_a_graph_does_not_wait_for_the_device(model: ESM2WithFlashAttention) -> None:
    from tests.integration.test_packed_equivalence import synchronizing_raises

    pack = make_pack(LENGTHS)
    for _ in range(2):
        model.forward_packed(*pack, [model.num_layers])
    with synchronizing_raises():
        model.forward_packed(*pack, [model.num_layers], check=False)
