"""A target's policy: gates that inform and do not fail, each with who said so and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from virnucpro_monitor.records.conversion import to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One gate that informs for a target: where it fails, that is told, and the run does not fail.

    Attributes:
        withdrawn_at, withdrawn_by: when and by whom it was taken back; None while it stands.
    """

    id: int | None = None
    target: str
    gate: str
    who: str
    why: str
    created_at: datetime
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None


def policy_content(rules: Iterable[PolicyRule]) -> dict[str, Any]:
    """What a protocol holds of standing rules, by gate."""
    return {
        rule.gate: {
            "target": rule.target,
            "who": rule.who,
            "why": rule.why,
            "since": to_json(rule.created_at),
        }
        for rule in rules
    }


def informing_gates(content: Mapping[str, Any]) -> dict[str, str]:
    """By gate, on whose word a protocol lets it inform: "policy of NAME since DATE: WHY".

    A protocol file of a user's own need not say since when.
    """
    return {
        gate: f"policy of {rule['who']}{_since(rule)}: {rule['why']}"
        for gate, rule in content.get("policy", {}).items()
    }


def _since(rule: Mapping[str, Any]) -> str:
    since = str(rule.get("since") or "")[:10]
    return f" since {since}" if since else ""
