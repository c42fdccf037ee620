"""Measuring and validating: coverage, finite values, both sides, and what is compared."""

from dataclasses import replace

import pytest
import torch

from tests.validation.conftest import FakeSubject, make_benchmark
from virnucpro_monitor.errors import BenchmarkError, ConfigurationError, TargetError
from virnucpro_monitor.models.families import FAMILIES
from virnucpro_monitor.records import Culprit, Outcome, SequenceStatus, Verdict
from virnucpro_monitor.validation.measure import measure
from virnucpro_monitor.validation.perturb import reorder
from virnucpro_monitor.validation.tokens import alphabet
from virnucpro_monitor.validation.validate import validate_subject
from virnucpro_monitor.validation.verdict import judge

BENCHMARK = make_benchmark(
    {"a": "MKTAYIAK", "b": "DERKH", "c": "AILVFMWP", "d": "MVHLT", "e": "GG"}
)


def failing(verdict: Verdict) -> set[str]:
    return {gate.name for gate in verdict.gates if gate.passed is False}


def test_the_healthy_model_passes_every_gate(subject, benchmark_set, oracle, protocol) -> None:
    verdict = validate_subject(subject, benchmark_set, oracle=oracle, protocol=protocol)
    assert verdict.outcome is Outcome.PASSED
    assert all(gate.passed is True for gate in verdict.gates)
    assert {gate.name for gate in verdict.gates} == {
        *("coverage", "finite", "tokens", "seed", "gain", "residue"),
        *("oracle", "ceiling", "baseline"),
        *("repeat", "leak", "position", "order", "embedding", "mask"),
        *("collator", "weights", "unwritten", "probes", "state"),
    }
    assert [s.sequence_id for s in verdict.sequences] == [s.id for s in benchmark_set.sequences]
    assert verdict.documents["packs"]["num_packs"] == 2
    assert verdict.figures.num_tokens == sum(len(s.residues) + 2 for s in benchmark_set.sequences)
    assert verdict.documents["noise"]["packed_repeat"] == 0.0
    assert verdict.figures.packed_s > 0


def test_an_oracle_of_something_else_is_refused(subject, oracle, protocol, benchmark_set) -> None:
    with pytest.raises(ConfigurationError, match="another benchmark set"):
        validate_subject(subject, BENCHMARK, oracle=oracle, protocol=protocol)
    with pytest.raises(ConfigurationError, match="weights"):
        validate_subject(
            subject, benchmark_set, oracle=oracle, protocol=protocol, weights_digest="f" * 64
        )
    other = replace(oracle, model_name="esm2_t12_35M_UR50D")
    with pytest.raises(ConfigurationError, match="35M"):
        validate_subject(subject, benchmark_set, oracle=other, protocol=protocol)


def test_wrong_tokens_are_a_failure_whatever_they_break(fake, protocol) -> None:
    fake.on_pack = lambda packs: [
        replace(pack, cu_seqlens=pack.cu_seqlens - torch.arange(len(pack.cu_seqlens)).int())
        for pack in packs
    ]

    def refuse(rows, pack, layer):
        if int(pack.cu_seqlens[-1]) != len(rows):
            raise RuntimeError("The size of tensor a must match")
        return rows

    fake.on_packed = refuse
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)
    assert failing(verdict) == {"tokens", "collator"}
    assert verdict.culprit is Culprit.PACKED
    assert verdict.figures.num_failed == 0

    fake.on_pack = lambda packs: packs
    fake.on_packed = lambda rows, pack, layer: [][0]
    with pytest.raises(IndexError):  # the tokens are right: it is the target that cannot be run
        validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)


def test_a_pass_that_writes_into_its_input_is_told_so_and_harms_no_other(fake, protocol) -> None:
    def write(rows, pack, layer):
        if layer == fake.num_layers:
            pack.input_ids[0] = alphabet().padding_idx
        return rows

    fake.on_packed = write
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)
    assert failing(verdict) == {"state"}
    assert verdict.culprit is Culprit.PACKED
    assert "a pass of packed changed the `input_ids` that it was given, by up to 1" in (
        verdict.reason
    )
    assert verdict.documents["trace"]["signature"] == "input changed"

    def write_alone(rows, tokens, layer):
        if layer == fake.num_layers:
            tokens[0] = alphabet().padding_idx
        return rows

    fake.on_packed, fake.on_alone = (lambda rows, pack, layer: rows), write_alone
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)
    assert failing(verdict) == {"state"}
    assert verdict.culprit is Culprit.UNPACKED


