"""The small table of recognised faults."""

import pytest
import torch

from tests.validation.conftest import MODEL
from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.validation import embedding_faults, outside, signatures
from virnucpro_monitor.validation.embedding_faults import (
    name_embedding_fault,
)
from virnucpro_monitor.validation.layer_faults import Surroundings
from virnucpro_monitor.validation.one_layer import Hypothesis, run_layer
from virnucpro_monitor.validation.perturb import expected_embedding, mask_tokens
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.signatures import (
    describe,
    describe_few_rows,
)
from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import alphabet, encode

TOKENS = encode("MKTAYIAKQRQISFVKSHFSRQ")
ALONE = Surroundings(*(TOKENS[:0],) * 4, longest=len(TOKENS))


@pytest.fixture(scope="module")
def fair_esm(weights):
    return load_checkpoint(MODEL, weights.path)[0]


@pytest.fixture(scope="module")
def exact(fair_esm) -> dict[int, torch.Tensor]:
    layers = list(range(fair_esm.num_layers + 1))
    with torch.no_grad():
        found = fair_esm(TOKENS[None], repr_layers=layers)["representations"]
    return {layer: rows[0] for layer, rows in found.items()}


def finding(departs: int, exact, seen_there: torch.Tensor, model) -> tuple[str, str | None]:
    """What is said of a packed side that is right up to layer `departs`."""
    seen = {**exact, departs: seen_there}
    with torch.no_grad():
        text, signature, _ = describe(
            departs, "packed", seen, exact, model, TOKENS, ALONE, max(exact)
        )
    return text, signature.name if signature else None


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (1 / 0.88, "rescale missing"),
        (0.88, "rescale twice"),
        (-1.0, "sign"),
        (0.0, "zero"),
        (1.0, None),
        (1.2, None),
        (float("nan"), None),
    ],
)
def test_embedding_factors(factor: float, name: str | None) -> None:
    table = torch.randn(33, 16, generator=torch.Generator().manual_seed(3))
    exact = expected_embedding(table, TOKENS)
    found = name_embedding_fault(factor * exact, exact, TOKENS)
    assert (found.name if found else None) == name


def test_the_names_are_unique() -> None:
    modules = (signatures, embedding_faults, outside)
    found = {v for module in modules for v in vars(module).values() if isinstance(v, Signature)}
    assert len(found) >= 15
    assert len({signature.name for signature in found}) == len(found)


def test_a_missing_final_norm_is_told_from_a_layer_off_by_one(fair_esm, exact) -> None:
    last = max(exact)
    with torch.no_grad():
        stream = exact[last - 1][:, None]
        before_norm = fair_esm.layers[last - 1](stream)[0][:, 0]
    assert finding(last, exact, before_norm, fair_esm)[1] == "final norm missing"
    assert finding(last, exact, exact[last - 1], fair_esm)[1] == "layer off by one"
    # Where the last layer adds little, both are near and the nearer one is named.
    near = {**exact, last - 1: before_norm + 1e-3 * exact[last - 1]}
    assert finding(last, near, near[last - 1], None)[1] == "layer off by one"


@torch.no_grad()
def test_a_fault_inside_the_last_layer_is_named_behind_the_final_norm(fair_esm, exact) -> None:
    last = max(exact)
    wrong = Hypothesis(name="", text="", causal=True)
    rows, _ = run_layer(fair_esm, TOKENS, wrong, last, exact[last - 1])
    found = finding(last, exact, fair_esm.emb_layer_norm_after(rows), fair_esm)
    assert found == ("departs in layer 6 attention: looks like causal attention", "causal")
    noise = torch.randn(exact[last].shape, generator=torch.Generator().manual_seed(4))
    unknown = finding(last, exact, exact[last] + 0.3 * noise, fair_esm)
    assert unknown == ("departs in the last layer or after it", None)


