"""Starts over the same commits, timed: when each verdict came, and what was found.

What `commit_cost` and `scaling` share. Each start is printed, and with `--json FILE` appended there
as one line, so that one that is cut short loses only itself.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from tests.benchmarks.phases import judged
from virnucpro_monitor.cli.demo import TARGET_NAME, TOKEN_BUDGET
from virnucpro_monitor.cli.sample.repository import build_repository
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.records import Commit, Outcome, Request, RunReport, Target
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.selection import select_revisions
from virnucpro_monitor.runner.targets import name_from_location
from virnucpro_monitor.validation.protocol import load_protocol

NUM_OF_SAMPLE = 14  # commits of the demo's sample; the 15th cannot be imported
VERDICTS = (Outcome.PASSED.value, Outcome.FAILED.value)


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        side: what is compared: "warm", "fresh", "local 2", ...
        seconds: from the call to its end.
        at: seconds from the call to each report, in the commits' order.
        outcomes: of each commit.
        found: of each commit a digest of its findings.
    """

    side: str
    seconds: float
    at: tuple[float, ...]
    commits: tuple[str, ...]
    outcomes: tuple[str, ...]
    found: tuple[str, ...]

    @property
    def each_s(self) -> float:
        """Seconds for each commit, the start's own among them."""
        return self.at[-1] / len(self.at)

    @property
    def further_s(self) -> float | None:
        """Seconds of each commit after the first."""
        return (self.at[-1] - self.at[0]) / (len(self.at) - 1) if len(self.at) > 1 else None

    @property
    def usual_further_s(self) -> float | None:
        """Median seconds from one commit's report to the next one's, of commits one at a time."""
        return statistics.median(b - a for a, b in pairwise(self.at)) if len(self.at) > 1 else None

    @property
    def num_without_verdict(self) -> int:
        return sum(one not in VERDICTS for one in self.outcomes)


def findings(report: RunReport) -> str:
    """What must be equal: outcome, side, gates and every sequence's measures, to the last bit.

    As text, in which NaN equals NaN.
    """
    return repr((report.run.outcome, report.run.culprit, report.run.gates, report.sequences))


def add_arguments(parser: argparse.ArgumentParser, *, limit: int) -> None:
    parser.add_argument("--target", help="a checkout; default: the demo's sample repository")
    parser.add_argument("--package")
    parser.add_argument("--commits", nargs="+", default=[], help="ranges and single commits")
    parser.add_argument("--limit", type=int, default=limit, help="the last so many of them")
    parser.add_argument("--model", default="esm2_t33_650M_UR50D")
    parser.add_argument("--weights", default="synthetic")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--benchmark", default="proteome")
    parser.add_argument("--cache", type=Path, help="keeps weights and oracles for the next call")
    parser.add_argument("--json", type=Path, help="where each start is appended")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is measured: the last commits of a target."""

    target: Target
    repository: Repository
    commits: tuple[Commit, ...]
    token_budget: int


def choose(options: argparse.Namespace, cache: Path) -> Chosen:
    """The last `--limit` commits; of the demo's sample, all of which the last few can be run."""
    place = Path(options.target or cache / "demo" / TARGET_NAME).resolve()
    package, revisions = options.package, options.commits
    if not options.target:
        package, revisions = TARGET_NAME, list(build_repository(place))[:NUM_OF_SAMPLE]
    # Named as the command line names it, so that a command finds what is made ready here.
    target = Target(name=name_from_location(str(place)), location=str(place), package=package)
    repository = Repository.open(target.location, cache)
    return Chosen(
        target=target,
        repository=repository,
        commits=select_revisions(repository, target, revisions).commits[-options.limit :],
        token_budget=4096 if options.target else TOKEN_BUDGET,
    )


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[RunPlan]:
    """The plan of these arguments, with weights, oracle and the disk's cache made ready."""
    with tempfile.TemporaryDirectory() as folder:
        cache = (options.cache or Path(folder)).resolve()
        chosen = choose(options, cache)
        plan = RunPlan(
            target=chosen.target,
            repository=chosen.repository,
            commits=chosen.commits,
            benchmarks=(load_benchmark(options.benchmark),),
            request=Request(
                model=options.model,
                weights=options.weights,
                device=options.device,
                dtype=options.dtype,
                token_budget=chosen.token_budget,
            ),
            protocol=load_protocol(),
            cache_folder=cache,
            force=True,
        )
        _make_ready(plan, cache)
        yield plan


def _make_ready(plan: RunPlan, cache: Path) -> None:
    setup = f"{plan.request.model} {plan.request.dtype} {plan.request.device.partition(':')[0]}"
    digest = hashlib.sha256(f"{setup} {plan.benchmarks[0].digest}".encode()).hexdigest()
    done = cache / f"ready-{digest[:16]}"
    if done.exists():
        return
    time_start(replace(plan, commits=plan.commits[-1:]), "making ready")
    done.touch()


def time_start(plan: RunPlan, side: str, *, with_errors: bool = False) -> Start:
    """Measure the plan's commits; each is told as it ends.

    Raises:
        SystemExit: a commit was not judged, where `with_errors` does not expect some.
    """
    at, reports = [], []
    begun = time.monotonic()
    covered = run_commits(plan, on_message=print)
    for report in covered if with_errors else judged(covered):
        at.append(time.monotonic() - begun)
        reports.append(report)
        print(
            f"{side} {report.run.commit.short}: {report.run.outcome} at {at[-1]:.1f} s", flush=True
        )
    return Start(
        side=side,
        seconds=time.monotonic() - begun,
        at=tuple(at),
        commits=tuple(one.run.commit.hash for one in reports),
        outcomes=tuple(one.run.outcome.value for one in reports),
        found=tuple(hashlib.sha256(findings(one).encode()).hexdigest()[:16] for one in reports),
    )


def append(path: Path | None, start: Start) -> None:
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(asdict(start)) + "\n")


def read(path: Path) -> dict[str, Start]:
    """The last start of each side that the file holds; none where there is no file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    starts = {}
    for line in lines:
        told = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in json.loads(line).items()
        }
        starts[told["side"]] = Start(**told)
    return starts


def num_equal(one: Start, other: Start) -> tuple[int, int]:
    """How many commits of both have the same findings, and how many both have."""
    theirs = dict(zip(other.commits, other.found, strict=True))
    both = [(c, f) for c, f in zip(one.commits, one.found, strict=True) if c in theirs]
    return sum(theirs[commit] == found for commit, found in both), len(both)
