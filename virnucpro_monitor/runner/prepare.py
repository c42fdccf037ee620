"""Set the yardstick up in one interpreter: weights, oracles and the surroundings of a run."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.records import Environment, Json, from_json, to_json
from virnucpro_monitor.runner.client import WorkerPool, raise_refused
from virnucpro_monitor.runner.endings import describe_ending
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.progress import OnProgress, Progress


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
                on_progress(
                    Progress(
                        phase="oracle",
                        benchmark=plan.benchmarks[event["benchmark"]].name,
                        done=event["done"],
                        total=event["total"],
                    )
                )
            elif event["event"] == "refused":
                raise_refused(event)
            elif event["event"] == "prepared":
                facts = event
            elif facts is None and event["event"] == "end":
                raise_refused(
                    {
                        "error": "ConfigurationError",
                        "message": "The worker process could not get ready: "
                        f"{_last_line(event['log']) or describe_ending(event, plan)[1]}",
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


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