def test_a_run_says_when_it_nears_its_end(fake, protocol) -> None:
    seen: list[str] = []

    def near(factor: float, loading_s: float = 0) -> int:
        """Where it is said among the ids of what is packed, whose rows are so many times right."""
        seen.clear()
        fake.on_packed = lambda rows, pack, layer: seen.extend(pack.sequence_ids) or factor * rows
        validate_subject(
            fake,
            BENCHMARK,
            oracle=None,
            protocol=protocol,
            on_nearing_end=lambda: seen.append(""),
            loading_s=loading_s,
        )
        assert seen.count("") == 1
        return seen.index("")

    place, of_set = near(1), {sequence.id for sequence in BENCHMARK.sequences}
    assert of_set < set(seen[:place])
    assert not of_set & set(seen[place:])
    assert {name.partition("_")[0] for name in seen[place:]} >= {"probe", "long", "three"}
    place = near(2)
    assert of_set & set(seen[place:])  # explained beside the next one
    fake.token_budget = 20
    place = near(1, loading_s=60)
    assert 0 < len(of_set & set(seen[:place])) < len(of_set)  # once a pack has told of its pace


def test_without_an_oracle_the_seed_and_the_probes_are_judged(fake, protocol) -> None:
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)
    assert verdict.outcome is Outcome.PASSED
    judged = {gate.name: gate.passed for gate in verdict.gates}
    assert [judged[name] for name in ("oracle", "ceiling", "baseline")] == [None, None, None]
    assert judged["seed"] is judged["leak"] is True
    assert verdict.reason.startswith("Packed equals unpacked, correctness unknown")
    assert verdict.documents["oracle"] == {"kind": "none", "digest": ""}
    assert verdict.sequences[0].packed_relative_l2 is None


def test_a_family_without_masks_has_that_gate_not_judged_and_limits_of_its_own(
    fake, protocol
) -> None:
    family = FAMILIES["prott5"].facts
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol, family=family)
    gates = {gate.name: gate for gate in verdict.gates}
    assert gates["mask"].passed is None
    assert gates["mask"].detail == "No token of prott5 hides a residue."
    assert verdict.documents["limits"] == {"family": "prott5", "factor": 1.0}
    assert gates["order"].detail.endswith("Provisional for prott5.")
    assert verdict.reason.endswith("limits are provisional for prott5.")
    # Judged again from what is stored, it says the same.
    again = judge(verdict.sequences, verdict.documents, protocol, limits_name="float32")
    assert {gate.name: gate for gate in again.gates}["order"] == gates["order"]


def test_probes_can_be_left_out(fake, protocol) -> None:
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol, probes=False)
    assert "probes" not in verdict.documents
    assert "leak" not in {gate.name for gate in verdict.gates}


def test_a_lost_and_a_doubled_and_an_unknown_id(fake: FakeSubject) -> None:
    def change(packs):
        first = reorder(packs[0], [0, 1, 2, 2])
        return [replace(first, sequence_ids=("a", "stranger", "c", "c")), *packs[1:]]

    fake.on_pack = change
    found = measure(fake, BENCHMARK, None)
    statuses = {s.sequence_id: s.status for s in found.sequences}
    assert statuses == {
        "a": SequenceStatus.OK,
        "b": SequenceStatus.LOST,
        "c": SequenceStatus.DOUBLED,
        "d": SequenceStatus.LOST,
        "e": SequenceStatus.OK,
    }
    assert found.packs.unknown_ids == ("stranger",)
    for lost in (found.sequences[1], found.sequences[2]):
        assert lost.similarity is None
        assert lost.length == len(BENCHMARK.sequences[lost.index].residues)


def test_a_doubled_id_fails_but_its_worst_copy_is_still_measured(fake: FakeSubject) -> None:
    def change(packs):
        return [reorder(packs[0], [0, 1, 2, 2]), *packs[1:]]

    def shrink_the_second_copy(rows: torch.Tensor, batch, layer: int) -> torch.Tensor:
        rows = rows.clone()
        if batch.sequence_ids.count("c") == 2:
            rows[int(batch.cu_seqlens[3]) :] *= 0.5
        return rows

    fake.on_pack = change
    fake.on_packed = shrink_the_second_copy
    doubled = measure(fake, BENCHMARK, None).sequences[2]
    assert doubled.status is SequenceStatus.DOUBLED
    assert doubled.similarity is None
    assert doubled.gain == pytest.approx(0.5)
    assert doubled.slot == 3


