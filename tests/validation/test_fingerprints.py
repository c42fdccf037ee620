"""Whether a pass changes the weights is told of those that a target shows, and else not judged."""

from types import SimpleNamespace
from typing import Any

import torch

from virnucpro_monitor.records import Culprit
from virnucpro_monitor.validation.fingerprints import WeightsWatch, fingerprints, judge_weights


def judged(tensors: dict[str, torch.Tensor]) -> Any:
    subject: Any = SimpleNamespace(tensors=lambda: tensors)
    seen = fingerprints(tensors)
    return judge_weights(subject, WeightsWatch(seen, seen, seen), checkpoint=None)


def test_a_target_that_shows_no_weights_is_not_judged_by_them() -> None:
    told = judged({})
    assert told.value is None
    assert told.not_judged == "The target shows no parameters or buffers (tensors)."


def test_weights_that_no_pass_changes_pass() -> None:
    told = judged({"w": torch.ones(3)})
    assert (told.value, told.not_judged) == (0.0, None)
    assert told.covers == "1 parameters and buffers before and after"


def test_who_changes_weights_is_told_by_what_ran_before() -> None:
    weights = {"w": torch.zeros(3)}
    subject: Any = SimpleNamespace(tensors=lambda: weights)

    def watched(*changes: float) -> WeightsWatch:
        """Fingerprints after an unpacked and after a packed pass that each add something."""
        seen = [fingerprints(weights)]
        for change in changes:
            weights["w"] = weights["w"] + change
            seen.append(fingerprints(weights))
        return WeightsWatch(*seen)

    for changes, culprit in (
        ((1.0, 0.0), Culprit.UNPACKED),
        ((0.0, 1.0), Culprit.PACKED),
        ((1.0, 1.0), Culprit.BOTH),
        ((0.0, 0.0), Culprit.PACKED),
    ):
        watch = watched(*changes)
        weights["w"] = weights["w"] + 1.0  # and once more in a later pass of either side
        assert judge_weights(subject, watch, checkpoint=None).culprit is culprit


def test_work_space_that_a_pass_makes_is_no_weight() -> None:
    tensors = {"w": torch.ones(3)}
    loaded = fingerprints(tensors)
    tensors["space"] = torch.zeros(3)
    watch = WeightsWatch(loaded, loaded, fingerprints(tensors))
    tensors["space"] = torch.ones(3)
    subject: Any = SimpleNamespace(tensors=lambda: tensors)
    assert judge_weights(subject, watch, checkpoint=None).value == 0.0
