import math

from app.axes import error_axis


def test_exactly_zero_has_its_own_place_below_every_error() -> None:
    axis = error_axis([0.0, 3e-8, 2e-3])
    assert axis.has_zero
    assert axis.place(0.0) == axis.foot < 3e-8 / 5
    assert axis.place(3e-8) == 3e-8
    settings = axis.settings("error")
    assert settings["tickvals"][0] == axis.foot
    assert settings["ticktext"][0] == "exactly 0"
    low, high = settings["range"]
    assert low < math.log10(axis.foot) < high


def test_without_zeros_no_place_is_marked() -> None:
    axis = error_axis([1e-6, 1e-4])
    assert "exactly 0" not in axis.settings("error")["ticktext"]


def test_what_is_not_finite_stands_above_all_errors() -> None:
    axis = error_axis([1e-6, None, math.inf])
    assert axis.place(None) == axis.place(math.inf) == axis.shelf > 1e-6
    assert axis.settings("error")["ticktext"][-1] == "no value"


def test_thresholds_are_inside_the_axis() -> None:
    axis = error_axis([1e-9], [1e-3, 5e-3])
    assert axis.low <= -9
    assert axis.high > math.log10(5e-3)


def test_an_axis_without_data_can_be_drawn() -> None:
    settings = error_axis([]).settings("error")
    assert settings["range"][0] < settings["range"][1]
    assert settings["tickvals"]


def test_only_zeros_can_be_drawn() -> None:
    axis = error_axis([0.0, 0.0])
    assert axis.low < math.log10(axis.foot) < axis.high
