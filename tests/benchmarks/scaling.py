"""What a full node buys: the same commits on 1, 2, 4, 8 cards, by this host's engine and by Dask.

    python -m tests.benchmarks.scaling --target PATH --package NAME --commits A..B --repeat 2

Covers the last `--limit` commits of the range, each `--repeat` times, forced, start included, with
weights and oracles ready; a Dask cluster is there before, as its owner keeps it. A commit that
cannot be judged ends it with exit code 1, but where `--with-errors` says that the range has some;
so does a line that finds something else. Where there is no
card, CPU processes stand in for cards (`--cards 1 2`). Every line must find the same, in the same
order, as the first. Host CPU, memory and disk are those of the whole machine, so nothing else may
run on it; utilisation is the mean over the cards in use, as NVML samples it.
"""

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.commit_cost import findings
from tests.benchmarks.phases import judged
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.records import Request, Target
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.gpu import count_gpus, find_gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.selection import select_revisions
from virnucpro_monitor.validation.protocol import load_protocol

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
    """A Dask cluster of one process a card, or nothing."""
    if engine == "local":
        return nullcontext()
    import distributed

    return distributed.LocalCluster(
        n_workers=num_cards,
        threads_per_worker=4 if on_cards else 1,
        resources={"GPU": 1} if on_cards else None,
        dashboard_address=":0",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--package")
    parser.add_argument("--commits", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--benchmark", default="proteome")
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--cpu", action="store_true", help="CPU processes stand in for cards")
    parser.add_argument("--with-errors", action="store_true", help="some commits do not run at all")
    options = parser.parse_args()
    there = options.cards if options.cpu else [n for n in options.cards if n <= count_gpus()]
    for number in sorted(set(options.cards) - set(there)):
        print(f"{number} cards: not there, not measured")
    with tempfile.TemporaryDirectory() as folder:
        target = Target(
            name="scaled", location=str(Path(options.target).resolve()), package=options.package
        )
        repository = Repository.open(target.location, Path(folder))
        chosen = select_revisions(repository, target, options.commits).commits[-options.limit :]
        plan = RunPlan(
            target=target,
            repository=repository,
            commits=chosen,
            benchmarks=(load_benchmark(options.benchmark),),
            request=Request(
                model=options.model,
                weights="synthetic",
                device="cpu" if options.cpu else "cuda:0",
                dtype=options.dtype,
            ),
            protocol=load_protocol(),
            cache_folder=Path(folder),
            force=True,
        )
        list(judged(run_commits(replace(plan, commits=chosen[-1:]))))  # weights, oracle, disk cache
        print(f"{len(chosen)} commits, {options.repeat} times")
        print("engine  cards  seconds  ratio  busy  host CPU s  peak GB  read GB  equal")
        first: list[str] = []
        base_s, unequal = 0.0, 0
        for engine in (one for one in ENGINES if one in options.engines):
            for number in there:
                host = Host(0 if options.cpu else number)
                found: list[str] = []
                outcomes: Counter[str] = Counter()
                with cluster(engine, number, not options.cpu) as dask, host.watching():
                    scaled = replace(
                        plan,
                        request=replace(plan.request, device=_device(options.cpu, engine, number)),
                        workers=number if options.cpu else None,
                        engine=engine,
                        scheduler=dask.scheduler_address if dask is not None else "",
                    )
                    for _ in range(options.repeat):
                        reports = run_commits(scaled, on_message=print)
                        for report in reports if options.with_errors else judged(reports):
                            found.append(findings(report))
                            outcomes[str(report.run.outcome)] += 1
                first, base_s = first or found, base_s or host.seconds
                equal = sum(one == other for one, other in zip(first, found, strict=True))
                print(
                    f"{engine:6} {number:6} {host.seconds:8.1f} {host.seconds / base_s:6.2f} "
                    f"{host.busy} {host.cpu_s:11.0f} {host.peak_gb:8.1f} {host.read_gb:8.2f} "
                    f"{equal}/{len(found)} {dict(outcomes)}",
                    flush=True,
                )
                unequal += len(found) - equal
    if unequal:
        raise SystemExit(f"{unequal} commits came out otherwise than in the first line.")


def _device(on_cpu: bool, engine: str, number: int) -> str:
    if on_cpu:
        return "cpu"
    return "cuda" if engine == "dask" else "cuda:" + ",".join(map(str, range(number)))


if __name__ == "__main__":
    main()
