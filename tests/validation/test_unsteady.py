"""Passes that give other values each time: dropout is right on average, a race is not."""

import pytest
import torch

from tests.validation.conftest import FakeSubject
from virnucpro_monitor.validation.unsteady import name_unsteady


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize(("drift", "name"), [(0.0, "dropout"), (3.0, "not repeatable")])
def test_dropout_is_told_in_whatever_layer_it_begins(
    fake: FakeSubject, first: int, drift: float, name: str
) -> None:
    generator = torch.Generator().manual_seed(5)

    def stir(rows, pack, layer):
        if layer < first:
            return rows
        noise = torch.randn(rows.shape, generator=generator)
        return rows + 0.1 * (noise + drift * torch.rand(1, generator=generator))

    fake.on_packed = stir
    (batch,) = fake.pack([("a", "MKTAYIAK"), ("b", "DERKH")])
    found = name_unsteady(fake, fake.embed_unpacked_layers, batch)
    assert found is not None
    assert found.name == name


def test_a_steady_pack_has_no_name(fake: FakeSubject) -> None:
    (batch,) = fake.pack([("a", "MKTAYIAK")])
    assert name_unsteady(fake, fake.embed_unpacked_layers, batch) is None