@pytest.mark.parametrize(("side", "culprit"), [("packed", "packed"), ("alone", "unpacked")])
def test_nan_is_never_skipped_and_names_its_side(
    fake: FakeSubject, protocol, side: str, culprit: str
) -> None:
    def poison(rows: torch.Tensor, *arguments: object) -> torch.Tensor:
        rows = rows.clone()
        rows[2, 0] = float("nan")
        return rows

    setattr(fake, f"on_{side}", poison)
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol, probes=False)
    assert verdict.outcome is Outcome.FAILED
    assert {"finite", "seed", "gain", "residue"} <= failing(verdict)
    assert verdict.culprit == culprit
    assert verdict.sequences[0].status is SequenceStatus.NOT_FINITE
    assert verdict.sequences[0].similarity is None


def test_swapped_ids_fail_although_every_row_is_right(fake: FakeSubject, protocol) -> None:
    fake.on_pack = lambda packs: [
        replace(packs[0], sequence_ids=("b", "a", "c", "d")),
        *packs[1:],
    ]
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol, probes=False)
    assert {"tokens", "seed"} <= failing(verdict)
    assert verdict.culprit is Culprit.PACKED


def test_a_boundary_off_by_one_in_the_collator_fails(fake: FakeSubject, protocol) -> None:
    def shift(packs):
        bounds = packs[0].cu_seqlens.clone()
        bounds[1] += 1
        return [replace(packs[0], cu_seqlens=bounds), *packs[1:]]

    fake.on_pack = shift
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol, probes=False)
    assert {"tokens", "residue"} <= failing(verdict)
    # Residues of another number cannot be compared one by one.
    assert verdict.sequences[0].worst_residue_similarity is None


def test_an_empty_segment_is_a_lost_sequence(fake: FakeSubject) -> None:
    def empty(packs):
        bounds = packs[0].cu_seqlens.clone()
        bounds[1] = 1
        return [replace(packs[0], cu_seqlens=bounds), *packs[1:]]

    fake.on_pack = empty
    assert measure(fake, BENCHMARK, None).sequences[0].status is SequenceStatus.LOST


def test_measures_are_those_of_their_own_pack_place(fake: FakeSubject) -> None:
    found = measure(fake, BENCHMARK, None)
    assert [(s.pack, s.slot, s.offset) for s in found.sequences] == [
        (0, 0, 0),
        (0, 1, 10),
        (0, 2, 17),
        (0, 3, 27),
        (1, 0, 0),
    ]


def test_a_gain_shows_in_gain_and_relative_l2_only(fake: FakeSubject) -> None:
    fake.on_packed = lambda rows, pack, layer: rows * 1.1
    first = measure(fake, BENCHMARK, None).sequences[0]
    assert first.similarity == pytest.approx(1.0, abs=1e-12)
    assert first.gain == pytest.approx(1.1, rel=1e-6)
    assert first.relative_l2 == pytest.approx(0.1, rel=1e-5)


def test_a_long_sequence_is_cut_alike_on_both_sides(fake: FakeSubject) -> None:
    benchmark = make_benchmark({"long": "MKTAYIAK" * 150})
    (result,) = measure(fake, benchmark, None).sequences
    assert result.length == 1022
    assert result.truncated
    assert result.similarity == pytest.approx(1.0)


def test_progress_reaches_all_sequences(fake: FakeSubject) -> None:
    seen: list[tuple[int, int]] = []
    measure(fake, BENCHMARK, None, lambda done, total: seen.append((done, total)))
    assert seen == [(number, 5) for number in range(1, 6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence_ids": ("a",)}, "1 ids but 4 boundaries"),
        ({"cu_seqlens": torch.tensor([1, 2, 3, 4, 5])}, "rise from 0"),
        ({"cu_seqlens": torch.tensor([0, 10, 5, 20, 34])}, "rise from 0"),
    ],
)
def test_a_pack_that_breaks_the_interface_is_a_target_error(
    fake: FakeSubject, change: dict, message: str
) -> None:
    fake.on_pack = lambda packs: [replace(packs[0], **change)]
    with pytest.raises(TargetError, match=message):
        measure(fake, BENCHMARK, None)


def test_rows_of_the_wrong_shape_are_a_target_error(fake: FakeSubject) -> None:
    fake.on_packed = lambda rows, pack, layer: rows[:-1]
    with pytest.raises(TargetError, match="tokens"):
        measure(fake, BENCHMARK, None)


def test_other_channels_packed_than_alone_are_a_target_error(fake: FakeSubject) -> None:
    fake.on_packed = lambda rows, pack, layer: rows[:, :-1]
    with pytest.raises(TargetError, match="channels packed and"):
        measure(fake, BENCHMARK, None)


def test_a_character_outside_the_alphabet_is_named(fake: FakeSubject) -> None:
    with pytest.raises(BenchmarkError, match="'1'"):
        measure(fake, make_benchmark({"x": "MK1"}), None)
