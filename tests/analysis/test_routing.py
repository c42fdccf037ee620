from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from virnucpro_monitor.analysis.routing import (
    PAUSES,
    first_due,
    is_due,
    next_attempt,
    next_room,
    quiet_until,
    room_for,
    takes,
)
from virnucpro_monitor.records import Alert, AlertKind, ChannelRules

BERLIN = ZoneInfo("Europe/Berlin")
RULES = ChannelRules(name="team", zone=BERLIN)
NIGHT = replace(RULES, quiet=(time(22), time(7)))
NOW = datetime(2026, 5, 5, 10, tzinfo=UTC)


def local(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def test_a_channel_takes_its_targets_and_kinds() -> None:
    alert = Alert(kind=AlertKind.MOVED, target="pack", keys=(), summary="", created_at=NOW)
    assert takes(RULES, alert)
    assert takes(replace(RULES, targets=frozenset({"pack"})), alert)
    assert not takes(replace(RULES, targets=frozenset({"other"})), alert)
    assert not takes(replace(RULES, kinds=frozenset({AlertKind.BROKEN})), alert)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-05-05T21:59", None),
        ("2026-05-05T22:00", "2026-05-06T07:00"),
        ("2026-05-06T06:59", "2026-05-06T07:00"),
        ("2026-05-06T07:00", None),
        ("2026-03-28T23:00", "2026-03-29T07:00"),  # the clock is put forward in this night,
        ("2026-10-24T23:00", "2026-10-25T07:00"),  # and back in this one
    ],
)
def test_quiet_hours_go_by_the_channels_clock(now: str, end: str | None) -> None:
    assert quiet_until(NIGHT, AlertKind.BROKEN, local(now)) == (local(end) if end else None)
    urgent = replace(NIGHT, urgent=frozenset({AlertKind.BROKEN}))
    assert quiet_until(urgent, AlertKind.BROKEN, local(now)) is None


def test_an_hour_that_comes_twice_or_never_ends_the_quiet_hours_too() -> None:
    until_half_past_two = replace(RULES, quiet=(time(22), time(2, 30)))
    second = local("2026-10-25T02:15", fold=1)
    assert quiet_until(until_half_past_two, AlertKind.BROKEN, second) == local(
        "2026-10-25T02:30", fold=1
    )
    before = local("2026-03-29T01:59")
    end = quiet_until(until_half_past_two, AlertKind.BROKEN, before)
    assert end is not None
    assert timedelta(0) < end - before <= timedelta(hours=1)


def test_a_digest_waits_for_its_time_and_not_for_the_quiet_hours_to_begin() -> None:
    daily = replace(RULES, digest=time(8, 30))
    assert first_due(daily, AlertKind.BROKEN, local("2026-05-05T09:00")) == local(
        "2026-05-06T08:30"
    )
    urgent = replace(daily, urgent=frozenset({AlertKind.SILENT}))
    assert first_due(urgent, AlertKind.SILENT, NOW) == NOW
    at_night = replace(NIGHT, digest=time(23))
    assert first_due(at_night, AlertKind.BROKEN, local("2026-05-05T09:00")) == local(
        "2026-05-06T07:00"
    )


def test_a_rate_limit_counts_messages_of_the_last_hour() -> None:
    rules = replace(RULES, max_per_hour=2)
    together = NOW - timedelta(minutes=30)
    assert room_for(RULES, [], NOW) is None
    assert room_for(rules, [together, together], NOW) == 1
    sent = [NOW - timedelta(minutes=50), together]
    assert room_for(rules, sent, NOW) == 0
    assert next_room(sent, NOW) == NOW + timedelta(minutes=10)
    # Of a clock that went back: what lies in the future is none of this hour.
    assert room_for(rules, [NOW + timedelta(days=1)] * 2, NOW) == 2


def test_a_delivery_is_tried_again_at_growing_intervals_and_given_up() -> None:
    assert next_attempt(1, NOW) == NOW + PAUSES[0]
    assert next_attempt(len(PAUSES), NOW) == NOW + PAUSES[-1]
    assert next_attempt(len(PAUSES) + 1, NOW) is None
    assert is_due(NOW, NOW)
    assert not is_due(NOW + timedelta(hours=1), NOW)
    assert is_due(NOW + timedelta(days=400), NOW), "it was set by a clock that has gone back since"
