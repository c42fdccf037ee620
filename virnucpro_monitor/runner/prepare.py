"""Set the yardstick up in one interpreter: weights, oracles and the surroundings of a run."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Environment
from virnucpro_monitor.records.messages import Advanced, Ended, PrepareJob, Ready, Refused
from virnucpro_monitor.records.progress import OnProgress, Progress
from virnucpro_monitor.records.request import NAMED_WEIGHTS
from virnucpro_monitor.runner.client import WorkerPool, raise_refused
from virnucpro_monitor.runner.cluster_pool import ClusterPool
from virnucpro_monitor.runner.endings import explain, last_line
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.surroundings import Surroundings

ORACLE_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One interpreter with its yardstick ready: weights resolved, oracles cached."""

    pool: WorkerPool | ClusterPool
    weights_digest: str
    weights_name: str
    checkpoint: str
    regression: str
    torch_home: str
    surroundings: Surroundings

    def environment(self, imported: Iterable[str]) -> Environment:
        """Where a worker of this interpreter measured, having imported these distributions.

        Their versions are those that the interpreter has: what a commit puts in their place is
        part of the commit.
        """
        installed = self.surroundings.installed or {}
        packages = {name: installed[name] for name in imported if name in installed}
        return replace(self.surroundings.environment, packages=packages)


def prepare(
    plan: RunPlan, pool: WorkerPool | ClusterPool, device: str, on_progress: OnProgress
) -> Prepared:
    """Resolve the weights, compute missing oracles and describe the environment, in a worker.

    Raises:
        MonitorError: as the worker met it (unknown model, bad weights, no such device).
    """
    job = PrepareJob(
        request=replace(plan.request, device=device),
        cache_folder=str(plan.cache_folder),
        benchmarks=plan.benchmarks,
        timeout_s=max(plan.timeout_s, ORACLE_TIMEOUT_S),
        num_threads=plan.num_threads,
    )
    ready: Ready | None = None
    with closing(pool.run(job)) as events:
        for event in events:
            if isinstance(event, Advanced):
                on_progress(
                    Progress(
                        phase="oracle",
                        benchmark=plan.benchmarks[event.benchmark].name,
                        done=event.done,
                        total=event.total,
                    )
                )
            elif isinstance(event, Refused):
                raise_refused(event)
            elif isinstance(event, Ready):
                ready = event
            elif isinstance(event, Ended) and ready is None:
                why = last_line(event.log) or explain(event, job.timeout_s, None).message
                raise ConfigurationError(f"The worker process could not get ready: {why}")
    assert ready is not None
    return Prepared(
        pool=pool,
        weights_digest=ready.weights_digest,
        weights_name=_weights_name(plan.request.weights),
        checkpoint=ready.checkpoint,
        regression=ready.regression,
        torch_home=ready.torch_home,
        surroundings=Surroundings(environment=ready.environment, installed=ready.installed),
    )


def _weights_name(weights: str) -> str:
    return weights if weights in NAMED_WEIGHTS else Path(weights).name
