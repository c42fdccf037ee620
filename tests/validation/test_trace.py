"""The layer trace and the written-out first layer that recognises faults."""

import pytest
import torch

from tests.validation.conftest import MODEL, FakeSubject, make_benchmark
from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.records import SequenceStatus
from virnucpro_monitor.validation import trace as tracing
from virnucpro_monitor.validation.departure import (
    Departure,
    find_departures,
    first_departure,
    is_within_noise,
)
from virnucpro_monitor.validation.hypotheses import explain
from virnucpro_monitor.validation.layer_faults import (
    Surroundings,
    bias_hypotheses,
    head_hypotheses,
    hypotheses,
    rarer_hypotheses,
    weight_hypotheses,
)
from virnucpro_monitor.validation.measure import measure
from virnucpro_monitor.validation.one_layer import Hypothesis, run_layer
from virnucpro_monitor.validation.perturb import reorder
from virnucpro_monitor.validation.tokens import encode
from virnucpro_monitor.validation.trace import trace

TOKENS = encode("MKTAYIAKQRQI")
PREVIOUS, FOLLOWING = encode("DERKHGG"), encode("AILVFMWPGG")
AROUND = Surroundings(
    before=PREVIOUS, after=FOLLOWING, previous=PREVIOUS, following=FOLLOWING, longest=40
)


@pytest.fixture(scope="module")
def fair_esm(weights):
    return load_checkpoint(MODEL, weights.path)[0]


@torch.no_grad()
def test_without_a_fault_it_is_fair_esms_first_layer(fair_esm) -> None:
    exact = fair_esm(TOKENS[None], repr_layers=[1])["representations"][1][0]
    rows, at = run_layer(fair_esm, TOKENS, Hypothesis(name="right", text=""))
    assert at.tolist() == list(range(len(TOKENS)))
    assert float((rows - exact).norm() / exact.norm()) < 1e-5


@torch.no_grad()
def test_a_merged_neighbour_is_fair_esm_on_both_together(fair_esm) -> None:
    both = torch.cat([PREVIOUS, TOKENS])
    exact = fair_esm(both[None], repr_layers=[1])["representations"][1][0, len(PREVIOUS) :]
    merged = Hypothesis(name="merged", text="", left=PREVIOUS)
    rows, _ = run_layer(fair_esm, TOKENS, merged)
    assert float((rows - exact).norm() / exact.norm()) < 1e-5


def every_hypothesis(fair_esm, number: int) -> list[Hypothesis]:
    """Those that leave a trace in a layer; of each name the first, and for layer 1 the last too."""
    heads = fair_esm.layers[0].self_attn.num_heads
    around = AROUND if number == 1 else Surroundings.alone(TOKENS)
    single = [h for h in head_hypotheses(heads) if h.rolled_head in (0, 3, heads - 1)]
    out = [
        Hypothesis(name="head left out", text="", heads_out=heads_out)
        for heads_out in ((0,), (heads - 1,), (2, 5), (1, 2, 3))
    ]
    # So near 1e-5 that rounding hides them.
    hidden = ("LayerNorm epsilon 1e-06", "LayerNorm epsilon 1e-12")
    found = [*hypotheses(len(TOKENS), around), *rarer_hypotheses(len(TOKENS))]
    found += [*weight_hypotheses(), *bias_hypotheses(), *single, *out]
    found = [h for h in found if not h.text.startswith(hidden)]
    first = {h.name: h for h in reversed(found)}
    last = {h.name: h for h in found} if number == 1 else {}
    return [*first.values(), *(h for name, h in last.items() if h is not first[name])]


