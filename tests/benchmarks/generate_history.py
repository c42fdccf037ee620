"""Build a database with a long history, through the real writer.

    python -m tests.benchmarks.generate_history FILE --runs 10000 --sequences 1000

One target with four series (two benchmark sets x float16 and bfloat16). A fault comes and goes
every few hundred commits; now and then a commit cannot be imported, changes nothing relevant, or is
not run. The values are drawn like those of real runs: nothing is validated here.
"""

import argparse
import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from tests.store import builders
from tests.store.builders import make_configuration, make_environment, make_gate, make_run
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Configuration,
    Culprit,
    Failure,
    Figures,
    GateResult,
    Outcome,
    ProteinSequence,
    Protocol,
    RunReport,
    SequenceResult,
    Target,
    content_digest,
)
from virnucpro_monitor.store.engine import ensure_database, open_engine
from virnucpro_monitor.store.writer import Writer

FIRST_COMMIT_AT = datetime(2024, 1, 1, 9, 0, tzinfo=UTC)
HOURS_BETWEEN_COMMITS = 7
STRICT, LENIENT = 0.999, 0.995
FAULT_EVERY, FAULT_LENGTH = 400, 25  # commits
NUM_SERIES = 4
AMINO_ACIDS = "LAGVESIKRDTPNQFYMHCW"
TARGET = Target(
    name="packed-esm",
    location="https://example.org/packed-esm.git",
    package="packed_esm",
    paths=("packed_esm/models", "packed_esm/data"),
    branch="main",
)
CONTENT = {
    "version": "generated",
    "thresholds": {"strict": STRICT, "lenient": LENIENT, "lenient_fraction": 0.01},
}
PROTOCOL = Protocol(version="generated", digest=content_digest(CONTENT), content=CONTENT)
ENVIRONMENT = make_environment(
    host="gpu-1",
    cuda="12.8",
    gpu="NVIDIA H200",
    driver="570.86",
    flash_attn="2.8.3",
    fair_esm="2.0.0",
)


@dataclass(frozen=True)
class History:
    """What was generated."""

    num_runs: int
    num_results: int
    duration_s: float


def make_benchmark(name: str, num_sequences: int, seed: int) -> BenchmarkSet:
    """Proteome-like sequences: lengths lognormal around 290, 20 to 1022 residues."""
    draw = random.Random(f"{name} {seed}")
    sequences = []
    for index in range(num_sequences):
        length = min(1022, max(20, int(draw.lognormvariate(5.67, 0.6))))
        residues = "".join(draw.choices(AMINO_ACIDS, k=length))
        sequences.append(ProteinSequence(id=f"{name}_{index:05d}", residues=residues))
    return BenchmarkSet(
        name=name,
        version=1,
        digest=content_digest([[one.id, one.residues] for one in sequences]),
        description=f"{num_sequences} generated sequences",
        sequences=tuple(sequences),
    )


def make_commit(number: int) -> Commit:
    def digest(index: int) -> str:
        return hashlib.sha1(f"commit {index}".encode()).hexdigest()

    moment = FIRST_COMMIT_AT + timedelta(hours=HOURS_BETWEEN_COMMITS * number)
    return builders.make_commit(
        number,
        hash=digest(number),
        parents=(digest(number - 1),) if number else (),
        subject=f"Tidy the collator, part {number}",
        author=("Ada Example", "Bo Example", "Cy Example")[number % 3],
        authored_at=moment,
        committed_at=moment + timedelta(minutes=5),
    )


def gpu_configuration(dtype: str) -> Configuration:
    return make_configuration(
        model="esm2_t33_650M_UR50D",
        dtype=dtype,
        device="cuda",
        backend="flash-attn",
        token_budget=16384,
    )


class PackLayout:
    """Where each sequence of a set sits: packs filled in order up to the token budget."""

    def __init__(self, benchmark: BenchmarkSet, token_budget: int) -> None:
        self.lengths = [len(one.residues) for one in benchmark.sequences]
        self.places = []
        pack, slot, offset = 0, 0, 0
        for length in self.lengths:
            if offset + length + 2 > token_budget:
                pack, slot, offset = pack + 1, 0, 0
            self.places.append((pack, slot, offset))
            slot, offset = slot + 1, offset + length + 2


