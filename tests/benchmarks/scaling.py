"""What a full node buys: the same commits on 1, 2, 4, 8 cards, by this host's engine and by Dask.

    python -m tests.benchmarks.scaling --target PATH --package NAME --commits A..B --cards 1 2 4

Covers the last `--limit` commits of the range, forced, start included, with weights and oracles
ready; a Dask cluster is there before, as its owner keeps it. With `--device cpu` processes stand in
for cards. Every line must find the same, in the same order, as the first. A commit that cannot be
judged ends it with exit code 1, but where `--with-errors` says that the range has some; so does a
line that finds something else. Host CPU, memory and disk are those of the whole machine, so nothing
else may run on it; utilisation is the mean over the cards in use, as NVML samples it.
"""

import argparse
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.starts import Start, add_arguments, append, num_equal, opened, time_start
from virnucpro_monitor.runner.gpu import count_gpus, find_gpu

SAMPLE_S = 0.5
ENGINES = ("local", "dask")


@dataclass(slots=True)
class Host:
    """What the machine did meanwhile."""

    num_cards: int
    seconds: float = 0.0
    cpu_s: float = 0.0
    read_gb: float = 0.0
    peak_gb: float = 0.0
    utilisation: list[int] = field(default_factory=list)

    @contextmanager
    def watching(self) -> Iterator[None]:
        over = threading.Event()
        first_gb = _used_gb()

        def sample() -> None:
            while not over.wait(SAMPLE_S):
                self.peak_gb = max(self.peak_gb, _used_gb() - first_gb)
                for card in range(self.num_cards):
                    gpu = find_gpu(f"cuda:{card}")
                    if gpu is not None and gpu.utilisation is not None:
                        self.utilisation.append(gpu.utilisation)

        thread = threading.Thread(target=sample)
        cpu_s, read, start = _cpu_s(), _read_kib(), time.monotonic()
        thread.start()
        try:
            yield
        finally:
            self.seconds = time.monotonic() - start
            over.set()
            thread.join()
            self.cpu_s = _cpu_s() - cpu_s
            self.read_gb = (_read_kib() - read) * 1024 / 1e9

    @property
    def busy(self) -> str:
        found = self.utilisation
        return f"{sum(found) / len(found):3.0f} %" if found else "    -"


def _cpu_s() -> float:
    """Processor seconds of the whole machine, idle and waiting ones left out."""
    values = [int(value) for value in Path("/proc/stat").read_text().split("\n")[0].split()[1:]]
    return (sum(values[:8]) - values[3] - values[4]) / 100


def _read_kib() -> int:
    lines = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(lines.get("pgpgin", 0))


def _used_gb() -> float:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return (total - available) * 1024 / 1e9


def cluster(engine: str, num_cards: int, on_cards: bool) -> Any:
    """A Dask cluster of one process a card, with this host's own share of cores, or nothing."""
    if engine == "local":
        return nullcontext()
    import distributed

    return distributed.LocalCluster(
        n_workers=num_cards,
        threads_per_worker=max(1, (os.cpu_count() or 1) // 2 // num_cards) if on_cards else 1,
        resources={"GPU": 1} if on_cards else None,
        dashboard_address=":0",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser, limit=40)
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--with-errors", action="store_true", help="some commits do not run at all")
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    there = options.cards if on_cpu else [n for n in options.cards if n <= count_gpus()]
    for number in sorted(set(options.cards) - set(there)):
        print(f"{number} cards: not there, not measured")
    with opened(options) as plan:
        print(f"{len(plan.commits)} commits")
        lines = ["engine  cards  seconds  ratio  busy  host CPU s  peak GB  read GB  equal"]
        first: Start | None = None
        unequal = 0
        for engine in (one for one in ENGINES if one in options.engines):
            for number in there:
                host = Host(0 if on_cpu else number)
                with cluster(engine, number, not on_cpu) as dask, host.watching():
                    scaled = replace(
                        plan,
                        request=replace(plan.request, device=_device(on_cpu, engine, number)),
                        workers=number if on_cpu else None,
                        engine=engine,
                        scheduler=dask.scheduler_address if dask is not None else "",
                    )
                    side = f"{engine} {number}"
                    one = time_start(scaled, side, with_errors=options.with_errors)
                append(options.json, one)
                first = first or one
                equal, both = num_equal(one, first)
                unequal += both - equal
                lines.append(
                    f"{engine:6} {number:6} {one.seconds:8.1f} {one.seconds / first.seconds:6.2f} "
                    f"{host.busy} {host.cpu_s:11.0f} {host.peak_gb:8.1f} {host.read_gb:8.2f} "
                    f"{equal}/{both} {dict(Counter(one.outcomes))}"
                )
                print(lines[-1], flush=True)
        print("\n".join(lines))
    if unequal:
        raise SystemExit(f"{unequal} commits came out otherwise than in the first line.")


def _device(on_cpu: bool, engine: str, number: int) -> str:
    if on_cpu:
        return "cpu"
    return "cuda" if engine == "dask" else "cuda:" + ",".join(map(str, range(number)))


if __name__ == "__main__":
    main()
