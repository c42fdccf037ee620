"""Make the reports of a plan's runs: those that were measured, and those that needed no worker."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Configuration,
    Environment,
    Failure,
    Outcome,
    Run,
    RunReport,
    Verdict,
)
from virnucpro_monitor.runner.ledger import Ledger
from virnucpro_monitor.runner.plan import RunPlan


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
            "packed_outcome": verdict.packed_outcome,
            "unpacked_outcome": verdict.unpacked_outcome,
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


class Unmeasured:
    """Makes the reports of runs that needed no worker, or never came to one."""

    def __init__(
        self, plan: RunPlan, ledger: Ledger, weights_name: str, environment: Environment
    ) -> None:
        self._plan = plan
        self._ledger = ledger
        self._weights_name = weights_name
        self._environment = environment

    def not_run(
        self,
        commit: Commit,
        benchmarks: Iterable[BenchmarkSet],
        reason: str,
        *,
        machine: bool = False,
    ) -> list[RunReport]:
        """Reports of what has not begun.

        Args:
            machine: whether it failed (its card, its disk), and not the time that was given.
        """
        failure = Failure(kind="machine", message=reason) if machine else None
        return [
            self._make(commit, one, Outcome.NOT_RUN, reason=reason, failure=failure)
            for one in benchmarks
        ]

    def failed(
        self, commit: Commit, benchmarks: Iterable[BenchmarkSet], kind: str, error: MonitorError
    ) -> list[RunReport]:
        failure = Failure(kind=kind, message=str(error))
        return [
            self._make(commit, one, Outcome.ERROR, reason=str(error), failure=failure)
            for one in benchmarks
        ]

    def inherited(
        self, commit: Commit, benchmark: BenchmarkSet, digest: str, twin: Run
    ) -> RunReport:
        report = self._make(
            commit,
            benchmark,
            Outcome.SKIPPED,
            reason=f"No relevant file differs from {twin.commit.short}.",
            culprit=twin.culprit,
            figures=twin.figures,
            gates=twin.gates,
            inherited_from=twin.commit.hash,
            inherited_outcome=twin.outcome,
            inherited_run_id=twin.id,
            packed_outcome=twin.packed_outcome,
            unpacked_outcome=twin.unpacked_outcome,
            code_digest=digest,
        )
        return replace(report, run=replace(report.run, configuration=twin.configuration))

    def _make(
        self, commit: Commit, benchmark: BenchmarkSet, outcome: Outcome, **fields: Any
    ) -> RunReport:
        configuration = self._ledger.configuration(self._weights_name)
        return make_report(
            self._plan,
            commit,
            benchmark,
            configuration,
            self._environment,
            outcome=outcome,
            **fields,
        )
