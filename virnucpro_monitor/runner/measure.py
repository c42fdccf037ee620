"""Hand one commit to a worker and turn its events into reports."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Configuration,
    Environment,
    Failure,
    Json,
    Outcome,
    Run,
    RunReport,
    Verdict,
    content_digest,
    from_json,
    to_json,
)
from virnucpro_monitor.runner.client import WorkerPool, raise_refused
from virnucpro_monitor.runner.plan import RunPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a plan is.

    Attributes:
        phase: "oracle" while reference embeddings are computed, then "validating".
        done, total: sequences of the present benchmark set.
        commit_index, num_commits: 0-based place in the measuring order.
    """

    phase: str
    benchmark: str
    done: int
    total: int
    commit: Commit | None = None
    commit_index: int = 0
    num_commits: int = 0


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One interpreter with its yardstick ready: weights resolved, oracles cached."""

    pool: WorkerPool
    weights_digest: str
    weights_name: str
    checkpoint: str
    regression: str
    torch_home: str
    environment: Environment


def prepare(plan: RunPlan, pool: WorkerPool, on_progress: OnProgress) -> Prepared:
    """Resolve the weights, compute missing oracles and describe the environment, in a worker.

    Raises:
        MonitorError: as the worker met it (unknown model, bad weights, no such device).
    """
    job = {
        "kind": "prepare",
        "request": to_json(plan.request),
        "cache_folder": str(plan.cache_folder),
        "benchmarks": to_json(plan.benchmarks),
        "limits": {"timeout_s": max(plan.timeout_s, 3600.0), "memory_limit_gib": None},
    }
    facts: Json = None
    with closing(pool.run(job)) as events:
        for event in events:
            if event["event"] == "oracle":
                on_progress(_progress(plan, "oracle", event))
            elif event["event"] == "refused":
                raise_refused(event)
            elif event["event"] == "prepared":
                facts = event
            elif facts is None and event["event"] == "end":
                raise_refused(
                    {
                        "error": "ConfigurationError",
                        "message": "The worker process could not get ready: "
                        f"{_last_line(event['log']) or _describe_end(event, plan)[1]}",
                    }
                )
    return Prepared(
        pool=pool,
        weights_digest=facts["weights_digest"],
        weights_name=_weights_name(plan.request.weights),
        checkpoint=facts["checkpoint"],
        regression=facts["regression"],
        torch_home=facts["torch_home"],
        environment=from_json(Environment, facts["environment"]),
    )


def _weights_name(weights: str) -> str:
    return weights if weights in ("official", "synthetic") else Path(weights).name


def _progress(plan: RunPlan, phase: str, event: Json) -> Progress:
    benchmark = plan.benchmarks[event["benchmark"]]
    return Progress(phase=phase, benchmark=benchmark.name, done=event["done"], total=event["total"])


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def make_report(
    plan: RunPlan,
    commit: Commit,
    benchmark: BenchmarkSet,
    configuration: Configuration,
    environment: Environment,
    *,
    outcome: Outcome,
    started_at: datetime | None = None,
    duration_s: float = 0.0,
    verdict: Verdict | None = None,
    failure: Failure | None = None,
    **fields: Any,
) -> RunReport:
    """Make the report of one run; `fields` are further fields of `Run`."""
    if verdict is not None:
        fields |= {
            "culprit": verdict.culprit,
            "reason": verdict.reason,
            "figures": verdict.figures,
            "gates": verdict.gates,
        }
    run = Run(
        target=plan.target.name,
        commit=commit,
        benchmark=benchmark.name,
        benchmark_version=benchmark.version,
        benchmark_digest=benchmark.digest,
        configuration=configuration,
        environment=environment,
        protocol_version=plan.protocol.version,
        protocol_digest=plan.protocol.digest,
        outcome=outcome,
        started_at=started_at or datetime.now(UTC),
        duration_s=duration_s,
        **fields,
    )
    return RunReport(
        run=run,
        target=plan.target,
        benchmark=benchmark,
        protocol=plan.protocol,
        sequences=verdict.sequences if verdict else (),
        failure=failure,
        documents=verdict.documents if verdict else {},
    )


def judge(
    plan: RunPlan,
    prepared: Prepared,
    commit: Commit,
    benchmarks: list[BenchmarkSet],
    folder: Path,
    *,
    configuration: Callable[[str | None], Configuration],
    on_progress: OnProgress,
    digest: str | None,
    note: str = "",
    num_threads: int = 1,
) -> Iterator[RunReport]:
    """Judge one checked-out commit on benchmark sets, whatever its code does.

    Args:
        configuration: makes the record for the backend that ran (None: it never came to that).
        note: what the checkout had to say; kept with the output.
        num_threads: CPU threads of the worker.
    """

    def report(index: int, outcome: Outcome, backend: str | None, **fields: Any) -> RunReport:
        return make_report(
            plan,
            commit,
            benchmarks[index],
            configuration(backend),
            prepared.environment,
            outcome=outcome,
            code_digest=digest,
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
                        replace(
                            _progress(plan, "validating", event),
                            benchmark=benchmarks[event["benchmark"]].name,
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
                        cause, message = _describe_end(event, plan)
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
    benchmarks: list[BenchmarkSet],
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


def _describe_end(event: Json, plan: RunPlan) -> tuple[str, str]:
    """(kind of failure, one sentence) for a worker that ended without a result."""
    cause, code = event["cause"], event["code"]
    if cause == "timeout":
        return "timeout", f"The run did not end within {plan.timeout_s:g} s and was stopped."
    if cause == "memory":
        return (
            "out_of_memory",
            f"The run took more than {plan.memory_limit_gib:g} GiB of memory and was stopped.",
        )
    if cause == "signal":
        try:
            name = signal.Signals(code).name
        except ValueError:
            name = str(code)
        return "crash", f"The process was ended by signal {name} before it gave a result."
    if cause == "exit":
        return "crash", f"The process left with status {code} before it gave a result."
    return "crash", "The worker process was lost before it gave a result."
