"""Which channel takes an alert, and when it may be sent there. Pure.

Quiet hours and digests go by a zone's clock, also on the days on which it is put forward or back;
everything else by absolute time.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta

from virnucpro_monitor.records import Alert, AlertKind, ChannelRules

PAUSES = tuple(
    timedelta(minutes=minutes) for minutes in (1, 5, 15, 60, 3 * 60, 6 * 60, 12 * 60, 24 * 60)
)
"""Before each further attempt; after the last one a delivery is given up."""
HOUR = timedelta(hours=1)
_LATEST = timedelta(days=3)


def takes(rules: ChannelRules, alert: Alert) -> bool:
    """Whether an alert is for this channel."""
    return (not rules.targets or alert.target in rules.targets) and (
        not rules.kinds or alert.kind in rules.kinds
    )


def first_due(rules: ChannelRules, kind: AlertKind, now: datetime) -> datetime:
    """Before when nothing of this kind may be sent that happens now."""
    if kind in rules.urgent:
        return now
    due = now if rules.digest is None else next_moment(rules, rules.digest, now)
    return quiet_until(rules, kind, due) or due


def quiet_until(rules: ChannelRules, kind: AlertKind, now: datetime) -> datetime | None:
    """The end of the quiet hours; None where it is not quiet, or this kind is urgent."""
    if rules.quiet is None or kind in rules.urgent:
        return None
    start, end = rules.quiet
    clock = now.astimezone(rules.zone).time()
    is_quiet = start <= clock < end if start <= end else clock >= start or clock < end
    return next_moment(rules, end, now) if is_quiet else None


def next_moment(rules: ChannelRules, wanted: time, after: datetime) -> datetime:
    """When the channel's clock next shows a time; the time that a change leaves out comes later."""
    today = after.astimezone(rules.zone).date()
    moments = (
        datetime.combine(
            today + timedelta(days=days), wanted.replace(fold=fold), tzinfo=rules.zone
        ).astimezone(UTC)
        for days in range(3)
        for fold in (0, 1)  # an hour that comes twice
    )
    return min(moment for moment in moments if moment > after)


def is_due(due_at: datetime, now: datetime) -> bool:
    """Whether its time has come. Nothing waits for days: the clock was wrong when it was set."""
    return due_at <= now or due_at - now > _LATEST


def room_for(rules: ChannelRules, sent_at: Iterable[datetime], now: datetime) -> int | None:
    """How many messages the channel takes now; None where there is no limit.

    Args:
        sent_at: of its messages; several alerts that were sent together are one.
    """
    if rules.max_per_hour is None:
        return None
    recent = {moment for moment in sent_at if now - HOUR < moment <= now}
    return max(0, rules.max_per_hour - len(recent))


def next_room(sent_at: Iterable[datetime], now: datetime) -> datetime:
    """When the channel takes a message again that takes none now."""
    return min(moment for moment in sent_at if now - HOUR < moment <= now) + HOUR


def next_attempt(attempts: int, now: datetime) -> datetime | None:
    """When a delivery is tried again after so many attempts; None where it is given up."""
    return now + PAUSES[attempts - 1] if attempts <= len(PAUSES) else None
