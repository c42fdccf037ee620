"""The residue trace: which residues of the worst sequences are off, and on which side."""

from dataclasses import replace

import pytest
import torch

from tests.validation.conftest import FakeSubject, make_benchmark
from virnucpro_monitor.records import Json, Outcome
from virnucpro_monitor.validation.faults import FAULTS
from virnucpro_monitor.validation.faulty_subject import FaultySubject
from virnucpro_monitor.validation.measure import measure
from virnucpro_monitor.validation.residue_trace import trace_residues
from virnucpro_monitor.validation.validate import validate_subject

BENCHMARK = make_benchmark({"a": "MKTAYIAK", "b": "DERKH", "c": "AILVFMWP"})


def traced(fake: FakeSubject) -> list[dict[str, Json]]:
    found = measure(fake, BENCHMARK, None)
    document = trace_residues(BENCHMARK, found.worst, None)
    return document["sequences"]


def test_the_residue_that_is_off_stands_out(fake: FakeSubject) -> None:
    def spoil(rows: torch.Tensor, pack: object, layer: int) -> torch.Tensor:
        rows[1 + 4] = -rows[1 + 4]  # residue 4 of the first sequence, behind its BOS
        return rows

    fake.on_packed = spoil
    first = traced(fake)[0]
    assert first["sequence_id"] == "a"
    assert first["residues"] == "MKTAYIAK"
    errors = first["errors"]["packed_unpacked"]
    assert errors[4] == pytest.approx(2.0)
    assert errors[:4] + errors[5:] == pytest.approx([0.0] * 7, abs=1e-12)
    assert first["relative_l2"]["packed_unpacked"] == pytest.approx([0, 0, 0, 0, 2, 0, 0, 0])


def test_a_gain_shows_in_relative_l2_alone(fake: FakeSubject) -> None:
    fake.on_packed = lambda rows, pack, layer: rows * 1.25
    first = traced(fake)[0]
    assert first["errors"]["packed_unpacked"] == pytest.approx([0.0] * 8, abs=1e-12)
    assert first["relative_l2"]["packed_unpacked"] == pytest.approx([0.25] * 8)


def test_what_is_not_finite_is_none(fake: FakeSubject) -> None:
    def poison(rows: torch.Tensor, pack: object, layer: int) -> torch.Tensor:
        rows[2] = float("nan")
        return rows

    fake.on_packed = poison
    first = traced(fake)[0]
    for measure_name in ("errors", "relative_l2"):
        values = first[measure_name]["packed_unpacked"]
        assert [place for place, value in enumerate(values) if value is None] == [1]


def test_rows_of_other_residues_are_not_compared(fake: FakeSubject) -> None:
    fake.on_pack = lambda packs: [replace(packs[0], sequence_ids=("b", "c", "a"))]
    # "b" got the eight rows of "a", and "c" the five of "b".
    for one in traced(fake):
        assert one["sequence_id"] in ("b", "c")
        assert one["errors"] == one["relative_l2"] == {}


def test_a_failed_run_is_traced_against_the_oracle_too(
    subject, benchmark_set, oracle, protocol
) -> None:
    fault = next(
        fault for fault in FAULTS if fault.name == "one residue replaced after the last layer"
    )
    faulty = FaultySubject(subject, fault)
    verdict = validate_subject(faulty, benchmark_set, oracle=oracle, protocol=protocol)
    assert verdict.outcome is Outcome.FAILED
    lengths = {s.sequence_id: s.length for s in verdict.sequences}
    sequences = verdict.documents["residues"]["sequences"]
    assert 1 <= len(sequences) <= 3
    for one in sequences:
        assert set(one["errors"]) == set(one["relative_l2"])
        assert set(one["errors"]) == {"packed_unpacked", "packed", "unpacked"}
        for values in (*one["errors"].values(), *one["relative_l2"].values()):
            assert len(values) == lengths[one["sequence_id"]] == len(one["residues"])
        stored = next(s for s in verdict.sequences if s.sequence_id == one["sequence_id"])
        worst = max(one["errors"]["packed_unpacked"])
        assert worst == pytest.approx(1 - stored.worst_residue_similarity, rel=1e-3)
        assert max(one["errors"]["unpacked"]) < 1e-5 < max(one["errors"]["packed"])


def test_a_passed_run_has_no_trace(fake: FakeSubject, protocol) -> None:
    verdict = validate_subject(fake, BENCHMARK, oracle=None, protocol=protocol)
    assert verdict.outcome is Outcome.PASSED
    assert "residues" not in verdict.documents
