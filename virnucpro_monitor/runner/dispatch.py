"""Hand one commit to a worker and turn its events into reports."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from virnucpro_monitor.records import (
    OWN_ORACLE,
    BenchmarkSet,
    Configuration,
    Environment,
    Failure,
    Json,
    Outcome,
    RunReport,
    content_digest,
    to_json,
)
from virnucpro_monitor.records.messages import (
    Advanced,
    Ended,
    Failed,
    Judged,
    MeasureJob,
    NearingEnd,
)
from virnucpro_monitor.records.progress import OnProgress, Progress
from virnucpro_monitor.runner.accept import Acceptance
from virnucpro_monitor.runner.adapter_names import parse_adapter
from virnucpro_monitor.runner.blame import Blame
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.code_digest import adapter_path
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.endings import explain
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared
from virnucpro_monitor.runner.reports import make_report

THREADS_BESIDE_A_CARD = 4


def measure(
    plan: RunPlan,
    prepared: Prepared,
    work: Work,
    folder: Path,
    device: str,
    *,
    configuration: Callable[[str | None], Configuration],
    on_progress: OnProgress,
    on_nearing_end: Callable[[], None] = lambda: None,
    note: str = "",
) -> Iterator[RunReport]:
    """Measure one checked-out commit on its benchmark sets, whatever its code does.

    A worker that ends early costs the benchmark set that it was at; the next set gets a new one.

    Args:
        device: "cpu" or "cuda:N".
        on_nearing_end: called, perhaps more than once, when the commit's own passes end about when
            a next one has loaded: what then runs beside it are the shapes of packs over its last
            set, what explains a failure, and the end of its processes.
        configuration: makes the record for the backend that ran (None: it never came to that).
        note: what the checkout had to say; kept with the output.
    """

    def report(
        index: int,
        outcome: Outcome,
        backend: str | None,
        environment: Environment = prepared.surroundings.environment,
        **fields: Any,
    ) -> RunReport:
        return make_report(
            plan,
            work.commit,
            work.benchmarks[index],
            configuration(backend),
            environment,
            outcome=outcome,
            code_digest=work.code_digest,
            bridge=work.bridge,
            **fields,
        )

    blame: Blame | None = None
    if isinstance(prepared.pool, WorkerPool):  # else whoever has the card says so
        told = prepared.surroundings.environment.gpu is not None
        blame = Blame(device, Path(prepared.checkpoint), told=told)
    first, num_benchmarks = 0, len(work.benchmarks)
    while first < num_benchmarks:
        held: RunReport | None = None
        job = measure_job(plan, prepared, folder, device, work.benchmarks, first, again=work.again)
        started_at, start = datetime.now(UTC), time.monotonic()
        accept = Acceptance(work.benchmarks, first)
        with closing(prepared.pool.run(job, accept)) as events:
            for event in events:
                if isinstance(event, Advanced):
                    on_progress(
                        Progress(
                            phase="validating",
                            benchmark=work.benchmarks[event.benchmark].name,
                            done=event.done,
                            total=event.total,
                        )
                    )
                elif isinstance(event, NearingEnd):
                    if event.benchmark == num_benchmarks - 1:
                        on_nearing_end()
                elif isinstance(event, (Judged, Failed)):
                    if isinstance(event, Failed) and blame is not None:
                        event = blame.of(event)
                    if held is not None:
                        yield held
                    first = event.benchmark + 1
                    if first == num_benchmarks:
                        on_nearing_end()
                    held = _held(report, event, prepared.environment(event.packages))
                    started_at, start = datetime.now(UTC), time.monotonic()
                elif isinstance(event, Ended):
                    log = "\n".join(filter(None, (note, event.log)))
                    if event.cause == "garbage" and first == num_benchmarks:
                        first, held = first - 1, None  # whoever writes there may have said that too
                    if held is not None:
                        yield _with_log(held, log)
                    if first < num_benchmarks and (held is None or held.failure is None):
                        cause = explain(event, plan.timeout_s, plan.memory_limit_gib)
                        cause = blame.of_end(cause) if blame is not None else cause
                        yield report(
                            first,
                            Outcome.NOT_RUN if cause.ours else Outcome.ERROR,
                            None,
                            failure=Failure(kind=cause.kind, message=cause.message, log=log),
                            reason=cause.message,
                            started_at=started_at,
                            duration_s=time.monotonic() - start,
                        )
                        first += 1


def _held(
    report: Callable[..., RunReport], event: Judged | Failed, environment: Environment
) -> RunReport:
    fields: dict[str, Any] = {
        "environment": environment,
        "started_at": event.started_at,
        "duration_s": event.duration_s,
    }
    if isinstance(event, Judged):
        verdict = event.verdict
        return report(event.benchmark, verdict.outcome, event.backend, verdict=verdict, **fields)
    outcome = Outcome.NOT_RUN if event.ours else Outcome.ERROR
    reason = event.failure.message
    return report(event.benchmark, outcome, None, failure=event.failure, reason=reason, **fields)


def _with_log(report: RunReport, log: str) -> RunReport:
    """Keep what the target printed: with its failure, or as a document of its verdict."""
    isolation = report.documents.get("isolation")
    if isolation and (open_to := _open_to(isolation)):
        who = "The setting `confine = false`" if isolation.get("chosen") else "This machine"
        log = f"{who} did not keep the commit's process from {open_to}.\n{log}"
    if report.failure is not None:
        return replace(report, failure=replace(report.failure, log=log))
    if log.strip():
        return replace(report, documents={**report.documents, "output": {"text": log}})
    return report


def _open_to(isolation: Json) -> str:
    """What a measuring process was not kept from; nothing where it was from all."""
    names = {"files": "other files", "network": "the network", "processes": "other processes"}
    return ", ".join(text for name, text in names.items() if not isolation[name])


def measure_job(
    plan: RunPlan,
    prepared: Prepared,
    folder: Path,
    device: str,
    benchmarks: tuple[BenchmarkSet, ...],
    first: int = 0,
    *,
    again: bool = False,
) -> MeasureJob:
    """The job of whatever commit lies in `folder`: from benchmark set number `first` on.

    Args:
        again: whether nothing may come from what an earlier measurement left.
    """
    reuse = None
    if plan.reuse and plan.repository is not None and not again:
        alike = replace(plan.request, device=device.partition(":")[0])  # whatever the card's number
        key = content_digest(
            [to_json(alike), prepared.weights_digest, to_json(prepared.surroundings)]
        )
        reuse = str(plan.cache_folder / "unpacked" / f"{plan.target.name}-{key[:16]}")
    return MeasureJob(
        request=replace(plan.request, device=device),
        cache_folder=str(plan.cache_folder),
        benchmarks=benchmarks,
        timeout_s=plan.timeout_s,
        memory_limit_gib=plan.memory_limit_gib,
        first=first,
        checkout=str(folder),
        adapter=plan.target.adapter,
        adapter_paths=tuple(
            str(one) for one in (adapter_path(plan.target.adapter), plan.folder) if one
        ),
        package=plan.target.package,
        protocol=plan.protocol,
        weights_digest=prepared.weights_digest,
        checkpoint=prepared.checkpoint,
        regression=prepared.regression,
        torch_home=prepared.torch_home,
        warm=plan.warm,
        reuse=reuse,
        probes=plan.probes,
        keep_embeddings=plan.keep_embeddings,
        num_threads=_num_threads(plan, device),
        kernels=_kernels(plan, device),
        network=plan.network,
        confine=plan.confine,
        hidden=tuple(map(str, plan.hidden)),
        python=None if prepared.python is None else str(prepared.python),
    )


def _num_threads(plan: RunPlan, device: str) -> int:
    """Beside a card only small sums are left to the CPU, and threads that wait cost its others.

    They change no result there and are no part of a run's environment. An oracle by the target
    itself is computed on the CPU all the same.
    """
    on_cpu = parse_adapter(plan.target.adapter).oracle == OWN_ORACLE
    if on_cpu or not device.startswith("cuda"):
        return plan.num_threads
    return min(plan.num_threads, THREADS_BESIDE_A_CARD)


def _kernels(plan: RunPlan, device: str) -> str | None:
    """On a card, where compiling takes longer than measuring, a target's commits share kernels."""
    if device.startswith("cuda"):
        return str(plan.cache_folder / "kernels" / plan.target.name)
    return None
