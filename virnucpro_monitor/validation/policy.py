"""A target's policy put into the protocol that its runs are judged by.

It is part of the protocol's content, so that another policy is another digest: runs that were
judged by different ones are never compared without saying so.
"""

import re
from collections.abc import Sequence

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import (
    GATE,
    GATES,
    PolicyRule,
    Protocol,
    content_digest,
    policy_content,
)

MAX_WHO = 100
MAX_WHY = 1000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def with_policy(protocol: Protocol, rules: Sequence[PolicyRule]) -> Protocol:
    """The same thresholds, limits and probes under a target's standing rules."""
    if not rules:
        return protocol
    content = dict(protocol.content)
    content["policy"] = {**content.get("policy", {}), **policy_content(rules)}
    return Protocol(version=protocol.version, digest=content_digest(content), content=content)


def check_rule(gate: str, who: str, why: str) -> None:
    """Refuse a rule that no target may have.

    Raises:
        ConfigurationError: no such gate, one that always fails, or nobody or nothing is named, or
            that at more length than a protocol takes.
    """
    if gate not in GATE:
        raise ConfigurationError(
            f"{gate!r} is not a gate: use one of "
            f"{', '.join(one.name for one in GATES if one.may_inform)}."
        )
    if not GATE[gate].may_inform:
        raise ConfigurationError(
            f"The gate {gate} is part of the seed's own rule, which no policy may loosen."
        )
    for name, text in (("Nobody is named", who), ("No reason is given", why)):
        if not text.strip():
            raise ConfigurationError(f"{name}: a policy says who lets a gate inform, and why.")
    who, why = who.strip(), why.strip()
    if len(who) > MAX_WHO or _CONTROL.search(who):
        raise ConfigurationError(
            f"Who lets a gate inform is named in at most {MAX_WHO} characters, on one line."
        )
    if len(why) > MAX_WHY:
        raise ConfigurationError(
            f"The reason has {len(why)} characters: give it in at most {MAX_WHY}."
        )
