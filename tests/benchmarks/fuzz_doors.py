"""Knock ten thousand times at each door where foreign text comes in.

    python -m tests.benchmarks.fuzz_doors [--cases 10000] [DOOR …]

Prints, for each door, cases, seconds, and the growth of this process's memory. Ends with 1 where a
door let through what it must not, or took a minute over one case, with the smallest case that shows
it. The cases are others each time. The pages' door runs the
dashboard's pages without a browser: about 0.05 s of CPU each.
"""

import argparse
import logging
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streamlit.components.v2 import manifest_scanner

from tests import doors
from tests.app.conftest import fill
from tests.app.samples import HISTORY
from tests.app.test_pages import PAGES
from tests.store.builders import make_report
from tests.store.test_inheritance import skip
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

CASE_LIMIT_S = 60


def knock(door: doors.Door, cases: int) -> None:
    def hangs(*_: object) -> None:
        raise AssertionError(f"one case took {CASE_LIMIT_S} seconds")

    def in_time(case: Any) -> None:
        signal.alarm(CASE_LIMIT_S)
        try:
            door.knock(case)
        finally:
            signal.alarm(0)

    signal.signal(signal.SIGALRM, hangs)
    settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(door.cases)(in_time))()


def small_database(path: Path) -> bytes:
    """Three runs of three sequences: damage mostly meets something, and asking takes little."""
    create_database(f"sqlite:///{path}")
    engine = open_engine(f"sqlite:///{path}")
    first = make_report(0, documents={"probes": {"leak": 0.0}})
    Writer(engine).save_runs([first, make_report(1, (0.9, None, 1.0)), skip(2, first)])
    engine.dispose()
    return path.read_bytes()


def pages_door(url: str) -> doors.Door:
    """The dashboard's pages under made-up addresses."""
    from streamlit.testing.v1 import AppTest

    def visit(case: tuple[str, dict[str, str]]) -> None:
        page, parameters = case
        app = AppTest.from_string(
            "from app import data\n"
            "from app.problems import shown_problems\n"
            f"from app.views.{page} import show\n"
            "with shown_problems():\n"
            "    data.check_database()\n"
            "    show()\n",
            default_timeout=180,
        )
        for name, value in parameters.items():
            app.query_params[name] = value
        assert not app.run().exception, case

    names = st.sampled_from(
        [
            "run", "base", "head", "target", "benchmark", "config", "since", "until", "branch",
            "sequence", "at", "last", "incident", "rows", "cards",
        ]
    )  # fmt: skip
    texts = doors.TEXTS.filter(lambda text: text.isprintable() or "\0" in text)
    return doors.Door(
        st.tuples(st.sampled_from(PAGES), st.dictionaries(names, texts, max_size=4)), visit
    )


def all_doors(stack: ExitStack) -> Iterator[tuple[str, doors.Door]]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("XDG_DATA_HOME", str(folder / "data"))
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for name in ("COMMITS", "PROTOCOLS", "MESSAGES", "ANSWERS", "CRON", "SECRETS"):
        yield name.lower(), getattr(doors, name)
    with doors.settings_door(folder) as door:
        yield "settings", door
    path = folder / "sample.db"
    url = f"sqlite:///{path}"
    fill(url, {"history": HISTORY}, {"history": HISTORY[:2], "target": "other"})
    yield "fasta", doors.fasta_door(folder)
    yield "checkpoint", doors.checkpoint_door(folder)
    yield "database", doors.database_door(folder, small_database(folder / "small.db"))
    engine = open_engine(url, read_only=True)
    stack.callback(engine.dispose)
    yield "addresses", doors.addresses_door(engine)
    patch.setenv("VIRNUCPRO_MONITOR_DB", url)
    # What each installed package says of itself takes two thirds of a page's time.
    patch.setattr(manifest_scanner, "scan_component_manifests", list)
    yield "pages", pages_door(url)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("doors", nargs="*", help="names; all where none is given")
    arguments = parser.parse_args()
    failed = False
    logging.disable(logging.WARNING)  # Streamlit misses the browser
    with ExitStack() as stack:
        for name, door in all_doors(stack):
            if arguments.doors and name not in arguments.doors:
                continue
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            start = time.monotonic()
            try:
                knock(door, arguments.cases)
                outcome = "held"
            except Exception:
                traceback.print_exc()
                outcome, failed = "FAILED", True
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            took = time.monotonic() - start
            print(
                f"{name:<10} {arguments.cases:>6} cases  {took:7.1f} s  +{grown:.0f} MiB  {outcome}"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