@torch.no_grad()
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"zero_keys": 3}, "3 keys of zeros attended to, as padding without a mask"),
        ({"first_hidden": 1}, "the sequence's first key left out of attention"),
        (
            {"first_hidden": 1, "hidden_keys": 1},
            "the sequence's first and last key left out of attention",
        ),
    ],
)
def test_keys_are_counted(fair_esm, exact, wrong: dict[str, int], text: str) -> None:
    """As they are, not as the nearest of those that are tried first."""
    rows, _ = run_layer(fair_esm, TOKENS, Hypothesis(name="", text="", **wrong), 2, exact[1])
    found, _ = finding(2, exact, rows, fair_esm)
    assert found == f"departs in layer 2 attention: looks like {text}"


@torch.no_grad()
def test_another_epsilon_of_the_final_norm_is_named(fair_esm, exact) -> None:
    last, norm = max(exact), fair_esm.emb_layer_norm_after
    stream = fair_esm.layers[last - 1](exact[last - 1][:, None])[0][:, 0]
    rows = torch.nn.functional.layer_norm(stream, stream.shape[1:], norm.weight, norm.bias, 1e-3)
    text, name = finding(last, exact, rows, fair_esm)
    assert name == "final norm epsilon"
    assert text.endswith("a final LayerNorm with epsilon 0.001 instead of 1e-5")


@torch.no_grad()
def test_of_an_unpacked_side_no_boundaries_are_told(fair_esm, exact) -> None:
    cut = Hypothesis(name="boundary late", text="", skip_first=1)
    rows, at = run_layer(fair_esm, TOKENS, cut)
    seen = {**exact, 1: exact[1].clone()}
    seen[1][at] = rows
    asked = (seen, exact, fair_esm, TOKENS, ALONE, max(exact))
    named = {side: describe(1, side, *asked)[1] for side in ("packed", "unpacked")}
    assert named["packed"].name == "boundary late"
    assert named["unpacked"].text == "its first token left out of attention"


def test_a_hidden_layer_off_by_one_in_the_middle(fair_esm, exact) -> None:
    text, name = finding(3, exact, exact[2], fair_esm)
    assert name == "layer off by one"
    assert text == "departs in layer 3: looks like a hidden layer off by one"


def test_not_finite_is_named_with_its_layer(fair_esm, exact) -> None:
    ruined = exact[2].clone()
    ruined[5, 0] = float("inf")
    text, name = finding(2, exact, ruined, fair_esm)
    assert (text, name) == ("not finite from layer 2 on", "not finite")


@pytest.mark.parametrize("layer", [4, 6])
def test_a_single_row_that_holds_anothers(fair_esm, exact, layer: int) -> None:
    ruined = exact[layer].clone()
    ruined[7] = exact[layer][3]
    text, name = finding(layer, exact, ruined, fair_esm)
    assert name == "rows replaced"
    assert text.startswith("departs after the last layer: " if layer == 6 else "departs in layer 4")
    assert "only 1 of 22 residues is wrong (residue 7, which holds the row of residue 3)" in text


