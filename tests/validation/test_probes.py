"""Probes, on a model whose answers are known."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from tests.validation.conftest import FakeSubject
from virnucpro_monitor.records import ProbeDocument
from virnucpro_monitor.validation import perturb
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.perturb import bounds_of, mask_tokens, other_residues, reorder
from virnucpro_monitor.validation.probe_neighbours import probe_leak
from virnucpro_monitor.validation.probe_packs import Problems, collate, collator_probe
from virnucpro_monitor.validation.probes import run_probes
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.subject import PackedBatch, embed_packed
from virnucpro_monitor.validation.tokens import alphabet, encode

TEXTS = ["MKTAYIAK", "DERKH", "AILVFMWPAILV", "MVHLT", "GGSGG", "MK"]
PAIRS = [(f"p{number}", text) for number, text in enumerate(TEXTS)]


@pytest.fixture
def wide() -> FakeSubject:
    return FakeSubject(slots=6)


def run_leak(subject: FakeSubject) -> ProbeDocument:
    packs = list(subject.pack(PAIRS))
    return probe_leak(subject, packs, [embed_packed(subject, p) for p in packs])


def test_a_healthy_model_has_no_leak(wide: FakeSubject) -> None:
    assert run_leak(wide).value == 0.0


@pytest.mark.parametrize("source", range(6))
@pytest.mark.parametrize("victim", range(6))
def test_a_leak_between_any_two_slots_is_seen(wide: FakeSubject, source: int, victim: int) -> None:
    if source == victim:
        return

    def leak(rows, pack, layer):
        bounds = bounds_of(pack)
        rows = rows.clone()
        # The faintest there is: one unit in the last place of one value.
        mixed = pack.input_ids[bounds[source] + 1] % 2
        place = rows[bounds[victim], 0]
        if mixed:
            rows[bounds[victim], 0] = torch.nextafter(place, place + 1)
        return rows

    wide.on_packed = leak
    found = run_leak(wide)
    assert found.value > 0
    assert f"p{victim}" in found.detail


def test_every_ordered_pair_is_asked_in_two_log_n_passes(wide: FakeSubject) -> None:
    assert run_leak(wide).passes == 6


def test_one_sequence_in_each_pack_is_not_judged() -> None:
    assert run_leak(FakeSubject(slots=1)).not_judged


def test_position_and_order_see_what_depends_on_the_place(wide: FakeSubject, protocol) -> None:
    wide.on_packed = lambda rows, pack, layer: rows * torch.linspace(1, 1.01, len(rows))[:, None]
    found = run_probes(wide, protocol, None)
    assert found["position"].value > 1e-4
    assert found["order"].value > 1e-4
    assert found["leak"].value == 0.0


def test_a_path_that_does_not_repeat_makes_the_leak_test_void(wide, protocol) -> None:
    calls = iter(range(10**6))
    wide.on_packed = lambda rows, pack, layer: rows + 1e-3 * next(calls)
    found = run_probes(wide, protocol, None)
    assert found["repeat"].value > 0
    assert found["repeat"].sides[1] == 0.0
    assert found["leak"].not_judged


def test_an_unpacked_side_that_moves_by_itself_is_not_held_against_packed(wide, protocol) -> None:
    calls = iter(range(10**6))
    wide.on_alone = lambda rows, tokens, layer: rows + 1e-3 * next(calls)
    found = run_probes(wide, protocol, None)
    assert found["state"].value == 0.0
    assert not found["state"].spoils_unpacked
    assert found["repeat"].sides[0] == 0.0
    assert found["repeat"].sides[1] > 0


def test_a_letter_that_is_zeroed_and_counted_does_not_make_layer_0_another_one(
    wide, protocol
) -> None:
    """Each sequence has a factor of its own then, as masks give it too."""

    def zero_x(rows, pack, layer):
        if layer:
            return rows
        rows = rows.clone()
        bounds = bounds_of(pack)
        for start, end in itertools.pairwise(bounds):
            is_x = pack.input_ids[start:end] == alphabet().get_idx("X")
            rows[start:end] /= 1 - is_x.float().mean()
            rows[start:end][is_x] = 0.0
        return rows

    wide.on_packed = zero_x
    assert run_probes(wide, protocol, None)["embedding"].value > 0.01


def test_sequences_under_each_others_ids_are_told_from_letters_read_as_others(wide) -> None:
    wide.on_pack = lambda packs: [
        replace(pack, sequence_ids=pack.sequence_ids[::-1]) for pack in packs
    ]
    problems = Problems()
    collate(wide, [("a", "C"), ("b", "H"), ("c", "K")], "", problems)
    assert problems.signature is not None
    assert problems.signature.name == "ids exchanged"


def test_masks_that_only_one_side_rescales_are_seen(wide, protocol) -> None:
    def rescale(rows, tokens, layer):
        # A constant would cancel in no measure; a shift of some channels does not.
        masked = (tokens == alphabet().mask_idx).float().mean()
        return rows + masked * torch.arange(rows.shape[1])

    wide.on_alone = rescale
    found = run_probes(wide, protocol, None)
    assert found["mask"].value > 0.01
    assert found["embedding"].value > 0.01


def test_nan_in_a_probe_fails_its_gate(wide, protocol) -> None:
    wide.on_packed = lambda rows, pack, layer: torch.full_like(rows, float("nan"))
    found = run_probes(wide, protocol, None)
    for name in ("repeat", "leak", "position", "order", "embedding", "mask"):
        assert found[name].value is None
        assert found[name].not_judged is None


def test_own_layer_numbers_are_not_taken_for_a_fault(wide, protocol) -> None:
    def numbered_late(rows, pack, layer):
        return rows * torch.linspace(1, 2, len(rows))[:, None] if layer == 0 else rows

    wide.on_packed = numbered_late
    assert "own way" in run_probes(wide, protocol, None)["embedding"].not_judged


def test_a_few_wrong_rows_of_the_embedding_are_a_fault(wide, protocol) -> None:
    def scale_some(rows, pack, layer):
        return torch.cat((rows[:2] * 0.88, rows[2:])) if layer == 0 else rows

    wide.on_packed = scale_some
    assert run_probes(wide, protocol, None)["embedding"].value > 0.01


def test_a_target_without_layer_0_is_not_judged(wide, protocol) -> None:
    def refuse(rows, pack, layer):
        if layer == 0:
            raise KeyError(0)
        return rows

    wide.on_packed = refuse
    assert "KeyError" in run_probes(wide, protocol, None)["embedding"].not_judged


def test_the_embedding_is_held_against_the_checkpoint(subject, oracle, protocol) -> None:
    found = run_probes(subject, protocol, oracle)["embedding"]
    assert found.value < 1e-6
    assert found.factor == pytest.approx(1.0, abs=1e-6)


def test_expected_embedding_is_fair_esms(weights, oracle) -> None:
    from virnucpro_monitor.models.weights import load_checkpoint

    model, _ = load_checkpoint("esm2_t6_8M_UR50D", weights.path)
    table = torch.from_numpy(oracle.embedding.copy())
    for fraction in (0.0, 0.15, 0.5):
        tokens = mask_tokens(encode("MKTAYIAKQRQISFVKSHFSRQ"), fraction)
        with torch.no_grad():
            layer_0 = model(tokens[None], repr_layers=[0])["representations"][0][0]
        exact = perturb.expected_embedding(table, tokens)
        assert torch.allclose(layer_0.double(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("fraction", [0.0, 0.15, 0.5])
def test_masks_are_spread_and_counted(fraction: float) -> None:
    tokens = encode("A" * 40)
    masked = mask_tokens(tokens, fraction) == alphabet().mask_idx
    assert int(masked.sum()) == int(40 * fraction)
    assert not masked[0]
    assert not masked[-1]


def test_every_standard_residue_is_replaced_and_nothing_else() -> None:
    tokens = encode("LAGVSERTIDPKQNFYMHWCXBUZO")
    changed = other_residues(tokens)
    assert bool((changed[1:21] != tokens[1:21]).all())
    assert sorted(changed[1:21].tolist()) == sorted(tokens[1:21].tolist())
    assert torch.equal(changed[21:], tokens[21:])
    assert changed[0] == tokens[0]


def test_reordering_moves_whole_sequences(wide: FakeSubject) -> None:
    (pack,) = wide.pack(PAIRS)
    moved = reorder(pack, [5, 0, 1, 2, 3, 4])
    assert moved.sequence_ids == ("p5", "p0", "p1", "p2", "p3", "p4")
    start, end = bounds_of(moved)[0:2]
    assert torch.equal(moved.input_ids[start:end], encode("MK"))
    assert moved.cu_seqlens.dtype == pack.cu_seqlens.dtype


def test_boundaries_in_16_bits_are_seen_without_a_card(subject) -> None:
    """Beyond 32,767 tokens they wrap round, and no shorter pack shows it."""

    class InSixteenBits(BuiltinSubject):
        def pack(
            self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
        ) -> Iterator[PackedBatch]:
            for batch in super().pack(sequences, per_call=per_call):
                bounds = batch.cu_seqlens.to(torch.int16).to(torch.int32)
                yield replace(batch, cu_seqlens=bounds)

    wrapping = InSixteenBits(subject.model, subject.batch_converter, model_name=subject.model_name)
    definition = load_protocol().content["probes"]["collator"]
    assert definition["tokens"] > 32_767
    for asked, wrong in ((subject, 0.0), (wrapping, 33.0)):
        problems = Problems()
        collator_probe(asked, definition, problems)
        assert problems.document().value == wrong
    assert set(problems.wrong.values()) == {"with boundaries that do not rise from 0"}
    problems = Problems()
    collator_probe(wrapping, {**definition, "tokens": 32_000}, problems)
    assert problems.document().value == 0.0
