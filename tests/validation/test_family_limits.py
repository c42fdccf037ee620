"""Limits of families without evidence: ESM-2's, or wider by their own noise, and said so."""

from functools import partial

import pytest

from tests.validation.test_gates import sequence
from virnucpro_monitor.records import NoiseDocument, to_json
from virnucpro_monitor.validation import gates
from virnucpro_monitor.validation.family_limits import limits_of_family
from virnucpro_monitor.validation.protocol import limits_for, load_protocol

LIMITS = limits_for(load_protocol(), "float32")


judge = partial(gates.judge_gates, protocol=load_protocol(), limits_name="float32")


def noise(reordered: float | None) -> NoiseDocument:
    return NoiseDocument(packed_repeat=0.0, unpacked_repeat=0.0, reordered=reordered)


@pytest.mark.parametrize(
    ("share", "factor"), [(0.0, 1.0), (0.2, 1.0), (0.5, 1.5), (2.0, 6.0), (100.0, 10.0)]
)
def test_noise_beyond_a_third_of_the_limit_widens_it_up_to_ten_times(
    share: float, factor: float
) -> None:
    found = limits_of_family("prott5", noise(share * LIMITS["order"]), LIMITS)
    assert found.factor == pytest.approx(factor)
    assert found.family == "prott5"


def test_without_probes_the_limits_stay() -> None:
    assert limits_of_family("e1", None, LIMITS).factor == 1.0
    assert limits_of_family("e1", noise(None), LIMITS).factor == 1.0


def test_a_stored_run_is_judged_by_its_own_limits_and_says_so() -> None:
    off = sequence(gain=1.0 + 2 * LIMITS["gain"])
    own = limits_of_family("prott5", noise(LIMITS["order"]), LIMITS)
    judged = {
        name: {gate.name: gate for gate in judge([off], documents)}
        for name, documents in (("esm2", {}), ("prott5", {"limits": to_json(own)}))
    }
    assert judged["esm2"]["gain"].passed is False
    gain = judged["prott5"]["gain"]
    assert gain.passed is True
    assert gain.limit == pytest.approx(3 * LIMITS["gain"])
    assert gain.detail.endswith("Provisional for prott5, 3 x ESM-2's by this run's own noise.")
    # What must be exactly so, and the seed's own rule, have no limit to widen.
    assert "Provisional" not in judged["prott5"]["seed"].detail
    assert "Provisional" not in judged["prott5"]["finite"].detail
