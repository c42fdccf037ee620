"""Time the dashboard on a long history, as its readers' browsers meet it.

    python -m tests.benchmarks.dashboard [FILE] [--runs 10000] [--sequences 1000]

FILE is a database of `tests.benchmarks.generate_history`, made first where it is missing. "Server
time" is from asking for a page, over the app's own protocol, until its script has finished; beside
it stands the server's own CPU time, which other work on the machine lengthens less.

A reader is somebody who opens a page in a window of its own every five seconds, whichever comes
next in a list of 23: series, runs, comparisons, sequences, incidents. Fifty of them ask for ten
pages a second. Streamlit's server is one process of one interpreter, so that what counts is its CPU
time a page: it stands beside the ratio, as does the load of the machine, which takes its share.

With `--before FOLDER --before-file FILE` an older source tree is served in the same run, on the
same history under that tree's own schema (its own generator makes it); what counts is the ratio:

    python -m tests.benchmarks.dashboard history.db --before ../older --before-file older.db
"""

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from playwright.sync_api import sync_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks.generate_history import generate_history
from tests.browser.conftest import FLAGS
from tests.conftest import CHROMIUM
from virnucpro_monitor.analysis.comparison import compare_runs
from virnucpro_monitor.cli.dashboard import find_port, server_command, server_environment
from virnucpro_monitor.records import Outcome, Run
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import open_engine

HOST = "127.0.0.1"
NUM_READERS = 50
TEN_MORE = 11
SECONDS_BETWEEN_PAGES = 5.0
READING_S = 60.0
# Any one of these is the large chart: a picture with links, or Plotly's in an older tree.
LARGE_CHART = ".vm-glance .pt, .js-plotly-plot .scatterlayer .point"
CHARTS = (".vm-spark", LARGE_CHART)
# Asking from outside waits for the page's scripts, and so until after the large chart. Two frames
# after an element is there it has been painted.
WATCH = """selectors => {
    window.drawnAt = {};
    const paint = s => requestAnimationFrame(() => requestAnimationFrame(
        () => { window.drawnAt[s] ??= performance.now() / 1000; }));
    new MutationObserver(() => {
        for (const s of selectors) if (document.querySelector(s)) paint(s);
    }).observe(document, {childList: true, subtree: true});
}"""
REPEATS = 5
PAIRS = 3
SETTLING_S = 8.0  # what the server reads ahead after its first page is none of the next one's


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One page with its address, and what it took."""

    page: str
    query: str
    seconds: float = 0.0
    cpu_s: float = 0.0
    num_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """The app's server, as a process and as what readers ask."""

    port: int
    pid: int

    def memory_mib(self) -> float:
        """What the process holds in memory, its share of shared pages included."""
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        (line,) = [line for line in rollup.splitlines() if line.startswith("Pss:")]
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=Path("history.db"))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--sequences", type=int, default=1_000)
    parser.add_argument("--before", type=Path, help="an older source tree to serve as well")
    parser.add_argument("--before-file", type=Path, help="the same history in its schema")
    arguments = parser.parse_args()
    if (arguments.before is None) != (arguments.before_file is None):
        parser.error("--before and --before-file belong together.")
    url = f"sqlite:///{arguments.file.absolute()}"
    if not arguments.file.exists():
        print(f"Making {arguments.file} …")
        generate_history(url, num_runs=arguments.runs, num_sequences=arguments.sequences)
    runs = reader.load_runs(open_engine(url, read_only=True))
    print(
        f"{len(runs):,} runs, {arguments.file.stat().st_size / 1e9:.2f} GB; "
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    )
    report("comparison of two runs, read and compared", 0.3, time_comparison(url, runs))
    visits = addresses(runs)
    if arguments.before is not None:
        before_url = f"sqlite:///{arguments.before_file.absolute()}"
        report_ratio(url, before_url, arguments.before.absolute())
    with served(url) as server:
        port = server.port
        cold, warm = time_charts(port, REPEATS)
        report("overview, first charts (cards), new server and browser", 4.0, cold[0])
        report("overview, first charts (cards), again", 1.5, warm[0])
        report("overview, the large chart too, new server and browser", None, cold[1])
        report("overview, the large chart too, again", None, warm[1])
        for name, found in asyncio.run(time_visits(server, visits)):
            cpu = f"server's CPU {found.cpu_s * 1000:6.0f} ms"
            print(f"{name:58} {found.seconds * 1000:8.0f} ms  {cpu}  limit 250 ms")
        for _ in range(2):  # what one reader needs is read and drawn; memory settles
            asyncio.run(read_all(port, visits))
        alone, memory = 0.0, 0.0
        for number in (1, TEN_MORE, NUM_READERS):
            before, started = server.cpu_s(), time.perf_counter()
            times = asyncio.run(read_pages(port, visits, number))
            spent, wall = server.cpu_s() - before, time.perf_counter() - started
            median, held = statistics.median(times), server.memory_mib()
            alone, memory = alone or median, memory or held
            print(
                f"{f'page, {number} readers, median of {len(times)}':58} {median * 1000:8.0f} ms  "
                f"{median / alone:.2f} x of one's, limit 3 x; server's CPU "
                f"{spent / len(times) * 1000:.0f} ms a page, {spent / wall:.2f} cores; "
                f"memory {held / memory:.2f} x of one's; load {os.getloadavg()[0]:.1f}"
            )


