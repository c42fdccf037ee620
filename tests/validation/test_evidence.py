"""Evidence for limits: what healthy runs are, and what is kept of them."""

import pytest

from tests.protocols import with_content
from virnucpro_monitor.validation import evidence
from virnucpro_monitor.validation.evidence import collect_evidence, freeze_limits
from virnucpro_monitor.validation.harmless import CONTROLS
from virnucpro_monitor.validation.kill_matrix import narrowest
from virnucpro_monitor.validation.protocol import limit_names


def test_evidence_is_collected_from_healthy_runs(
    subject, benchmark_set, oracle, protocol, weights
) -> None:
    from virnucpro_monitor.models.weights import load_checkpoint

    reference = load_checkpoint(subject.model_name, weights.path)[0]
    found = collect_evidence(
        subject, benchmark_set, oracle, protocol, num_runs=4, reference=reference
    )
    assert found["num_runs"] == 4
    assert found["worst"].keys() == set(limit_names("2"))
    assert 0 < found["worst"]["ceiling"] < 1e-4
    assert found["failed"] == []
    assert found["margins"]["leak"] is None
    assert found["margins"]["ceiling"] > 3
    assert found["seed"] == 0
    limits = freeze_limits([{**found, "num_runs": 200}])["float32"]
    assert limits["ceiling"] >= 3 * found["worst"]["ceiling"]


def test_a_limit_below_the_healthy_value_shows_as_a_failed_run(
    subject, benchmark_set, oracle, protocol
) -> None:
    def tighten(content: dict) -> None:
        content["limits"][f"float32, {subject.model_name}"]["ceiling"] = 1e-12

    found = collect_evidence(
        subject, benchmark_set, oracle, with_content(protocol, tighten), num_runs=1
    )
    assert len(found["failed"]) == 1


def test_healthy_runs_are_shuffled_by_the_seed_and_take_every_rewriting(subject) -> None:
    pairs = [(f"p{number}", "MKTAYIAK" + "G" * number) for number in range(7)]
    (pack,) = subject.pack(pairs)

    count = 3 * len(CONTROLS)

    def orders(seed: int) -> list[tuple[str, ...]]:
        return [v.on_batch(pack).sequence_ids for v in evidence.healthy_runs(count, seed)]

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert len(set(orders(1))) == count
    variants = list(evidence.healthy_runs(count, 1))
    assert [v.name for v in variants[2::3]] == [control.name for control in CONTROLS]
    assert len({v.token_budget for v in variants}) >= 5
    for rewriting, control in zip(variants[2::3], CONTROLS, strict=True):
        assert rewriting.patches is control.patches
        assert control.token_budget in (None, rewriting.token_budget)


def test_the_exact_probes_can_be_left_out(subject, benchmark_set, oracle, protocol) -> None:
    full = collect_evidence(subject, benchmark_set, oracle, protocol, num_runs=1)
    short = collect_evidence(
        subject, benchmark_set, oracle, protocol, num_runs=1, exact_probes=False
    )
    assert short["worst"] == full["worst"]
    assert full["margins"].keys() - short["margins"].keys() == {
        *("leak", "repeat", "state", "unwritten", "weights", "collator")
    }


@pytest.mark.parametrize(
    ("first", "second", "narrower"),
    [({"gain": 4.0}, {"gain": 3.0}, 3.0), ({"gain": None}, {"gain": 3.0}, 3.0)],
)
def test_the_narrower_margin_is_kept(first: dict, second: dict, narrower: float) -> None:
    assert narrowest([first, second]) == {"gain": narrower}
    assert narrowest([second, first]) == {"gain": narrower}
    assert narrowest([{}, {"gain": None}]) == {"gain": None}
