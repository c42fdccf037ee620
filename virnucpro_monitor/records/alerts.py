"""What people are told without asking: alerts, and their delivery to each channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, tzinfo
from enum import StrEnum

from virnucpro_monitor.records.runs import Json


class AlertKind(StrEnum):
    BROKEN = "broken"  # an incident began
    MENDED = "mended"  # an incident is over
    MOVED = "moved"  # a figure below the gates changed its level
    ENVIRONMENT = "environment"  # results moved where the environment changed
    SILENT = "silent"  # the runner of a target is not heard of, or far behind
    HEARD = "heard"  # it is heard of again


class DeliveryState(StrEnum):
    WAITING = "waiting"
    SENT = "sent"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that happened, told at most once on each channel.

    Attributes:
        keys: identities of what happened, by which it is known when it is seen again.
        summary: one line.
        facts: what a message says, by name: strings, and lists of strings.
        told: whether it was meant for anybody; else it is kept so that it is not told later.
    """

    id: int | None = None
    kind: AlertKind
    target: str
    keys: tuple[str, ...]
    summary: str
    facts: Mapping[str, Json] = field(default_factory=dict)
    told: bool = True
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One alert on its way to one channel.

    Attributes:
        channel: its name in the alert file; the address itself is never stored.
        attempts: how often it was tried.
        due_at: not before then.
        ended_at: when it was taken by the service, or given up.
        problem: why the last attempt failed, one sentence.
    """

    id: int | None = None
    alert_id: int
    channel: str
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    due_at: datetime
    ended_at: datetime | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """What a channel takes, and when.

    Attributes:
        targets, kinds: that it takes; empty means all.
        quiet: from when until when, by the clock of `zone`, nothing is sent; None: never.
        urgent: kinds that are sent in the quiet hours too.
        max_per_hour: messages; what comes beyond is sent together later. None: no limit.
        digest: when each day everything is sent together; None: at once.
        title: template of a message's first line, empty for the usual one.
    """

    name: str
    targets: frozenset[str] = frozenset()
    kinds: frozenset[AlertKind] = frozenset()
    quiet: tuple[time, time] | None = None
    urgent: frozenset[AlertKind] = frozenset()
    max_per_hour: int | None = None
    digest: time | None = None
    zone: tzinfo
    title: str = ""