def report_ratio(url: str, before_url: str, folder: Path) -> None:
    """The overview of this tree against an older one's, in turn: complete, cold and warm."""
    cold: dict[str, list[float]] = {"this": [], "before": []}
    warm: dict[str, list[float]] = {"this": [], "before": []}
    for _ in range(PAIRS):
        for name, its_url, its_folder in (("this", url, None), ("before", before_url, folder)):
            with served(its_url, its_folder) as server:
                first, later = time_charts(server.port, 3)
            cold[name].append(first[1])
            warm[name].append(later[1])
    for words, found in (("new server and browser", cold), ("again", warm)):
        this, before = (statistics.median(found[name]) for name in ("this", "before"))
        print(
            f"{f'overview complete, {words}, this tree against before':58} "
            f"{this / before:8.2f} x   limit 0.50 x"
        )


def report(name: str, limit_s: float | None, seconds: float) -> None:
    limit = f"limit {limit_s:.2f} s" if limit_s else ""
    print(f"{name:58} {seconds * 1000:8.0f} ms  {limit}")


def addresses(runs: Sequence[Run]) -> list[Visit]:
    """Pages with filters as readers use them, on a failed run and the one before it."""
    measured = [run for run in runs if run.outcome in (Outcome.PASSED, Outcome.FAILED)]
    place = next(i for i, run in enumerate(measured) if run.outcome is Outcome.FAILED and i > 0)
    bad = measured[place]
    base = next(
        run
        for run in reversed(measured[:place])
        if (run.benchmark, run.configuration) == (bad.benchmark, bad.configuration)
    )
    series = f"target={bad.target}&benchmark={bad.benchmark}"
    pair = f"base={base.commit.hash[:9]}&head={bad.commit.hash[:9]}&{series}"
    worst = bad.figures.worst_sequence if bad.figures else ""
    pages = {
        "": ("", series, f"{series}&last=50", f"{series}&last=1000", f"{series}&last=all",
             f"{series}&order=date", f"{series}&chart=gates", f"{series}&chart=speed"),
        "run": (f"run={bad.id}", f"run={base.id}", f"run={bad.id}&only=failing",
                f"run={bad.id}&sort=length", f"run={bad.id}&id=7"),
        "compare": (pair, f"{pair}&changed=yes"),
        "sequence": (f"{series}&sequence={worst}", f"{series}&sequence={worst}&last=50"),
        "incidents": ("", "state=all"),
        "regressions": ("", "span=all"),
        "health": ("",),
        "benchmarks": ("",),
    }  # fmt: skip
    return [Visit(page=page, query=query) for page, queries in pages.items() for query in queries]


def time_comparison(url: str, runs: Sequence[Run]) -> float:
    """Median seconds to read two runs' sequences and to compare them, nothing kept."""
    engine = open_engine(url, read_only=True)
    base, head = [run for run in runs if run.figures is not None][-2:]
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        one = reader.load_sequences(engine, base.id or 0)
        other = reader.load_sequences(engine, head.id or 0)
        compare_runs(base, one, head, other)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