@torch.no_grad()
def test_a_row_that_a_known_fault_moves_most_is_not_taken_for_overwritten(
    fair_esm, exact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one residue does that looks at the dropped key alone, with trained weights."""
    monkeypatch.setattr(
        signatures, "describe_few_rows", lambda *_: "only 1 of 22 residues is wrong"
    )
    rows, _ = run_layer(fair_esm, TOKENS, Hypothesis(name="", text="", hidden_keys=1))
    assert finding(1, exact, rows, fair_esm)[1] == "last key dropped"
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(4))
    assert finding(1, exact, exact[1] + 0.3 * noise, fair_esm)[1] == "rows replaced"


def test_single_rows_of_unknown_origin_and_noise() -> None:
    right = torch.randn(202, 64, generator=torch.Generator().manual_seed(0))
    ruined = right.clone()
    ruined[[10, 100]] = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    found = describe_few_rows(ruined, right)
    assert found is not None
    assert found.startswith("only 2 of 200 residues are wrong (residue 10")
    assert "holds" not in found
    noise = 1e-2 * torch.randn(202, 64, generator=torch.Generator().manual_seed(2))
    assert describe_few_rows(right + noise, right) is None
    assert describe_few_rows(right + 100 * noise, right) is None
    assert describe_few_rows(right[:4], right[:4]) is None


def embedded(
    zeroed: bool, rescaled: bool, ratio: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(packed, exact, tokens) of a half-masked sequence whose embedding has a fault."""
    table = torch.randn(33, 16, generator=torch.Generator().manual_seed(3))
    tokens = mask_tokens(TOKENS, 0.5)
    masked = tokens == alphabet().mask_idx
    exact = expected_embedding(table, tokens)
    packed = exact.clone()
    if not zeroed:
        packed[masked] = table.double()[alphabet().mask_idx]
    if not rescaled:
        packed *= 1.0 - float(masked.double().mean())
    if not ratio:
        packed /= 0.88
    return packed, exact, tokens


@pytest.mark.parametrize(
    ("zeroed", "rescaled", "ratio", "name"),
    [
        (False, True, True, "mask not zeroed"),
        (True, False, True, "mask rescale missing"),
        (True, True, False, "rescale missing"),
        (False, False, False, "token dropout off"),
        (True, True, True, None),
    ],
)
def test_mask_faults(zeroed: bool, rescaled: bool, ratio: bool, name: str | None) -> None:
    found = name_embedding_fault(*embedded(zeroed, rescaled, ratio))
    assert (found.name if found else None) == name


def test_no_explanation_speaks_of_what_the_sequence_does_not_hold() -> None:
    """Token dropout is off, and the quoted sequence has no <mask>: the factor is all it shows."""
    table = torch.randn(33, 16, generator=torch.Generator().manual_seed(3))
    exact = expected_embedding(table, TOKENS)
    found = name_embedding_fault(exact / 0.88, exact, TOKENS)
    assert found is not None
    assert found.name == "rescale missing"
    assert "<mask>" not in found.text
    assert name_embedding_fault(exact * float("nan"), exact, TOKENS) is None
    assert name_embedding_fault(exact * 1.3, exact, TOKENS) is None


def named_plainly(seen: torch.Tensor, exact: torch.Tensor, table: torch.Tensor) -> str | None:
    found = name_embedding_fault(seen, exact, TOKENS, table=table)
    return found.name if found else None


def test_rows_of_other_tokens_are_not_taken_for_masks_left_in() -> None:
    table = torch.randn(33, 16, generator=torch.Generator().manual_seed(3))
    tokens = mask_tokens(TOKENS, 0.5)
    exact = expected_embedding(table, tokens)
    masked = tokens == alphabet().mask_idx

    def named(read: torch.Tensor) -> str:
        seen = exact.clone()
        seen[masked] = 0.9 * table.double()[read[masked]]
        found = name_embedding_fault(seen, exact, tokens, table=table)
        assert found is not None
        return found.text

    assert named(tokens) == "<mask> tokens that are not zeroed"
    assert named(torch.full_like(tokens, alphabet().get_idx("X"))) == "<mask> read as X"
    assert "as a stale cache gives" in named(TOKENS)
    plain = expected_embedding(table, TOKENS)
    other = expected_embedding(table, encode("GGSDERKHVLSPADKTNVKAAW"))
    assert named_plainly(other, plain, table) == "other tokens' rows"
    without_k = torch.where(TOKENS.eq(alphabet().get_idx("K"))[:, None], 0.0, plain)
    found = name_embedding_fault(without_k, plain, TOKENS, table=table)
    assert found is not None
    assert found.text == "K set to zero"


def test_a_share_of_masks_among_residues_alone_is_named() -> None:
    _, exact, tokens = embedded(True, True)
    count, masked = len(tokens), int((tokens == alphabet().mask_idx).sum())
    seen = exact * (1 - masked / count) / (1 - masked / (count - 2))
    found = name_embedding_fault(seen, exact, tokens)
    assert found is not None
    assert found.name == "mask rescale of residues"


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (encode("C"), None),  # nothing else in it tells that it is the same sequence
        (torch.cat([TOKENS[:1], TOKENS]), "bos doubled"),
        (torch.cat([TOKENS[-1:], TOKENS[1:-1], TOKENS[:1]]), "bos and eos swapped"),
        (torch.cat([TOKENS, TOKENS[-1:]]), "eos doubled"),
    ],
)
def test_token_faults(tokens: torch.Tensor, name: str | None) -> None:
    found = outside.name_token_fault(TOKENS if name else encode("H"), tokens)
    assert (found.name if found else None) == name


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((0, 24, 31), None),
        ((0, 25, 31), ("ends 1 token late", "begins 1 token late")),
        ((0, 23, 31), ("ends 1 token early", "begins 1 token early")),
        ((0, 22, 31), ("ends 2 tokens early", "begins 2 tokens early")),
    ],
)
def test_a_boundary_that_is_off_takes_no_token_away(
    bounds: tuple[int, ...], said: tuple[str, str] | None
) -> None:
    own = TOKENS, encode("DERKH")
    batch = PackedBatch(
        input_ids=torch.cat(own),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32),
        max_seqlen=24,
        sequence_ids=("a", "b"),
    )
    for slot, tokens in enumerate(own):
        found = outside.name_slot_fault(tokens, batch, slot)
        if said is None:
            assert found is None
            continue
        assert found is not None
        assert found.text == f"`cu_seqlens` is off: the sequence {said[slot]}"


