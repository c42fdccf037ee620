"""A little of everything at each door; `tests/benchmarks/fuzz_doors.py` knocks for longer."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from tests import doors
from tests.app.conftest import PageRunner, sample_url, shown_html
from tests.app.conftest import run_page as run_page
from tests.app.test_pages import PAGES
from virnucpro_monitor.secrecy import masked
from virnucpro_monitor.store.engine import open_engine

__all__ = ["run_page", "sample_url"]  # fixtures, by their import

A_FEW = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def knock_at(door: doors.Door) -> None:
    A_FEW(given(door.cases)(door.knock))()


@pytest.mark.parametrize("name", ["COMMITS", "PROTOCOLS", "MESSAGES", "ANSWERS", "CRON", "SECRETS"])
def test_a_door_takes_anything(name: str) -> None:
    knock_at(getattr(doors, name))


def test_the_settings_file_takes_anything(tmp_path: Path) -> None:
    with doors.settings_door(tmp_path) as door:
        knock_at(door)


@pytest.mark.parametrize("make", [doors.fasta_door, doors.checkpoint_door])
def test_a_file_may_hold_anything(make: Callable[[Path], doors.Door], tmp_path: Path) -> None:
    knock_at(make(tmp_path))


def test_a_database_may_be_damaged(sample_url: str, tmp_path: Path) -> None:
    whole = Path(sample_url.removeprefix("sqlite:///")).read_bytes()
    knock_at(doors.database_door(tmp_path, whole))


def test_addresses_name_anything(sample_url: str) -> None:
    engine = open_engine(sample_url, read_only=True)
    try:
        knock_at(doors.addresses_door(engine))
    finally:
        engine.dispose()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_takes_any_address(page: str, run_page: PageRunner, sample_url: str) -> None:
    names = (
        "run", "base", "head", "target", "benchmark", "config", "since", "until", "branch",
        "sequence", "at", "last", "incident", "rows", "cards",
    )  # fmt: skip
    for value in ("'\"><script>", "\0", "-1", "2026-02-30", "\u202e\x1b[2J"):
        app = run_page(page, sample_url, **dict.fromkeys(names, value))
        assert not app.exception
        assert "<script>" not in shown_html(app)


def test_masking_takes_no_time() -> None:
    """Patterns that go back and forth over a long text would take minutes here."""
    start = time.process_time()
    for piece in ("a.", "a", "password", "?a", "://", "a://b:", "&x=", "password ", "a://b:c@"):
        masked(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 10