@contextmanager
def served(url: str, folder: Path | None = None) -> Iterator[Server]:
    """The app's server on a database, of this source tree or of another."""
    port = find_port(HOST, None)
    command, environment = (
        server_command(HOST, port),
        server_environment(os.environ, url, writable=False),
    )
    if folder is not None:
        here = next(part for part in command if part.endswith("served.py"))
        scripts = [folder / "app" / name for name in ("served.py", "streamlit_app.py")]
        command[command.index(here)] = str(next(one for one in scripts if one.exists()))
        environment["PYTHONPATH"] = str(folder)
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            opener = build_opener(ProxyHandler({}))
            while server.poll() is None:
                try:
                    with opener.open(f"http://{HOST}:{port}/_stcore/health", timeout=2):
                        break
                except (URLError, OSError):
                    time.sleep(0.05)
            yield Server(port, server.pid)
        finally:
            server.terminate()
            server.wait(timeout=20)


def time_charts(port: int, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds in Chromium from opening the overview until its charts are painted.

    Returns:
        Those of the first opening, by a new browser on a new server, and medians of later ones;
        each as [the charts on the cards, the large chart].
    """
    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        context = browser.new_context()
        context.add_init_script(f"({WATCH})({list(CHARTS)})")
        for _ in range(1 + repeats):
            page = context.new_page()
            page.goto(f"http://{HOST}:{port}/", wait_until="commit")
            page.wait_for_function(f"Object.keys(window.drawnAt).length == {len(CHARTS)}")
            times.append([page.evaluate(f"window.drawnAt[{chart!r}]") for chart in CHARTS])
            page.close()
        browser.close()
    return times[0], [statistics.median(column) for column in zip(*times[1:], strict=True)]


async def time_visits(server: Server, visits: Sequence[Visit]) -> list[tuple[str, Visit]]:
    """Each visit within one session, twice: as first asked for, and again."""
    lines: list[tuple[str, Visit]] = []
    async with session(server.port) as connection:
        await visit(connection, visits[0])
        await asyncio.sleep(SETTLING_S)
        rounds: list[list[Visit]] = []
        for _ in range(2):
            found = []
            for one in visits:
                before = server.cpu_s()
                done = await visit(connection, one)
                found.append(replace(done, cpu_s=server.cpu_s() - before))
            rounds.append(found)
    for first, again in zip(*rounds, strict=True):
        shown = f"/{first.page}?{first.query}"
        shown = shown if len(shown) <= 44 else f"{shown[:43]}…"
        lines.append((f"{shown} ({first.num_bytes / 1e3:,.0f} kB)", first))
        lines.append(("    again", again))
    return lines


def session(port: int) -> connect:
    return connect(
        f"ws://{HOST}:{port}/_stcore/stream",
        subprotocols=["streamlit"],  # type: ignore[list-item]
        max_size=None,
        proxy=None,
    )


async def visit(connection: ClientConnection, wanted: Visit) -> Visit:
    """Ask for a page and wait until its script has finished."""
    message = BackMsg()
    message.rerun_script.page_name = wanted.page
    message.rerun_script.query_string = wanted.query
    message.rerun_script.context_info.timezone = "Europe/Berlin"
    started = time.perf_counter()
    await connection.send(message.SerializeToString())
    num_bytes = 0
    while True:
        received: Any = await connection.recv()
        num_bytes += len(received)
        answer = ForwardMsg.FromString(received)
        if answer.WhichOneof("type") == "script_finished":
            break
    seconds = time.perf_counter() - started
    return Visit(page=wanted.page, query=wanted.query, seconds=seconds, num_bytes=num_bytes)


async def read_all(port: int, visits: Sequence[Visit]) -> None:
    """Each page once, in a session of its own."""
    for one in visits:
        async with session(port) as connection:
            await visit(connection, one)


async def read_pages(port: int, visits: Sequence[Visit], num_readers: int) -> list[float]:
    """Page times of readers who each open one page, in a session of its own, every 5 s."""

    async def read(number: int) -> list[float]:
        await asyncio.sleep(SECONDS_BETWEEN_PAGES * number / num_readers)
        ends = time.perf_counter() + READING_S
        times: list[float] = []
        while time.perf_counter() < ends:
            started = time.perf_counter()
            async with session(port) as connection:
                await visit(connection, visits[(number + len(times)) % len(visits)])
            times.append(time.perf_counter() - started)
            await asyncio.sleep(max(0.0, SECONDS_BETWEEN_PAGES - times[-1]))
        return times

    found = await asyncio.gather(*(read(number) for number in range(num_readers)))
    return [seconds for times in found for seconds in times]


if __name__ == "__main__":
    main()
