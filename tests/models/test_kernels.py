"""Each Triton kernel against its plain twin in FP64."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models.errors import relative_l2
from tests.models.triton_device import DEVICE, HALF_DTYPES, MARKS
from virnucpro_monitor.models.packed_attention import Pack, packed_attention
from virnucpro_monitor.models.rotary import RotaryTables, rotate

pytestmark = MARKS
ROUNDING = {torch.float16: 3e-4, torch.bfloat16: 2.5e-3}
HALVES = pytest.mark.parametrize("dtype", HALF_DTYPES)
# ESM-2's heads. The interpreter runs one after the other: it gets a quarter of them, which is no
# power of two either.
_MANY = 20 if DEVICE == "cuda" else 5
HEADS = pytest.mark.parametrize(
    ("heads", "head_dim"), [(_MANY, 16), (_MANY, 24), (_MANY, 32), (_MANY, 64), (4, 128)]
)
LENGTHS = (5, 63, 64, 65, 1, 128, 3, 200)


def make_pack(lengths: tuple[int, ...] = LENGTHS) -> Pack:
    cu_seqlens = torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()
    return Pack.from_cu_seqlens(cu_seqlens, max(lengths), sum(lengths))


def random(*size: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(*size, generator=generator).to(DEVICE, dtype)


@HALVES
@pytest.mark.parametrize("width", [320, 480, 2560])
def test_embeddings_are_the_plain_ones_bit_for_bit(width: int, dtype: torch.dtype) -> None:
    from virnucpro_monitor.models.kernels import embed

    pack, mask = make_pack(), 32
    table = random(33, width, dtype=dtype)
    table[mask] = torch.nan  # its row must not be read
    tokens = torch.arange(pack.num_tokens, device=DEVICE) * 7 % 29 + 4
    masked = tokens == mask
    assert bool(masked.any())
    counts = torch.zeros(pack.num_sequences, dtype=torch.int64, device=DEVICE)
    counts.index_add_(0, pack.sequence_index, masked.long())
    num_masked = counts[pack.sequence_index]
    length = pack.cu_seqlens.diff()[pack.sequence_index]
    found = embed(tokens, table, masked, num_masked, length, scale=0.88)
    wide = table[tokens].masked_fill(masked[:, None], 0).float()
    expected = wide * 0.88 / (1 - num_masked.float() / length)[:, None]
    assert torch.equal(found, expected.to(dtype))


def test_one_count_for_all_rows_is_not_read_beyond() -> None:
    from virnucpro_monitor.models.kernels import embed

    table = random(33, 320, dtype=torch.float16)
    tokens = torch.arange(70, device=DEVICE) % 29 + 4
    masked = tokens == 32
    # What lies behind the one count is no count.
    memory = torch.tensor([2, *[40] * 99], device=DEVICE)
    count, length = memory[:1].expand(70), torch.full((70,), 70, device=DEVICE)
    found = embed(tokens, table, masked, count, length, scale=0.88)
    wide = table[tokens].masked_fill(masked[:, None], 0).float()
    expected = wide * 0.88 / (1 - torch.tensor(2.0, device=DEVICE) / 70)
    assert torch.equal(found, expected.half())


@HALVES
@pytest.mark.parametrize("stream", ["same", "float32"])
@pytest.mark.parametrize("width", [320, 480, 1280, 2560, 5120])
def test_norm_of_a_shifted_stream(width: int, stream: str, dtype: torch.dtype) -> None:
    from virnucpro_monitor.models.kernels import shifted_norm

    norm = torch.nn.LayerNorm(width, device=DEVICE, dtype=dtype).requires_grad_(False)
    norm.weight.normal_()
    norm.bias.normal_()
    hidden = random(37, width, dtype=dtype if stream == "same" else torch.float32)
    shift = random(width, dtype=torch.float32)
    before = hidden.clone()
    normed = shifted_norm(hidden, shift, norm)
    assert normed.dtype == dtype
    assert torch.equal(hidden, before)
    expected = functional.layer_norm(
        hidden.double() + shift.double(),
        (width,),
        norm.weight.double(),
        norm.bias.double(),
        norm.eps,
    )
    assert relative_l2(normed, expected) < ROUNDING[dtype]


@HALVES
@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [(130, 320, 1280), (37, 480, 1920), (130, 1280, 512), (37, 2560, 256)],
)
def test_linear_and_gelu(
    rows: int, depth: int, columns: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_monitor.models import linear_gelu as module
    from virnucpro_monitor.models.linear_gelu import linear_gelu

    monkeypatch.setattr(module, "gelu_overlaps", lambda x: False)
    linear = torch.nn.Linear(depth, columns, device=DEVICE, dtype=dtype).requires_grad_(False)
    x = random(rows, depth, dtype=dtype) * 3
    expected = functional.gelu(
        functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    )
    assert relative_l2(linear_gelu(x, linear), expected) < ROUNDING[dtype]


@HALVES
def test_gelu_is_the_exact_one(dtype: torch.dtype) -> None:
    from virnucpro_monitor.models.kernels import gelu_

    x = random(33, 1283, dtype=dtype) * 3
    expected = functional.gelu(x.double())
    result = gelu_(x)
    assert result.data_ptr() == x.data_ptr()
    assert relative_l2(result, expected) < ROUNDING[dtype]


def test_gelu_errs_by_little_of_what_float16_rounds_away() -> None:
    from virnucpro_monitor.models.kernels import gelu_

    x = torch.cat((torch.linspace(-12, 12, 4001), torch.tensor([-65504.0, 65504.0]))).to(DEVICE)
    expected = functional.gelu(x.double())
    # float16's spacing at the value, 2**-24 where it is smallest
    spacing = torch.exp2(expected.abs().clamp(min=2**-14).log2().floor() - 10)
    assert bool(((gelu_(x.clone()).double() - expected).abs() < 0.02 * spacing).all())


@HALVES
@HEADS
def test_rotation_by_position_in_the_sequence(
    heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    from virnucpro_monitor.models.kernels import rotate_

    pack = make_pack()
    inv_freq = 1.0 / (10000 ** (torch.arange(0, head_dim, 2).float() / head_dim))
    cos, sin = RotaryTables(inv_freq).get(pack.max_seqlen, torch.device(DEVICE))
    qkv = random(pack.num_tokens, 3 * heads * head_dim, dtype=dtype)
    q, k, v = qkv.clone().view(-1, 3, heads, head_dim).unbind(1)
    rotate_(qkv, cos, sin, pack.positions, heads)
    turned_q, turned_k, kept_v = qkv.view(-1, 3, heads, head_dim).unbind(1)
    cos, sin = cos[pack.positions, None], sin[pack.positions, None]
    assert relative_l2(turned_q, rotate(q.float() * head_dim**-0.5, cos, sin)) < ROUNDING[dtype]
    assert relative_l2(turned_k, rotate(k.float(), cos, sin)) < ROUNDING[dtype]
    assert torch.equal(kept_v, v)


@HALVES
@HEADS
def test_bias_and_rotation_of_a_wide_product(heads: int, head_dim: int, dtype: torch.dtype) -> None:
    from virnucpro_monitor.models.kernels import add_bias_and_rotate

    pack = make_pack()
    inv_freq = 1.0 / (10000 ** (torch.arange(0, head_dim, 2).float() / head_dim))
    cos, sin = RotaryTables(inv_freq).get(pack.max_seqlen, torch.device(DEVICE))
    product = random(pack.num_tokens, 3 * heads * head_dim, dtype=torch.float32)
    bias = random(3 * heads * head_dim, dtype=dtype)
    result = add_bias_and_rotate(product, bias, cos, sin, pack.positions, heads)
    assert result.dtype == dtype
    parts = (product + bias.float()).view(-1, 3, heads, head_dim).unbind(1)
    cos, sin = cos[pack.positions, None], sin[pack.positions, None]
    expected = (rotate(parts[0] * head_dim**-0.5, cos, sin), rotate(parts[1], cos, sin), parts[2])
    for found, wanted in zip(result.view(-1, 3, heads, head_dim).unbind(1), expected, strict=True):
        assert relative_l2(found, wanted) < ROUNDING[dtype]


@HALVES
def test_projection_with_its_rotation(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    from virnucpro_monitor.models import linear_rotate as module
    from virnucpro_monitor.models.linear_rotate import can_rotate, linear_rotate
    from virnucpro_monitor.models.tiles import has_tensor_copies

    monkeypatch.setattr(module, "rotation_overlaps", lambda x, num_heads: False)
    if not has_tensor_copies(torch.device(DEVICE)):
        pytest.skip("this GPU is older than Hopper")
    pack, heads, head_dim, width = make_pack(), 4, 64, 256
    device = torch.device(DEVICE)
    assert can_rotate(torch.empty(3, width, device=device, dtype=torch.bfloat16), heads)
    narrow = torch.empty(3, 480, device=device, dtype=torch.bfloat16)
    assert not can_rotate(narrow, 20)  # a head would end inside a tile
    inv_freq = 1.0 / (10000 ** (torch.arange(0, head_dim, 2).float() / head_dim))
    tables = RotaryTables(inv_freq).get(pack.max_seqlen, torch.device(DEVICE))
    cos, sin = (table[pack.positions] for table in tables)
    linear = torch.nn.Linear(width, 3 * width, device=DEVICE, dtype=dtype).requires_grad_(False)
    x = random(pack.num_tokens, width, dtype=dtype)
    found = linear_rotate(x, linear, cos, sin, heads).view(-1, 3, heads, head_dim).unbind(1)
    wide = functional.linear(x.double(), linear.weight.double(), linear.bias.double()).float()
    q, k, v = wide.view(-1, 3, heads, head_dim).unbind(1)
    cos, sin = cos[:, None], sin[:, None]
    expected = (rotate(q * head_dim**-0.5, cos, sin), rotate(k, cos, sin), v)
    for part, wanted in zip(found, expected, strict=True):
        assert relative_l2(part, wanted) < ROUNDING[dtype]


@HALVES
@HEADS
def test_attention_inside_each_sequence(heads: int, head_dim: int, dtype: torch.dtype) -> None:
    from virnucpro_monitor.models.attention_kernel import attention, tiling_of

    pack = make_pack()
    qkv = random(pack.num_tokens, 3, heads, head_dim, dtype=dtype)
    q, k, v = qkv.unbind(1)
    q = q * head_dim**-0.5
    result = attention(q, k, v, pack.query_blocks(tiling_of(head_dim).queries))
    expected = packed_attention(q.double(), k.double(), v.double(), pack, "sdpa")
    assert relative_l2(result, expected) < 2 * ROUNDING[dtype]


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")  # interpreter
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # interpreter
@pytest.mark.parametrize("head_dim", [24, 64])
def test_attention_reads_nothing_of_a_neighbour(head_dim: int) -> None:
    """Not even a NaN, which a weight of 0 would not keep out."""
    from virnucpro_monitor.models.attention_kernel import attention, tiling_of

    pack = make_pack((40, 70, 30))
    qkv = random(pack.num_tokens, 3, 4, head_dim, dtype=torch.float16)
    blocks = pack.query_blocks(tiling_of(head_dim).queries)
    honest = attention(*qkv.unbind(1), blocks)
    qkv[40:110] = torch.nan
    spoiled = attention(*qkv.unbind(1), blocks)
    assert torch.equal(honest[:40], spoiled[:40])
    assert torch.equal(honest[110:], spoiled[110:])
    assert bool(spoiled[40:110].isnan().all())


def test_every_query_is_in_one_block() -> None:
    from virnucpro_monitor.models.attention_kernel import query_blocks

    pack = make_pack()
    blocks = query_blocks(pack.cu_seqlens, pack.num_tokens, 64).T.tolist()
    assert [tuple(block) for block in blocks if block[1]] == [
        (begin, length, first)
        for begin, length in zip(pack.cu_seqlens.tolist(), LENGTHS, strict=False)
        for first in range(0, length, 64)
    ]
