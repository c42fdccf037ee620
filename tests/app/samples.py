"""Made-up histories whose verdicts the real yardstick reaches; they fill test databases.

The measures are drawn from a seeded generator; outcome, figures, gates and reason then come from
`validation.verdict.judge`, so that a page shows what a real run would have stored.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from tests.store.builders import make_commit, make_configuration, make_environment, make_run
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Configuration,
    Environment,
    Failure,
    Outcome,
    ProteinSequence,
    Protocol,
    Run,
    RunReport,
    SequenceResult,
    SequenceStatus,
    Target,
    content_digest,
)
from virnucpro_monitor.validation.protocol import limit_names, parse_protocol
from virnucpro_monitor.validation.verdict import judge

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
TOKEN_BUDGET = 4096


def sample_protocol(version: str = "1", strict: float = 0.999) -> Protocol:
    limits = dict.fromkeys(limit_names("1"), 0.01) | {"residue": 5e-2, "floor": 5e-3}
    content = {
        "version": version,
        "thresholds": {"strict": strict, "lenient": 0.995, "lenient_fraction": 0.01},
        "oracle_factor": 2.0,
        "probes": {"sequences": ["MKT"], "mask_fractions": [0.0]},
        "limits": {"float32": limits, "float16": limits, "bfloat16": limits},
    }
    return parse_protocol(json.dumps(content), f"protocol {version}")


def sample_benchmark(name: str = "seed", count: int = 24, version: int = 1) -> BenchmarkSet:
    generator = random.Random(f"{name}@{version}")
    sequences = tuple(
        ProteinSequence(
            id=f"{name}_{index:03d}",
            residues="".join(generator.choices("ACDEFGHIKLMNPQRSTVWY", k=20 + 37 * index % 900)),
        )
        for index in range(count)
    )
    digest = content_digest([[s.id, s.residues] for s in sequences])
    return BenchmarkSet(
        name=name, version=version, digest=digest, description="Made up.", sequences=sequences
    )


def sample_configuration(dtype: str = "float32", backend: str = "sdpa") -> Configuration:
    return make_configuration(dtype=dtype, backend=backend, token_budget=TOKEN_BUDGET)


def sample_environment(torch: str = "2.13.0") -> Environment:
    return make_environment(torch=torch, fair_esm="2.0.0")


def sample_commit(position: int, subject: str = "", author: str = "A. Author") -> Commit:
    moment = START + timedelta(hours=7 * position)
    return make_commit(
        position,
        hash=content_digest(f"commit {position}")[:40],
        parents=(content_digest(f"commit {position - 1}")[:40],) if position else (),
        subject=subject or f"Change number {position}",
        author=author,
        authored_at=moment,
        committed_at=moment,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One commit of a made-up history.

    Attributes:
        error: typical 1 - cos of its sequences.
        bad_from: sequences longer than this are 1000 times worse; None for none.
    """

    outcome: str = "measured"  # or "error", "skipped", "not_run"
    error: float = 2e-7
    bad_from: int | None = None
    lost: bool = False
    subject: str = ""
    author: str = "A. Author"
    environment: Environment | None = None
    protocol: Protocol | None = None


def sample_results(
    benchmark: BenchmarkSet, step: Step, seed: int, budget: int = TOKEN_BUDGET
) -> tuple[SequenceResult, ...]:
    generator = random.Random(seed)
    results: list[SequenceResult] = []
    pack = slot = offset = 0
    for index, sequence in enumerate(benchmark.sequences):
        length = len(sequence.residues)
        if offset + length + 2 > budget:
            pack, slot, offset = pack + 1, 0, 0
        bad = step.bad_from is not None and length > step.bad_from
        error = step.error * generator.lognormvariate(0, 0.6) * (20_000 if bad else 1)
        size = (2 * error) ** 0.5
        result = SequenceResult(
            index=index,
            sequence_id=sequence.id,
            length=length,
            similarity=1.0 - error,
            packed_similarity=1.0 - error,
            unpacked_similarity=1.0 - step.error / 10,
            relative_l2=size,
            packed_relative_l2=size,
            unpacked_relative_l2=(2 * step.error / 10) ** 0.5,
            gain=1.0 + size / 10,
            worst_residue_similarity=1.0 - min(1.5, 3 * error),
            p01_residue_similarity=1.0 - min(1.5, 2 * error),
            worst_residue=index % length,
            max_abs_difference=size,
            pack=pack,
            slot=slot,
            offset=offset,
        )
        if step.lost and index == 3:
            result = SequenceResult(
                index=index, sequence_id=sequence.id, length=length, status=SequenceStatus.LOST
            )
        results.append(result)
        offset, slot = offset + length + 2, slot + 1
    return tuple(results)


