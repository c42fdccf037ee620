"""Eight writers and twenty readers at one database: errors, lost rows, and what a page then takes.

    python -m tests.benchmarks.load [--seconds 300] [--writers 8] [--readers 20] [--url postgresql://…]

Writers are processes that store runs; readers are threads of one process, as in the dashboard's
server, and ask by `app.data` what its pages ask: the series of the overview, a series' history,
one run with its sequences, incidents and regressions of all. Answers are kept there for some
seconds, so that mean and 95th percentile are told: the median is that of a kept answer. Then one
reader is alone, for comparison. At the end every run that a writer was told is stored is looked
for, and the whole database is checked.

Without a URL a new SQLite file is taken. Ends with 1 where anything went wrong.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from app import data
from app.data.database import URL_VARIABLE
from tests.store.builders import TARGET, make_commit, make_report
from virnucpro_monitor.monitor import reading
from virnucpro_monitor.monitor.verifying import check_everything
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer


def ask_overview() -> None:
    data.load_series()
    data.load_health()


def ask_history() -> None:
    for card in data.load_series()[:2]:
        data.load_series_runs(card, 500)


def ask_run() -> None:
    for newest in data.load_recent_runs()[:1]:
        assert newest.id is not None
        run = data.load_run(newest.id)
        sequences = data.load_sequences(run)
        assert len(sequences) == (run.figures.num_sequences if run.figures else 0)


def ask_incidents() -> None:
    data.load_incidents()
    data.load_regressions("", None, None)


PAGES: dict[str, Callable[[], None]] = {
    "overview": ask_overview,
    "history": ask_history,
    "run": ask_run,
    "incidents": ask_incidents,
}


def write(url: str, number: int, seconds: float, said: Any) -> None:
    """Store runs of a target of one's own until the time is over; say ids and errors."""
    engine = open_engine(url)
    writer = Writer(engine)
    target = replace(TARGET, name=f"load_{number}")
    ids, errors = [], []
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        similarities = (0.9, 1.0, 1.0) if count % 7 == 3 else (0.99999, 1.0, 0.999999)
        report = make_report(similarities=similarities, target=target, commit=make_commit(count))
        count += 1
        try:
            ids.append(writer.save_run(report))
        except Exception as error:
            errors.append(f"writing: {type(error).__name__}: {error}")
        time.sleep(0.05)
    said.put(("written", ids, errors))
    engine.dispose()


def read(url: str, threads: int, seconds: float, said: Any) -> None:
    """Ask pages in some threads until the time is over; say how long each took, and errors."""
    os.environ[URL_VARIABLE] = url
    logging.disable(logging.WARNING)  # Streamlit misses the browser
    taken: list[tuple[str, float]] = []
    errors: list[str] = []
    end = time.monotonic() + seconds

    def look(first: int) -> None:
        names = list(PAGES)
        place = first
        while time.monotonic() < end:
            name = names[place % len(names)]
            place += 1
            start = time.monotonic()
            try:
                PAGES[name]()
            except Exception as error:
                errors.append(f"{name}: {type(error).__name__}: {error}")
            taken.append((name, time.monotonic() - start))
            time.sleep(1.0)  # a person looks at it

    readers = [threading.Thread(target=look, args=(first,)) for first in range(threads)]
    for one in readers:
        one.start()
    for one in readers:
        one.join()
    said.put(("read", taken, errors))


def run_all(
    url: str, seconds: float, writers: int, readers: int
) -> tuple[list[int], dict[str, dict[str, float]], int, list[str]]:
    """Ids that were stored, the seconds of each page, how many were asked, and errors."""
    # This process has neither threads nor connections, and has imported what all need.
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    people = [context.Process(target=write, args=(url, n, seconds, said)) for n in range(writers)]
    if readers:
        people.append(context.Process(target=read, args=(url, readers, seconds, said)))
    for one in people:
        one.start()
    found = [said.get(timeout=seconds + 600) for _ in people]
    for one in people:
        one.join()
    ids = [id_ for kind, some, _ in found if kind == "written" for id_ in some]
    taken = [one for kind, some, _ in found if kind == "read" for one in some]
    errors = [error for _, _, some in found for error in some]
    return ids, summed_up(taken), len(taken), errors


def summed_up(taken: list[tuple[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and 95th percentile of the seconds that each page took."""
    by_page = {name: sorted(s for page, s in taken if page == name) for name in PAGES}
    return {
        name: {"mean": statistics.mean(some), "p95": some[int(0.95 * len(some))]}
        for name, some in by_page.items()
        if some
    }


def measure(url: str, seconds: float, writers: int, readers: int) -> dict[str, Any]:
    """Fill the database a little, then all at once, then a lone reader of what there is by then.

    Returns:
        JSON values; "errors" and "problems" are empty and "lost" is 0 where all is well.
    """
    before, _, _, errors = run_all(url, min(10.0, seconds / 4), 2, 0)
    ids, together, pages, more = run_all(url, seconds, writers, readers)
    _, alone, _, yet_more = run_all(url, min(20.0, seconds / 2), 0, 1)
    errors += [*more, *yet_more]
    engine = open_engine(url, read_only=True)
    # A later run of the same commit supersedes an earlier one, and both are kept.
    stored = {id_ for id_ in (*before, *ids) if _is_stored(engine, id_)}
    engine.dispose()
    return {
        "written": len(ids),
        "pages": pages,
        "errors": dict(Counter(errors)),
        "lost": len({*before, *ids} - stored),
        "doubled": len(before) + len(ids) - len({*before, *ids}),
        "page_seconds": together,
        "times_a_lone_reader": {
            name: {kind: together[name][kind] / alone[name][kind] for kind in together[name]}
            for name in together
            if name in alone
        },
        "problems": list(check_everything(url).problems),
    }


def _is_stored(engine: Engine, run_id: int) -> bool:
    return reading.load_run(engine, run_id).id == run_id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.url or f"sqlite:///{Path(folder) / 'load.db'}"
        create_database(url)
        found = measure(url, given.seconds, given.writers, given.readers)
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["errors"] or found["lost"] or found["doubled"] or found["problems"]))


if __name__ == "__main__":
    main()