def make_results(
    benchmark: BenchmarkSet, layout: PackLayout, draw: np.random.Generator, fault: float
) -> tuple[SequenceResult, ...]:
    """Healthy half-precision noise, plus `fault` (added to 1 - cos) on a tenth of the sequences."""
    size = len(benchmark.sequences)
    error = draw.lognormal(-13.5, 0.7, size)
    if fault:
        error += fault * draw.lognormal(0, 0.5, size) * (draw.random(size) < 0.1)
    side = draw.lognormal(-13.5, 0.5, (2, size))
    relative = np.sqrt(2 * error)
    residue = np.minimum(1.0, error * draw.lognormal(2, 0.5, size))
    columns = (
        1 - error,
        1 - error - side[0],
        1 - side[1],
        relative,
        relative + np.sqrt(2 * side[0]),
        np.sqrt(2 * side[1]),
        1 + draw.normal(0, 1e-4, size),
        1 - residue,
        1 - residue / 3,
        10 * relative,
    )
    worst_residues = (draw.random(size) * layout.lengths).astype(int).tolist()
    return tuple(
        SequenceResult(
            index=index,
            sequence_id=sequence.id,
            length=length,
            similarity=measures[0],
            packed_similarity=measures[1],
            unpacked_similarity=measures[2],
            relative_l2=measures[3],
            packed_relative_l2=measures[4],
            unpacked_relative_l2=measures[5],
            gain=measures[6],
            worst_residue_similarity=measures[7],
            p01_residue_similarity=measures[8],
            worst_residue=worst_residue,
            max_abs_difference=measures[9],
            pack=place[0],
            slot=place[1],
            offset=place[2],
        )
        for index, (sequence, length, place, worst_residue, measures) in enumerate(
            zip(
                benchmark.sequences,
                layout.lengths,
                layout.places,
                worst_residues,
                np.stack(columns, axis=1).tolist(),
                strict=True,
            )
        )
    )


def make_figures(results: Sequence[SequenceResult], draw: np.random.Generator) -> Figures:
    similarities = np.array([result.similarity for result in results], dtype=float)
    num_strict = int((similarities > STRICT).sum())
    num_failed = int((similarities < LENIENT).sum())
    size = len(results)
    return Figures(
        num_sequences=size,
        num_tokens=sum(result.length + 2 for result in results),
        num_strict=num_strict,
        num_failed=num_failed,
        strict_pass_rate=num_strict / size,
        min_similarity=float(similarities.min()),
        p01_similarity=float(np.percentile(similarities, 1)),
        median_similarity=float(np.median(similarities)),
        max_similarity=float(similarities.max()),
        worst_sequence=results[int(similarities.argmin())].sequence_id,
        seed_passed=num_failed == 0 and size - num_strict <= size // 100,
        max_packed_relative_l2=max(result.packed_relative_l2 or 0.0 for result in results),
        max_unpacked_relative_l2=max(result.unpacked_relative_l2 or 0.0 for result in results),
        unpacked_s=float(draw.normal(8, 0.3)),
        packed_s=float(draw.normal(0.8, 0.05)),
    )


def make_gates(figures: Figures) -> tuple[GateResult, ...]:
    culprit = None if figures.seed_passed else Culprit.PACKED
    worst = 1 - (figures.min_similarity or 0.0)
    oracle = figures.max_packed_relative_l2
    return (
        make_gate("finite", True, 0.0, limit=0.0, unit="sequences"),
        make_gate(
            "seed",
            figures.seed_passed,
            worst,
            limit=1 - STRICT,
            unit="1 - cos",
            culprit=culprit,
            detail=f"{figures.num_strict} of {figures.num_sequences} sequences above strict.",
        ),
        make_gate("gain", True, 3e-4, limit=1e-2, unit="ratio"),
        make_gate(
            "oracle",
            figures.seed_passed,
            oracle,
            limit=0.05,
            culprit=culprit,
        ),
        make_gate("leak", True, 0.0, limit=0.0, unit="max abs"),
        make_gate("position", True, 1e-5, limit=3e-4, unit="relative L2"),
        make_gate("repeat", True, 0.0, limit=0.0, unit="max abs"),
    )


