"""Hand one commit to a worker and turn its events into reports."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from virnucpro_monitor.records import (
    BenchmarkSet,
    Configuration,
    Failure,
    Json,
    Outcome,
    RunReport,
    Verdict,
    content_digest,
    from_json,
    to_json,
)
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.endings import describe_ending
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared
from virnucpro_monitor.runner.progress import OnProgress, Progress
from virnucpro_monitor.runner.reports import make_report


def measure(
    plan: RunPlan,
    prepared: Prepared,
    work: Work,
    folder: Path,
    *,
    configuration: Callable[[str | None], Configuration],
    on_progress: OnProgress,
    note: str = "",
    num_threads: int = 1,
) -> Iterator[RunReport]:
    """Measure one checked-out commit on its benchmark sets, whatever its code does.

    Args:
        configuration: makes the record for the backend that ran (None: it never came to that).
        note: what the checkout had to say; kept with the output.
        num_threads: CPU threads of the worker.
    """

    benchmarks = work.benchmarks

    def report(index: int, outcome: Outcome, backend: str | None, **fields: Any) -> RunReport:
        return make_report(
            plan,
            work.commit,
            benchmarks[index],
            configuration(backend),
            prepared.environment,
            outcome=outcome,
            code_digest=work.code_digest,
            bridge=work.bridge,
            **fields,
        )

    first = 0
    while first < len(benchmarks):
        held: RunReport | None = None
        job = _measure_job(plan, prepared, benchmarks, folder, first) | {"num_threads": num_threads}
        started_at, start = datetime.now(UTC), time.monotonic()
        with closing(prepared.pool.run(job)) as events:
            for event in events:
                kind = event["event"]
                if kind == "progress":
                    on_progress(
                        Progress(
                            phase="validating",
                            benchmark=benchmarks[event["benchmark"]].name,
                            done=event["done"],
                            total=event["total"],
                        )
                    )
                elif kind in ("verdict", "failure"):
                    if held is not None:
                        yield held
                    first = event["benchmark"] + 1
                    times = {
                        "started_at": datetime.fromisoformat(event["started_at"]),
                        "duration_s": event["duration_s"],
                    }
                    started_at, start = datetime.now(UTC), time.monotonic()
                    if kind == "verdict":
                        verdict = from_json(Verdict, event["verdict"])
                        held = report(
                            first - 1, verdict.outcome, event["backend"], verdict=verdict, **times
                        )
                    else:
                        failure = from_json(Failure, event["failure"])
                        held = report(
                            first - 1, Outcome.ERROR, None,
                            failure=failure, reason=failure.message, **times,
                        )  # fmt: skip
                elif kind == "end":
                    log = "\n".join(filter(None, (note, event["log"])))
                    if held is not None:
                        yield _with_log(held, log)
                    if first < len(benchmarks) and (held is None or held.failure is None):
                        cause, message = describe_ending(event, plan)
                        yield report(
                            first, Outcome.ERROR, None,
                            failure=Failure(kind=cause, message=message, log=log),
                            reason=message,
                            started_at=started_at,
                            duration_s=time.monotonic() - start,
                        )  # fmt: skip
                        first += 1


def _with_log(report: RunReport, log: str) -> RunReport:
    """Keep what the target printed: with its failure, or as a document of its verdict."""
    if report.failure is not None:
        return replace(report, failure=replace(report.failure, log=log))
    if log.strip():
        return replace(report, documents={**report.documents, "output": {"text": log}})
    return report


def _measure_job(
    plan: RunPlan,
    prepared: Prepared,
    benchmarks: tuple[BenchmarkSet, ...],
    folder: Path,
    first: int,
) -> Json:
    reuse = None
    if plan.reuse and plan.repository is not None:
        key = content_digest(
            [to_json(plan.request), prepared.weights_digest, prepared.environment.digest]
        )
        reuse = str(plan.cache_folder / "unpacked" / f"{plan.target.name}-{key[:16]}")
    return {
        "kind": "measure",
        "checkout": str(folder),
        "adapter": plan.target.adapter,
        "package": plan.target.package,
        "request": to_json(plan.request),
        "cache_folder": str(plan.cache_folder),
        "benchmarks": to_json(benchmarks),
        "first": first,
        "protocol": to_json(plan.protocol),
        "weights_digest": prepared.weights_digest,
        "checkpoint": prepared.checkpoint,
        "regression": prepared.regression,
        "torch_home": prepared.torch_home,
        "warm": plan.warm,
        "reuse": reuse,
        "probes": plan.probes,
        "limits": {"timeout_s": plan.timeout_s, "memory_limit_gib": plan.memory_limit_gib},
    }