@pytest.mark.parametrize("number", [1, 4])
@torch.no_grad()
def test_every_hypothesis_is_told_from_all_others(fair_esm, number: int) -> None:
    """What one hypothesis gives is explained by that one, or by one with the same words."""
    checked = set()
    before = fair_esm(TOKENS[None], repr_layers=[number - 1])["representations"][number - 1][0]
    for hypothesis in every_hypothesis(fair_esm, number):
        rows, at = run_layer(fair_esm, TOKENS, hypothesis, number, before if number > 1 else None)
        # Tokens that fell to a neighbour hold what nobody foresees.
        generator = torch.Generator().manual_seed(2)
        seen = torch.randn(len(TOKENS), rows.shape[1], generator=generator)
        seen[at] = rows
        found = explain(fair_esm, TOKENS, seen, AROUND, number, before)
        assert found is not None, hypothesis.text
        assert found.hypothesis.name == hypothesis.name, hypothesis.text
        for field in ("rolled_head", "heads_out", "window", "table", "zero_keys", "rounded"):
            assert getattr(found.hypothesis, field) == getattr(hypothesis, field), hypothesis.text
        checked.add(hypothesis.name)
    assert len(checked) >= (36 if number == 1 else 26)


@torch.no_grad()
def test_a_size_that_is_in_no_list_is_found(fair_esm) -> None:
    tokens = encode("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ" * 3)
    around = Surroundings.alone(tokens)
    for odd in (
        Hypothesis(name="window", text="", window=37),
        Hypothesis(name="rotary table short", text="", table=71, beyond="last"),
        Hypothesis(name="rotary table short", text="", table=len(tokens) - 2, beyond="last"),
    ):
        seen, _ = run_layer(fair_esm, tokens, odd)
        found = explain(fair_esm, tokens, seen, around)
        assert found is not None
        assert (found.hypothesis.window, found.hypothesis.table) == (odd.window, odd.table)
        assert f"{odd.window or odd.table} " in found.hypothesis.text


@pytest.mark.parametrize(
    ("fields", "name", "says"),
    [
        ({"score_factor": 1.01}, "scale off", "attention scores multiplied by 1.01"),
        ({"score_factor": -1.0}, "scale off", "attention scores multiplied by -1"),
        (
            {"score_factor": 0.9, "factor_heads": (6,)},
            "scale off",
            "attention scores of head 7 of 20 multiplied by 0.9",
        ),
        ({"attention_factor": 0.99}, "factor", "what attention adds multiplied by 0.99"),
        ({"feed_forward_factor": 2.5}, "factor", "what the feed-forward part adds multiplied by"),
        ({"residual_factor": 2.0}, "factor", "the residual stream multiplied by 2"),
        ({"position_factor": 0.5}, "factor", "rotary positions multiplied by 0.5"),
    ],
)
@torch.no_grad()
def test_a_factor_is_found_with_its_size(fair_esm, fields, name: str, says: str) -> None:
    before = fair_esm(TOKENS[None], repr_layers=[3])["representations"][3][0]
    seen, _ = run_layer(fair_esm, TOKENS, Hypothesis(name="", text="", **fields), 4, before)
    found = explain(fair_esm, TOKENS, seen, AROUND, 4, before)
    assert found is not None
    assert (found.hypothesis.name, found.hypothesis.text[: len(says)]) == (name, says)


@torch.no_grad()
def test_fair_esm_under_autocast_is_named(fair_esm) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        seen = fair_esm(TOKENS[None], repr_layers=[1])["representations"][1][0].float()
    found = explain(fair_esm, TOKENS, seen, Surroundings.alone(TOKENS))
    assert found is not None
    assert found.hypothesis.text == "matrix products in bfloat16, as autocast makes them"


@torch.no_grad()
def test_rounded_positions_show_where_they_are_no_longer_exact(fair_esm) -> None:
    tokens = encode("MKTAYIAKQR" * 27)
    rounded = torch.arange(len(tokens)).bfloat16().double()
    seen, _ = run_layer(fair_esm, tokens, Hypothesis(name="", text="", positions=rounded))
    found = explain(fair_esm, tokens, seen, Surroundings.alone(tokens))
    assert found is not None
    assert found.hypothesis.name == "rotary bfloat16"


@torch.no_grad()
def test_a_healthy_layer_needs_no_explanation(fair_esm) -> None:
    exact = fair_esm(TOKENS[None], repr_layers=[1])["representations"][1][0]
    assert explain(fair_esm, TOKENS, exact, AROUND) is None


@torch.no_grad()
def test_an_unknown_fault_stays_unnamed(fair_esm) -> None:
    exact = fair_esm(TOKENS[None], repr_layers=[1])["representations"][1][0]
    noise = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    assert explain(fair_esm, TOKENS, exact + 0.3 * noise, AROUND) is None