def make_report(
    number: int,
    benchmark: BenchmarkSet,
    layout: PackLayout,
    configuration: Configuration,
    draw: np.random.Generator,
) -> RunReport:
    """The run of one commit in one series."""
    commit = make_commit(number)
    run = make_run(
        number,
        target=TARGET.name,
        commit=commit,
        benchmark=benchmark.name,
        benchmark_version=benchmark.version,
        benchmark_digest=benchmark.digest,
        configuration=configuration,
        environment=ENVIRONMENT,
        protocol_version=PROTOCOL.version,
        protocol_digest=PROTOCOL.digest,
        outcome=Outcome.PASSED,
        started_at=(commit.committed_at or FIRST_COMMIT_AT) + timedelta(minutes=20),
        duration_s=float(draw.normal(11, 0.5)),
        code_digest=hashlib.sha256(f"code {number}".encode()).hexdigest(),
    )
    report = RunReport(run=run, target=TARGET, benchmark=benchmark, protocol=PROTOCOL)
    if number % 97 == 5:
        message = "ImportError: cannot import name 'VarlenCollator'"
        run = replace(run, outcome=Outcome.ERROR, reason=message)
        failure = Failure(kind="import", message=message, traceback=f"Traceback …\n{message}")
        return replace(report, run=run, failure=failure)
    if number % 101 == 7:
        reason = "The GPU had too little free memory for 30 minutes."
        return replace(report, run=replace(run, outcome=Outcome.NOT_RUN, reason=reason))
    faulty = number % FAULT_EVERY >= FAULT_EVERY - FAULT_LENGTH
    results = make_results(benchmark, layout, draw, fault=1e-2 if faulty else 0.0)
    figures = make_figures(results, draw)
    passed = figures.seed_passed
    run = replace(
        run,
        outcome=Outcome.PASSED if passed else Outcome.FAILED,
        culprit=Culprit.NONE if passed else Culprit.PACKED,
        reason="All gates pass."
        if passed
        else f"{figures.num_failed} sequences are below {LENIENT}; the packed side is off.",
        figures=figures,
        gates=make_gates(figures),
    )
    documents = {"packs": {"num_tokens": figures.num_tokens, "packed_s": figures.packed_s}}
    return replace(report, run=run, sequences=results, documents=documents)


def generate_history(url: str, *, num_runs: int, num_sequences: int, seed: int = 0) -> History:
    """Fill the SQLite database at `url`, made if missing, with `num_runs` runs."""
    start = time.perf_counter()
    ensure_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    draw = np.random.default_rng(seed)
    benchmarks = [make_benchmark(name, num_sequences, seed) for name in ("proteome", "viral")]
    layouts = [PackLayout(benchmark, 16384) for benchmark in benchmarks]
    configurations = [gpu_configuration(dtype) for dtype in ("float16", "bfloat16")]
    num_commits = -(-num_runs // NUM_SERIES)
    writer.save_target(TARGET)
    # The last commits have not been measured yet.
    writer.save_commits(TARGET.name, [make_commit(number) for number in range(num_commits + 3)])
    num_results = 0
    for index in range(num_runs):
        number, series = divmod(index, NUM_SERIES)
        which = series % 2
        report = make_report(
            number, benchmarks[which], layouts[which], configurations[series // 2], draw
        )
        writer.save_run(report)
        num_results += len(report.sequences)
    last = make_commit(num_commits)
    writer.heartbeat("gpu-1", TARGET.name, "idle", "all measured", last.committed_at, num_queued=3)
    engine.dispose()
    return History(
        num_runs=num_runs, num_results=num_results, duration_s=time.perf_counter() - start
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--sequences", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    history = generate_history(
        f"sqlite:///{options.file.absolute()}",
        num_runs=options.runs,
        num_sequences=options.sequences,
        seed=options.seed,
    )
    print(
        f"{history.num_runs} runs with {history.num_results} sequence results "
        f"in {history.duration_s:.0f} s, {options.file.stat().st_size / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
