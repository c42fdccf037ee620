"""Protocols for tests: the released one with a part changed, or with fewer probes."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from virnucpro_monitor.records import Protocol, content_digest
from virnucpro_monitor.validation.protocol import load_protocol

QUICK_PROBES = {
    "sequences": ["MKTAYIAKQRQISF", "DERKHGGSDERKHAAV", "MVLSPADKTNV"],
    "long": ["MKTAYIAKQRQISFVKSHFSRQ", "DERKHGGSDERKHAAVBZXUO"],
    "longest": ["MKTAYIAKQRAILVFMWPAILVMKTAYIAKQR", "AILVFMWPAILV"],
    "shapes": [{"name": "three", "sequences": ["MK", "AIL", "G"]}],
    "collator": {"sequences": 12, "per_call": 5, "lengths": [1, 3, 25]},
}


def with_content(protocol: Protocol, change: Callable[[dict[str, Any]], object]) -> Protocol:
    """A protocol with a changed copy of the content."""
    content = copy.deepcopy(dict(protocol.content))
    change(content)
    return Protocol(version=content["version"], digest=content_digest(content), content=content)


def without_own_noise() -> Protocol:
    """The released protocol, whose limits no run's own noise lowers."""
    return with_content(load_protocol(), lambda content: content.pop("own_noise"))


def worst_of_side(content: dict[str, Any], limits_name: str) -> float:
    """The worst distance to FP32 that a model's healthy runs had on either side.

    Args:
        limits_name: "float32, esm2_t6_8M_UR50D".
    """
    of = tuple(limits_name.split(", "))
    records = [r for r in content["evidence"]["runs"] if (r["dtype"], r["model"]) == of]
    return max(r["worst"][name] for r in records for name in ("ceiling", "baseline"))


def quick_protocol() -> Protocol:
    """The released protocol with few and short probes, so that a validation takes 0.2 s."""
    return with_content(load_protocol(), lambda content: content["probes"].update(QUICK_PROBES))


def write_quick_protocol(folder: Path) -> Path:
    """The same as a file, to be named by `--protocol`.

    For tests of what surrounds a validation: all gates judge, with fewer probes behind them.
    """
    path = folder / "quick.json"
    path.write_text(json.dumps({**quick_protocol().content, "version": "quick"}))
    return path
