"""Set the yardstick up in our own interpreter, and describe those that commits ask for."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Environment
from virnucpro_monitor.records.messages import (
    Advanced,
    Described,
    DescribeJob,
    Ended,
    PrepareJob,
    Ready,
    Refused,
)
from virnucpro_monitor.records.progress import OnProgress, Progress
from virnucpro_monitor.records.request import NAMED_WEIGHTS
from virnucpro_monitor.runner.adapter_names import parse_adapter
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.client import WorkerPool, raise_refused
from virnucpro_monitor.runner.cluster_pool import ClusterPool, PlacePool
from virnucpro_monitor.runner.endings import explain, last_line
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.shared_environment import installed_beside
from virnucpro_monitor.runner.surroundings import Surroundings
from virnucpro_monitor.validation.protocol import check_calibrated_for

ORACLE_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The yardstick ready: weights resolved, oracles cached.

    Attributes:
        python: the interpreter of targets; None for our own, in which all else runs.
        surroundings: of targets.
    """

    pool: WorkerPool | ClusterPool | PlacePool
    device: str
    weights_digest: str
    weights_name: str
    checkpoint: str
    regression: str
    torch_home: str
    surroundings: Surroundings
    python: Path | None = None

    def at(self, card: Card) -> "Prepared":
        """The same for jobs on one card: of a cluster, for its Dask worker."""
        if not card.worker or not isinstance(self.pool, ClusterPool):
            return self
        return replace(self, pool=PlacePool(self.pool, card.worker))

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
        MonitorError: as the worker met it (unknown model, bad weights, no such device), or the
            protocol was calibrated for other weights.
    """
    job = PrepareJob(
        request=replace(plan.request, device=device),
        cache_folder=str(plan.cache_folder),
        benchmarks=plan.benchmarks,
        timeout_s=max(plan.timeout_s, ORACLE_TIMEOUT_S),
        num_threads=plan.num_threads,
        oracle=parse_adapter(plan.target.adapter).oracle,
        network=plan.network,
        confine=plan.confine,
        hidden=tuple(map(str, plan.hidden)),
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
                raise ConfigurationError(
                    f"The worker process could not get ready: {_why(event, job)}"
                )
    assert ready is not None
    asked = plan.request
    check_calibrated_for(plan.protocol, asked.model, asked.dtype, device, ready.weights_digest)
    return prepared_by(ready, plan, pool, device)


def prepared_by(
    ready: Ready, plan: RunPlan, pool: WorkerPool | ClusterPool, device: str
) -> Prepared:
    """The yardstick of a plan, as a worker has told of it."""
    return Prepared(
        pool=pool,
        device=device,
        weights_digest=ready.weights_digest,
        weights_name=_weights_name(plan.request.weights),
        checkpoint=ready.checkpoint,
        regression=ready.regression,
        torch_home=ready.torch_home,
        surroundings=Surroundings(environment=ready.environment, installed=ready.installed),
    )


def describe(plan: RunPlan, base: Prepared, python: Path) -> Prepared:
    """The same yardstick for targets of another interpreter, which is asked what it is.

    It is asked as a target is measured: confined, since whose packages it has may be anybody. One
    that has only packages beside ours need not be.

    Raises:
        ConfigurationError: it cannot import what a target's process needs.
    """
    if isinstance(base.pool, WorkerPool) and (installed := installed_beside(python)) is not None:
        beside = replace(base.surroundings, installed=installed)
        return replace(base, python=python, surroundings=beside)
    job = DescribeJob(
        request=replace(plan.request, device=base.device),
        cache_folder=str(plan.cache_folder),
        timeout_s=plan.timeout_s,
        num_threads=plan.num_threads,
        python=str(python),
        hidden=tuple(map(str, plan.hidden)),
        confine=plan.confine,
    )
    described: Described | None = None
    with closing(base.pool.run(job)) as events:
        for event in events:
            if isinstance(event, Described):
                described = event
            elif isinstance(event, Ended) and described is None:
                raise ConfigurationError(
                    f"The private environment cannot be used: {_why(event, job)}"
                )
    assert described is not None
    here = base.surroundings.environment.host  # on a cluster its name, whichever worker answered
    environment = replace(described.environment, host=here)
    surroundings = Surroundings(environment=environment, installed=described.installed)
    return replace(base, python=python, surroundings=surroundings)


def _why(ended: Ended, job: PrepareJob | DescribeJob) -> str:
    return last_line(ended.log) or explain(ended, job.timeout_s, None).message


def _weights_name(weights: str) -> str:
    return weights if weights in NAMED_WEIGHTS else Path(weights).name
