"""Products whose epilogues pass beside other products, against their plain twins in FP64."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.models.errors import relative_l2
from tests.models.gluon_twin import Twin
from tests.models.triton_device import DEVICE, HALF_DTYPES
from virnucpro_monitor.models import tiles
from virnucpro_monitor.models.overlapped_kernel import GELU, ROTATE
from virnucpro_monitor.models.rotary import rotate
from virnucpro_monitor.models.tiles import can_overlap, gelu_overlaps, rotation_overlaps
from virnucpro_monitor.models.weights import MODEL_SHAPES

HOPPER = can_overlap(torch.device(DEVICE))
needs_hopper = pytest.mark.skipif(not HOPPER, reason="needs Hopper")
ROUNDING = {torch.float16: 3e-4, torch.bfloat16: 2.5e-3}
HALVES = pytest.mark.parametrize("dtype", HALF_DTYPES)
# One row, a tile and a bit, and so many that both groups of a multiprocessor take several tiles.
ROWS = pytest.mark.parametrize("rows", [1, 130, 128 * 150 + 5])


def test_the_kernel_compiles_for_hopper_without_one(tmp_path: Path) -> None:
    """In a process of its own: this one may run Triton's interpreter."""
    script = Path(__file__).with_name("compile_overlapped.py")
    environment = {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(script.parents[2])}
    finished = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    # By Hopper's own instructions.
    assert "wgmma.mma_async" in finished.stdout
    assert "cp.async.bulk.tensor" in finished.stdout


class Drawn:
    """Operands of a twin's product, float16, and the product in FP64."""

    def __init__(self, rows: int, depth: int, columns: int, head_dim: int = 64) -> None:
        self.generator = np.random.default_rng(0)
        self.x, self.weight = self.draw(rows, depth), self.draw(columns, depth)
        self.bias, self.out = self.draw(columns), self.draw(rows, columns)
        self.weight /= depth**0.5
        angles = self.generator.random((rows, head_dim // 2)) * 6
        self.tables = (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
        self.product = torch.from_numpy(self.x.astype(float) @ self.weight.astype(float).T)

    def draw(self, *size: int) -> Any:
        return self.generator.standard_normal(size).astype(np.float16)

    def run(self, epilogue: int, head_dim: int = 64) -> Tensor:
        """By two programs, each of which has an odd number of tiles or one more than the other."""
        Twin().run(
            self.x, self.weight, self.out, self.bias, self.tables,
            epilogue=epilogue, stages=5, head_dim=head_dim, programs=2,
        )  # fmt: skip
        return torch.from_numpy(self.out)


# More steps than the ring has places, and the last of them, of the rows and of the columns cut off.
def test_groups_of_warps_wait_for_each_other_and_give_gelu() -> None:
    drawn = Drawn(rows=700, depth=480, columns=448)
    expected = functional.gelu(drawn.product + torch.from_numpy(drawn.bias))
    assert relative_l2(drawn.run(GELU), expected) < ROUNDING[torch.float16]


@pytest.mark.parametrize(("width", "head_dim"), [(320, 16), (320, 32), (128, 64)])
def test_groups_of_warps_turn_q_and_k(width: int, head_dim: int) -> None:
    drawn = Drawn(300, width, 3 * width, head_dim)
    wide = (drawn.product + torch.from_numpy(drawn.bias)).float()
    q, k, v = wide.view(300, 3, -1, head_dim).unbind(1)
    cos, sin = (torch.from_numpy(table)[:, None] for table in drawn.tables)
    turned = (rotate(q * head_dim**-0.5, cos, sin), rotate(k, cos, sin), v)
    expected = torch.stack(turned, 1).flatten(1)
    assert relative_l2(drawn.run(ROTATE, head_dim), expected) < ROUNDING[torch.float16]


def random(*size: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(sum(size))
    return torch.randn(*size, generator=generator).to(DEVICE, dtype)


def make_linear(depth: int, columns: int, dtype: torch.dtype) -> torch.nn.Linear:
    linear = torch.nn.Linear(depth, columns, device=DEVICE, dtype=dtype).requires_grad_(False)
    linear.weight.copy_(random(columns, depth, dtype=dtype) / depth**0.5)
    linear.bias.copy_(random(columns, dtype=dtype))
    return linear


def product(x: Tensor, linear: torch.nn.Linear) -> Tensor:
    return functional.linear(x.double(), linear.weight.double(), linear.bias.double())


@pytest.mark.gpu
@needs_hopper
@HALVES
@ROWS
@pytest.mark.parametrize(("depth", "columns"), [(480, 1920), (1280, 448)])
def test_gelu(rows: int, depth: int, columns: int, dtype: torch.dtype) -> None:
    from virnucpro_monitor.models.overlapped import linear_gelu

    x, linear = random(rows, depth, dtype=dtype), make_linear(depth, columns, dtype)
    expected = functional.gelu(product(x, linear))
    assert relative_l2(linear_gelu(x, linear), expected) < ROUNDING[dtype]


@pytest.mark.gpu
@needs_hopper
@HALVES
@ROWS
@pytest.mark.parametrize(("heads", "head_dim"), [(20, 16), (20, 32), (5, 64)])
def test_rotation(rows: int, heads: int, head_dim: int, dtype: torch.dtype) -> None:
    from virnucpro_monitor.models.overlapped import linear_rotate

    width = heads * head_dim
    x, linear = random(rows, width, dtype=dtype), make_linear(width, 3 * width, dtype)
    angles = random(rows, head_dim // 2, dtype=torch.float32)
    cos, sin = angles.cos(), angles.sin()
    found = linear_rotate(x, linear, cos, sin, heads).view(rows, 3, heads, head_dim)
    q, k, v = product(x, linear).float().view(rows, 3, heads, head_dim).unbind(1)
    cos, sin = cos[:, None], sin[:, None]
    expected = (rotate(q * head_dim**-0.5, cos, sin), rotate(k, cos, sin), v)
    for part, wanted in zip(found.unbind(1), expected, strict=True):
        assert relative_l2(part, wanted) < ROUNDING[dtype]


def test_packs_are_multiplied_so_where_it_won(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured on a card, and was ahead there."""
    monkeypatch.setattr(tiles, "can_overlap", lambda device: True)
    shapes = MODEL_SHAPES.values()
    packs = [
        (torch.empty(rows, shape.embed_dim, device="meta"), shape.num_heads)
        for rows in (1, 8191, 8192, 16384)
        for shape in shapes
    ]
    small = [(rows, width) for rows in (1, 8191) for width in (320, 480, 640)]
    many = [(rows, width) for rows in (8192, 16384) for width in (320, 480, 640, 1280)]
    assert [tuple(x.shape) for x, _ in packs if gelu_overlaps(x)] == [
        size for size in small + many if size[1] != 320
    ]
    assert [tuple(x.shape) for x, heads in packs if rotation_overlaps(x, heads)] == [
        size for size in small + many if size[1] != 480
    ]
    monkeypatch.setattr(tiles, "can_overlap", lambda device: False)
    assert not any(gelu_overlaps(x) or rotation_overlaps(x, heads) for x, heads in packs)