def test_several_embedding_faults_are_named_together() -> None:
    packed, exact, tokens = embedded(False, False)
    found = name_embedding_fault(packed, exact, tokens)
    assert found is not None
    assert "observed share" in found.text
    assert "not zeroed" in found.text


def test_the_share_of_the_whole_pack_is_told_from_the_sequences_own() -> None:
    _, exact, tokens = embedded(True, True)
    own = float((tokens == alphabet().mask_idx).double().mean())
    packed = exact * (1.0 - own) / (1.0 - 0.2)
    found = name_embedding_fault(packed, exact, tokens, pack_share=0.2)
    assert found is not None
    assert found.name == "mask rescale of the pack"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_the_table_tells(dtype: torch.dtype) -> None:
    table = torch.randn(33, 16, generator=torch.Generator().manual_seed(3))
    exact = expected_embedding(table, TOKENS)
    rounded = expected_embedding(table.to(dtype).float(), TOKENS)
    found = name_embedding_fault(rounded, exact, TOKENS, table=table)
    assert found is not None
    assert found.name == f"weights {str(dtype).removeprefix('torch.')}"
    other = TOKENS.clone()
    other[alphabet().get_idx("Q") == TOKENS] = alphabet().get_idx("X")
    found = name_embedding_fault(expected_embedding(table, other), exact, TOKENS, table=table)
    assert found is not None
    assert (found.name, found.text) == ("letters", "Q read as X")


def test_tokens_that_are_not_the_sequences_own() -> None:
    other = TOKENS.clone()
    other[alphabet().get_idx("Q") == TOKENS] = alphabet().get_idx("X")
    shuffled = TOKENS.clone()
    shuffled[1:-1] = shuffled[1:-1].roll(5)
    for tokens, name in (
        (TOKENS, None),
        (TOKENS[:-1], "eos missing"),
        (TOKENS[1:], "bos missing"),
        (TOKENS[1:-1], "bos and eos missing"),
        (torch.cat([TOKENS[:9], TOKENS[-1:]]), "cut short"),
        (torch.cat([TOKENS[:1], TOKENS[1:-1].flip(0), TOKENS[-1:]]), "reversed"),
        (other, "letters"),
        (shuffled, None),
        (encode("DERKH"), None),
    ):
        found = outside.name_token_fault(TOKENS, tokens)
        assert (found.name if found else None) == name
    found = outside.name_token_fault(TOKENS, other)
    assert found is not None
    assert found.text == "Q read as X in the packed tokens"
