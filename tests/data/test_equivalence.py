"""The seed's rule, on models whose packed side is wrong in known ways."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from esm import Alphabet
from torch import Tensor, nn

from virnucpro_monitor.data.packing import validate_packed_equivalence
from virnucpro_monitor.models.esm2_flash import load_esm2_model

CONVERTER = Alphabet.from_architecture("ESM-1b").get_batch_converter()


class Planned(nn.Module):
    """Embeds each token as (1, 0); the packed side turns sequences to planned similarities.

    A sequence is known by its first residue's token.
    """

    num_layers = 2

    def __init__(self, similarity_of: dict[str, float]) -> None:
        super().__init__()
        self.similarity_of = {
            Alphabet.from_architecture("ESM-1b").get_idx(letter): value
            for letter, value in similarity_of.items()
        }

    def forward(self, tokens: Tensor, repr_layers: list[int]) -> dict[str, Any]:
        assert not self.training
        embedding = torch.tensor([1.0, 0.0]).expand(*tokens.shape, 2)
        return {"representations": {repr_layers[0]: embedding}}

    def forward_packed(
        self, input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, repr_layers: list[int]
    ) -> dict[str, Any]:
        embedding = torch.zeros(input_ids.numel(), 2, dtype=torch.float64)
        for start, end in pairwise(cu_seqlens.tolist()):
            cosine = self.similarity_of.get(int(input_ids[start + 1]), 1.0)
            embedding[start:end, 0] = cosine
            embedding[start:end, 1] = math.sqrt(1 - cosine**2) if cosine <= 1 else 0.0
        return {"representations": {repr_layers[0]: embedding}}


def judge(letters: str, similarity_of: dict[str, float], **options: Any) -> Any:
    sequences = [(f"{i}", letter * 5) for i, letter in enumerate(letters)]
    return validate_packed_equivalence(
        Planned(similarity_of), CONVERTER, sequences, "cpu", **options
    )


def test_a_model_on_the_cpu_opens_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork of a process that has counted cards could not: pinning memory opens one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Tensor, "pin_memory", lambda _: pytest.fail("memory was pinned"))
    assert judge("AAM", {})[0]


def test_of_three_sequences_none_may_be_lenient() -> None:
    passed, details = judge("AAM", {"M": 0.997})
    assert not passed
    assert details["failed_sequences"] == []
    assert details["lenient_sequences"] == ["2"]
    assert details["strict_pass_rate"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("lenient", "expected"), [(2, True), (3, False)])
def test_of_two_hundred_sequences_two_may_be_lenient(lenient: int, expected: bool) -> None:
    passed, details = judge("A" * (200 - lenient) + "M" * lenient, {"M": 0.997})
    assert passed is expected
    assert details["allowed_lenient"] == 2
    assert details["min_similarity"] == pytest.approx(0.997)
    assert details["max_similarity"] == pytest.approx(1.0)


def test_one_below_the_lenient_threshold_fails_two_hundred() -> None:
    passed, details = judge("A" * 199 + "M", {"M": 0.99})
    assert not passed
    assert details["failed_sequences"] == ["199"]


def test_the_strict_threshold_itself_is_not_above_it() -> None:
    _, details = judge("A", {}, strict_threshold=1.0)
    assert details["strict_pass_rate"] == 0.0


def test_a_product_just_below_a_whole_number_counts_as_it() -> None:
    _, details = judge("A" * 100, {}, lenient_fraction=0.29)
    assert details["allowed_lenient"] == 29


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_fails(value: float) -> None:
    passed, details = judge("A" * 200 + "M", {"M": value})
    assert not passed
    assert details["failed_sequences"] == details["not_finite"] == ["200"]
    assert math.isnan(details["min_similarity"])
    assert math.isnan(details["per_sequence"]["200"])


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "nothing to validate"),
        ([("a", "MK"), ("a", "MKT")], "two sequences have the id 'a'"),
        ([("a", "MK"), ("b", "")], "sequence 'b' is empty"),
        ([("a", "MKJ")], "sequence 'a' has 'J' at position 3"),
    ],
)
def test_bad_input_is_named(sequences: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_packed_equivalence(Planned({}), CONVERTER, sequences, "cpu")


@pytest.mark.parametrize(
    "options",
    [
        {"strict_threshold": 0.9},
        {"lenient_threshold": math.nan},
        {"strict_threshold": 1.1},
        {"lenient_fraction": -0.1},
    ],
)
def test_thresholds_out_of_order_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"thresholds out of order|lenient_fraction is"):
        judge("A", {}, **options)


def test_the_modules_modes_come_back() -> None:
    model = Planned({})
    model.inner = nn.Dropout().eval()
    model.train()
    model.inner.eval()
    validate_packed_equivalence(model, CONVERTER, [("a", "MK")], "cpu")
    assert model.training
    assert not model.inner.training


def test_more_than_one_pack_and_a_truncated_sequence() -> None:
    sequences = [(f"{i}", "MKTAYIAKQR" * 60) for i in range(9)] + [("long", "MKTAYIAKQR" * 110)]
    passed, details = validate_packed_equivalence(Planned({}), CONVERTER, sequences, "cpu")
    assert passed
    assert details["num_packs"] == 2
    assert details["truncated"] == ["long"]
    assert list(details["per_sequence"]) == [name for name, _ in sequences]


def test_the_real_model_keeps_its_promise_and_comes_back_as_given() -> None:
    model, converter = load_esm2_model("esm2_t6_8M_UR50D", "cpu", weights="synthetic")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sequences = [("a", "MKTAYIAK"), ("b", "VLSPADKTNV" * 4), ("c", "M")]
    passed, details = validate_packed_equivalence(model, converter, sequences, torch.device("cpu"))
    assert passed
    assert details["min_similarity"] > 1 - 1e-9
    assert model.dtype == torch.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_real_leak_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, converter = load_esm2_model("esm2_t6_8M_UR50D", "cpu", weights="synthetic")
    honest = model.forward_packed

    def leaking(input_ids: Tensor, cu_seqlens: Tensor, max_seqlen: int, **options: Any) -> Any:
        merged = torch.cat((cu_seqlens[:1], cu_seqlens[-1:]))
        return honest(input_ids, merged, int(merged[-1]), **options)

    monkeypatch.setattr(model, "forward_packed", leaking)
    sequences = [("a", "MKTAYIAKQR" * 5), ("b", "VLSPADKTNV" * 4)]
    passed, details = validate_packed_equivalence(model, converter, sequences, "cpu")
    assert not passed
    assert sorted(details["failed_sequences"]) == ["a", "b"]
