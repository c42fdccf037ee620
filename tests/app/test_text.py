from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.text import (
    format_age,
    format_bytes,
    format_duration,
    format_similarity,
    format_time,
    format_utc,
    hover_text,
    shortened,
    zone,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def test_a_hover_text_cannot_hold_a_tag() -> None:
    assert hover_text("<b>bold</b> & more") == "&lt;b&gt;bold&lt;/b&gt; &amp; more"


def test_a_long_line_is_cut() -> None:
    text = shortened("x" * 1_000_000, 20)
    assert text == "x" * 19 + "…"
    assert shortened("short", 20) == "short"


def test_a_similarity_near_one_does_not_read_as_one() -> None:
    assert format_similarity(0.9999999999) == "0.99999999"
    assert format_similarity(1.0) == "1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250 ms"),
        (12.34, "12.3 s"),
        (600.0, "10 min"),
        (7200.0, "2.0 h"),
        (305_000.0, "3.5 days"),
        (864_000.0, "10 days"),
        (8_080_000.0, "93 days"),  # and 12 hours: "93 days ago" it began
    ],
)
def test_durations_have_one_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=1), "1 hour ago"),
        (timedelta(days=3, hours=5), "3 days ago"),
        (timedelta(minutes=-3), "just now"),  # a clock that is ahead
    ],
)
def test_ages_have_one_unit(age: timedelta, text: str) -> None:
    assert format_age(NOW - age, NOW) == text


def test_times_are_the_readers_and_utc_is_said() -> None:
    assert format_time(NOW, ZoneInfo("Asia/Tokyo")) == "2026-11-24 21:00"
    assert format_utc(NOW.astimezone(ZoneInfo("Asia/Tokyo"))) == "2026-11-24 12:00:00 UTC"


@pytest.mark.parametrize("name", [None, "", "Nowhere/Never", "../../etc/passwd"])
def test_an_unknown_zone_is_utc(name: str | None) -> None:
    assert zone(name).key == "UTC"


def test_bytes_are_counted_in_thousands() -> None:
    assert [format_bytes(n) for n in (12, 12_300, 4_500_000)] == ["12 bytes", "12.3 kB", "4.5 MB"]
