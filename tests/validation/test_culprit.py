"""Whose fault it is: a gate that sees a side itself outranks one that only sees a difference."""

import pytest

from virnucpro_monitor.records import Culprit, GateResult
from virnucpro_monitor.validation.verdict import find_culprit


def failing(name: str, culprit: Culprit | None) -> GateResult:
    return GateResult(name=name, passed=False, value=1.0, limit=0.1, unit="", culprit=culprit)


@pytest.mark.parametrize("side", [Culprit.PACKED, Culprit.UNPACKED])
@pytest.mark.parametrize("sided", ["oracle", "baseline", "leak", "repeat"])
def test_a_gate_that_sees_its_side_outranks_the_seed_s_inference(sided: str, side: Culprit) -> None:
    other = Culprit.PACKED if side is Culprit.UNPACKED else Culprit.UNPACKED
    assert find_culprit([failing("seed", other), failing(sided, side)]) is side
    assert find_culprit([failing("seed", other)]) is other


def test_an_unpacked_pass_that_changes_the_weights_is_to_blame_for_what_both_show() -> None:
    packed, unpacked = failing("ceiling", Culprit.PACKED), failing("baseline", Culprit.UNPACKED)
    changed = failing("weights", Culprit.UNPACKED)
    assert find_culprit([packed, unpacked, changed]) is Culprit.UNPACKED
    assert find_culprit([packed, unpacked, failing("weights", Culprit.BOTH)]) is Culprit.BOTH


def test_two_gates_that_see_other_sides_blame_both() -> None:
    gates = [failing("leak", Culprit.PACKED), failing("baseline", Culprit.UNPACKED)]
    assert find_culprit(gates) is Culprit.BOTH