LIMITS = [1e-7, 1e-6, 1e-6]


@pytest.mark.parametrize(
    ("errors", "departs"),
    [
        ([0.0, 9e-7, 9e-7], None),
        ([0.1, 0.2, 0.3], 0),
        ([0.0, 1e-7, 1e-3], 2),
        ([0.0, None, 1e-3], 1),
        # Beyond rounding, but it cannot have brought about what came after it.
        ([0.0, 2e-6, 0.5], 2),
        ([0.0, 2e-3, 0.5], 1),
    ],
)
def test_first_departure(errors, departs: int | None) -> None:
    assert first_departure(errors, LIMITS) == departs


@pytest.mark.parametrize(
    ("packed", "unpacked", "found"),
    [
        ([0.1, 0.2, 0.3], [0.0, 0.0, 0.0], [Departure(0, "packed")]),
        ([0.0, 0.0, 0.0], [0.1, 0.2, 0.3], [Departure(0, "unpacked")]),
        ([0.1, 0.2, 0.3], [0.11, 0.2, 0.3], [Departure(0, "both sides")]),
        (
            [0.1, 0.2, 0.3],
            [0.0, 0.01, 0.02],
            [Departure(0, "packed"), Departure(1, "unpacked")],
        ),
        ([None, None, None], [None, None, None], [Departure(0, "both sides")]),
        ([0.0, 0.0, 0.0], [], []),
    ],
)
def test_each_side_departs_from_fp32_by_itself(packed, unpacked, found) -> None:
    assert find_departures(packed, unpacked, "float32") == found


def test_the_rounding_of_a_healthy_target_is_no_departure() -> None:
    """Of a target that rounds otherwise than the oracle, on six layers."""
    errors = [0.0, 1.5e-7, 3.9e-7, 6.6e-7, 8.8e-7, 1.0e-6, 1.1e-6]
    assert find_departures(errors, [0.0] * 7, "float32") == []
    assert is_within_noise(errors, "float32")


BENCHMARK = make_benchmark({"a": "MKTAYIAK", "b": "DERKH", "c": "AILVFMWP"})


def traced(fake: FakeSubject) -> dict:
    found = measure(fake, BENCHMARK, None)
    return trace(fake, found.worst, found.batches, None)


def test_without_an_oracle_the_unpacked_side_is_the_reference(fake: FakeSubject) -> None:
    fake.on_packed = lambda rows, pack, layer: rows / 0.88
    found = traced(fake)
    assert found["reference"] == "unpacked"
    assert found["layer"] == 0
    assert found["signature"] == "rescale missing"
    assert found["finding"] == (
        "departs at the embedding: factor 1.136, looks like a missing 0.88 token-dropout rescale"
    )


def test_the_first_wrong_layer_is_named(fake: FakeSubject) -> None:
    fake.on_packed = lambda rows, pack, layer: rows + torch.arange(rows.shape[1]) * (layer >= 1)
    found = traced(fake)
    assert found["layer"] == 1
    assert found["finding"] == "departs in layer 1"
    first = found["sequences"][0]
    assert first["packed"][0] == 0.0
    assert first["packed"][1] > 0.1


def test_nan_is_named_where_it_begins(fake: FakeSubject) -> None:
    fake.on_packed = lambda rows, pack, layer: rows * (float("nan") if layer >= 1 else 1.0)
    assert traced(fake)["finding"] == "not finite from layer 1 on"


def test_a_fault_outside_the_model_is_told(fake: FakeSubject) -> None:
    from dataclasses import replace

    fake.on_pack = lambda packs: [replace(packs[0], sequence_ids=("b", "c", "a"))]
    found = traced(fake)
    assert found["signature"] == "outside"
    assert "ids, boundaries or pooling" in found["finding"]


def double_the_last(packs):
    """The id "c" comes out twice."""
    return [reorder(packs[0], [0, 1, 2, 2])]


def test_the_worst_copy_of_a_doubled_sequence_is_traced(fake: FakeSubject) -> None:
    def ruin_the_second_copy(rows, pack, layer):
        rows = rows.clone()
        if pack.sequence_ids.count("c") == 2 and layer >= 1:
            rows[int(pack.cu_seqlens[3]) :] += torch.arange(rows.shape[1])
        return rows

    fake.on_pack, fake.on_packed = double_the_last, ruin_the_second_copy
    found = traced(fake)
    assert found["sequences"][0]["sequence_id"] == "c"
    assert found["finding"] == "departs in layer 1"


