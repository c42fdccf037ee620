"""Whether a pass changes the weights is told of those that a target shows, and else not judged."""

from types import SimpleNamespace
from typing import Any

import torch

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
