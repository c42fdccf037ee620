"""What the questions asked of a database are about: a second target, a second set-up, a bad run."""

from dataclasses import replace

from tests.store.builders import CONFIGURATION, TARGET
from virnucpro_monitor.records import RunReport
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.writer import Writer

BAD = (0.99, 1.0, 0.9999)
OTHER = replace(TARGET, name="other", location="https://example.org/other.git", branch="trunk")
NARROW = replace(CONFIGURATION, token_budget=512)


def keep(engine: Engine, *reports: RunReport) -> list[int]:
    """Store reports, oldest first, and return the ids of their runs."""
    return [Writer(engine).save_run(report) for report in reports]