def test_a_doubled_sequence_whose_copies_are_right_has_no_finding(fake: FakeSubject) -> None:
    fake.on_pack = double_the_last
    found = traced(fake)
    assert found["finding"] is None
    assert found["signature"] is None
    assert measure(fake, BENCHMARK, None).worst[0].result.pack == 0


def test_layers_in_parts_are_the_same_trace(
    fake: FakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.on_packed = lambda rows, pack, layer: rows + torch.arange(rows.shape[1]) * (layer >= 1)
    whole = traced(fake)
    asked: list[tuple[int, ...]] = []
    embed = fake.embed_packed_layers

    def embed_layers(batch, layers):
        asked.append(tuple(layers))
        return embed(batch, layers)

    monkeypatch.setattr(fake, "embed_packed_layers", embed_layers)
    monkeypatch.setattr(tracing, "_PART_BYTES", 1)
    assert traced(fake) == whole
    parts = [layers for layers in asked if layers != (2,)]
    # Layer by layer; then layer 1, where it departs, and the one before it.
    assert parts[:3] == [(0,), (1,), (0, 1)]


def test_the_shorter_pack_is_embedded_once(
    fake: FakeSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.slots = 8
    fake.on_packed = lambda rows, pack, layer: rows + torch.arange(rows.shape[1]) * (layer >= 1)
    found = measure(fake, make_benchmark({str(n): "MKTAYIAK"[: n + 1] for n in range(8)}), None)
    asked: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
    embed = fake.embed_packed_layers

    def embed_layers(batch, layers):
        asked.append((batch.sequence_ids, tuple(layers)))
        return embed(batch, layers)

    monkeypatch.setattr(fake, "embed_packed_layers", embed_layers)
    told = trace(fake, found.worst[:1], found.batches, None)
    assert told["finding"] == "departs in layer 1"
    whole = found.batches[0].sequence_ids
    of_set = [one for one in asked if len(one[0]) > 1 and set(one[0]) <= set(whole)]
    assert [(names == whole, layers) for names, layers in of_set] == [
        (True, (2,)),
        (False, (0, 1, 2)),
    ]


def test_a_target_that_lacks_a_layer_is_not_traced_and_no_error(fake: FakeSubject) -> None:
    def last_only(rows, pack, layer):
        if layer != 2:
            raise TargetError(f"no representations[{layer}]")
        return rows * 1.5

    fake.on_packed = last_only
    assert "no representations[0]" in traced(fake)["not_traced"]


def test_rows_of_another_sequence_are_told_from_wrong_ones(fake: FakeSubject) -> None:
    def exchange(rows, pack, layer):
        lengths = pack.cu_seqlens.diff().tolist()
        return torch.cat(rows.split(lengths)[::-1]) if layer == 2 else rows

    fake.on_packed = exchange
    found = traced(fake)
    assert found["signature"] == "rows of others"
    assert "rows of other sequences of the pack" in found["finding"]
    fake.on_packed = lambda rows, pack, layer: rows[:1].expand_as(rows) if layer == 2 else rows
    assert traced(fake)["signature"] != "rows of others"


def test_a_target_without_hidden_layers_is_not_traced(fake: FakeSubject) -> None:
    def last_only(rows, pack, layer):
        if layer != 2:
            raise KeyError(layer)
        return rows * 1.5

    fake.on_packed = last_only
    assert "KeyError" in traced(fake)["not_traced"]


def test_worst_sequences_put_missing_values_first(fake: FakeSubject) -> None:
    def poison(rows, pack, layer):
        rows = rows * torch.linspace(1.0, 1.5, len(rows))[:, None]
        rows[1] = float("nan")
        return rows

    fake.on_packed = poison
    chosen = [one.result for one in measure(fake, BENCHMARK, None).worst]
    assert chosen[0].sequence_id == "a"
    assert chosen[0].status is SequenceStatus.NOT_FINITE
    assert len(chosen) == 2
