"""What one more commit costs: warm workers against a fresh process for each, side by side.

    python -m tests.benchmarks.commit_cost --target PATH --package NAME --commits A..B --limit 20 \
        --model esm2_t33_650M_UR50D --device cuda:0 --dtype float16 --benchmark proteome

`--commits` takes ranges and single commits; the last `--limit` of them are measured.

All measure the same commits on the same machine and must find the same; one that cannot be judged
ends it with exit code 1, and so does one that comes out otherwise. "Fresh" starts an
interpreter for each commit and goes through the target's own loader; "warm" forks, maps the
checkpoint and reuses the unpacked side where it is bit-identical; both one commit at a time. "By
default" is warm, with as many commits at once as the runner takes.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.phases import judged
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.records import Request, RunReport, Target
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.selection import select_revisions
from virnucpro_monitor.validation.protocol import load_protocol


def findings(report: RunReport) -> str:
    """What must be equal: outcome, side, gates and every sequence's measures, to the last bit.

    As text, in which NaN equals NaN.
    """
    return repr((report.run.outcome, report.run.culprit, report.run.gates, report.sequences))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--package")
    parser.add_argument("--commits", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--model", default="esm2_t33_650M_UR50D")
    parser.add_argument("--weights", default="synthetic")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--benchmark", default="proteome")
    parser.add_argument("--no-probes", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Target(
            name="measured",
            location=str(Path(options.target).resolve()),
            package=options.package,
        )
        repository = Repository.open(target.location, Path(folder))
        selection = select_revisions(repository, target, options.commits)
        plan = RunPlan(
            target=target,
            repository=repository,
            commits=selection.commits[-options.limit :],
            benchmarks=(load_benchmark(options.benchmark),),
            request=Request(
                model=options.model,
                weights=options.weights,
                device=options.device,
                dtype=options.dtype,
            ),
            protocol=load_protocol(),
            cache_folder=Path(folder),
            force=True,
            workers=1,
            probes=not options.no_probes,
        )
        first = replace(plan, commits=plan.commits[:1])
        list(judged(run_commits(first)))  # weights, oracle, disk cache
        seconds, found = {}, {}
        for name, choice in (
            ("warm", plan),
            ("by default", replace(plan, workers=None)),
            ("fresh", replace(plan, fork=False, warm=False, reuse=False)),
        ):
            start = last = time.monotonic()
            found[name] = []
            for report in judged(run_commits(choice)):
                now = time.monotonic()
                commit, outcome = report.run.commit.short, report.run.outcome
                print(f"{name} {commit}: {outcome} after {now - last:.1f} s", flush=True)
                found[name].append(findings(report))
                last = now
            seconds[name] = (last - start) / len(plan.commits)
            print(f"{name}: {seconds[name]:.2f} s for each of {len(plan.commits)} commits")
        unequal = 0
        for name in ("warm", "by default"):
            same = sum(a == b for a, b in zip(found["fresh"], found[name], strict=True))
            ratio = seconds["fresh"] / seconds[name]
            print(f"{name}: ratio {ratio:.1f}, {same} of {len(plan.commits)} equal to fresh")
            unequal += len(plan.commits) - same
    if unequal:
        raise SystemExit(f"{unequal} commits came out otherwise than fresh.")


if __name__ == "__main__":
    main()
