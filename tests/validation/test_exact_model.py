"""The oracle model is asked once for what a trace asks often, and keeps no more than it may."""

from types import SimpleNamespace

import pytest
import torch

from virnucpro_monitor.validation import exact_model
from virnucpro_monitor.validation.exact_model import ExactModel

WIDTH = 4


class Counted:
    """Rows that tell token and layer; notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[int]]] = []

    def parameters(self):
        yield SimpleNamespace(device=torch.device("cpu"))

    def __call__(self, tokens: torch.Tensor, repr_layers: list[int]) -> dict[str, object]:
        self.asked.append((tokens.shape[1], repr_layers))
        rows = tokens[..., None].float().expand(-1, -1, WIDTH)
        return {"representations": {layer: rows + 100 * layer for layer in repr_layers}}


def test_layers_are_asked_for_once() -> None:
    model = Counted()
    exact = ExactModel(model)
    tokens, other = torch.tensor([0, 5, 2]), torch.tensor([0, 6, 2])
    for layers in ([0, 1, 2], [2], [1, 0]):
        found = exact.layers(tokens, layers)
        assert {layer: rows[1, 0].item() for layer, rows in found.items()} == {
            layer: 5 + 100 * layer for layer in layers
        }
    assert model.asked == [(3, [0, 1, 2])]
    assert exact.layers(other, [2])[2][1, 0] == 206
    assert exact.layers(tokens, [3])[3][1, 0] == 305
    assert exact.layers(tokens, [2, 3])[2][1, 0] == 205  # what was kept before stays
    assert model.asked[1:] == [(3, [2]), (3, [3])]


def test_the_first_of_too_many_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    two = torch.tensor([0, 2])
    monkeypatch.setattr(exact_model, "_KEPT_BYTES", 2 * two.numel() * WIDTH * 4)
    model = Counted()
    exact = ExactModel(model)
    for token in (1, 2, 3):
        exact.layers(two + token, [0])
    exact.layers(two + 3, [0])
    exact.layers(two + 2, [0])
    assert len(model.asked) == 3
    exact.layers(two + 1, [0])  # given up for the third
    exact.layers(torch.arange(9), [0])  # more than may be kept at all: nothing goes for it
    exact.layers(two + 1, [0])
    exact.layers(torch.arange(9), [0])
    assert [count for count, _ in model.asked] == [2, 2, 2, 2, 9, 9]