def sample_report(
    position: int,
    step: Step,
    *,
    target: Target,
    benchmark: BenchmarkSet,
    configuration: Configuration,
    run_id: int | None = None,
) -> RunReport:
    protocol = step.protocol or sample_protocol()
    commit = sample_commit(position, step.subject, step.author)
    run = make_run(
        position,
        id=run_id,
        target=target.name,
        commit=commit,
        benchmark=benchmark.name,
        benchmark_version=benchmark.version,
        benchmark_digest=benchmark.digest,
        configuration=configuration,
        environment=step.environment or sample_environment(),
        protocol_version=protocol.version,
        protocol_digest=protocol.digest,
        outcome=Outcome.NOT_RUN,
        started_at=START + timedelta(hours=7 * position + 1),
        duration_s=12.5 + position % 5,
    )
    failure = None
    results: tuple[SequenceResult, ...] = ()
    documents = {}
    if step.outcome == "measured":
        results = sample_results(benchmark, step, seed=position)
        tokens = sum(result.length + 2 for result in results)
        documents = {"packs": {"num_tokens": tokens, "packed_s": 0.8, "unpacked_s": 3.1}}
        verdict = judge(results, documents, protocol, limits_name=configuration.dtype)
        run = replace(
            run,
            outcome=verdict.outcome,
            culprit=verdict.culprit,
            reason=verdict.reason,
            figures=verdict.figures,
            gates=verdict.gates,
        )
    elif step.outcome == "error":
        failure = Failure(
            kind="import",
            message="ModuleNotFoundError: No module named 'nothing'",
            traceback="Traceback (most recent call last):\n  …\nModuleNotFoundError: nothing",
            log="loading the model",
        )
        run = replace(run, outcome=Outcome.ERROR, reason=failure.message)
    elif step.outcome == "skipped":
        run = replace(run, outcome=Outcome.SKIPPED, reason="Only the documentation changed.")
    else:
        run = replace(run, reason="The runner ran out of its time.", environment=None)
    return RunReport(
        run=run,
        target=target,
        benchmark=benchmark,
        protocol=protocol,
        sequences=results,
        failure=failure,
        documents=documents,
    )


HISTORY: tuple[Step, ...] = (
    Step(subject="Add packed ESM-2"),
    Step(subject="Split the layer into functions"),
    Step(subject="Describe the package", outcome="skipped"),
    Step(subject="Fuse the attention projections", bad_from=400),
    Step(subject="Tidy the collator", bad_from=400),
    Step(subject="Load the checkpoint lazily", outcome="error"),
    Step(subject="Reset positions at each boundary"),
    Step(subject="Speed up packing", outcome="not_run"),
    Step(subject="Update torch", environment=sample_environment("2.14.0")),
    Step(subject="Rework the packer", lost=True),
    Step(subject="Return every sequence", error=0.0),
    Step(subject="Name the constants"),
)


def sample_reports(
    history: Sequence[Step] = HISTORY,
    *,
    target: str = "sample",
    benchmark: BenchmarkSet | None = None,
    configuration: Configuration | None = None,
) -> Iterable[RunReport]:
    """The reports of one series, oldest first; run ids count from 1 where nothing stores them."""
    measured: Run | None = None
    for position, step in enumerate(history):
        report = sample_report(
            position,
            step,
            target=Target(name=target, location="https://example.org/sample.git", branch="main"),
            benchmark=benchmark or sample_benchmark(),
            configuration=configuration or sample_configuration(),
            run_id=position + 1,
        )
        if step.outcome == "measured":
            measured = report.run
        elif step.outcome == "skipped" and measured is not None:
            report = replace(report, run=_inheriting(report.run, measured))
        yield report


def _inheriting(run: Run, measured: Run) -> Run:
    """A skipped run says what the last measured one found, as the runner stores it."""
    return replace(
        run,
        culprit=measured.culprit,
        figures=measured.figures,
        gates=measured.gates,
        inherited_from=measured.commit.hash,
        inherited_outcome=measured.outcome,
    )
