"""What is stored, as it is stored: the plain reads that doors share.

What needs more than one look at the database, or a decision, is in `questions` and its neighbours.
"""

from collections.abc import Mapping

from virnucpro_monitor.analysis.series import SeriesKey, series_key
from virnucpro_monitor.records import (
    Commit,
    Finding,
    Outcome,
    Run,
    SequencePoint,
    SequenceResult,
    Thresholds,
)
from virnucpro_monitor.runner.story import CommitStory, read_story
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store import reader, series_reader
from virnucpro_monitor.store.changes import load_version
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.findings_reader import load_findings
from virnucpro_monitor.store.health_reader import load_health, load_heartbeats
from virnucpro_monitor.store.reader import (
    load_benchmarks,
    load_document,
    load_failure,
    load_run,
    load_target,
    load_targets,
)
from virnucpro_monitor.store.series_reader import load_coverage

__all__ = [
    "CommitStory",
    "commits_on_branch",
    "finding_of",
    "load_benchmarks",
    "load_coverage",
    "load_document",
    "load_failure",
    "load_findings",
    "load_health",
    "load_heartbeats",
    "load_history",
    "load_history_state",
    "load_pack",
    "load_protocol_thresholds",
    "load_run",
    "load_sequence_history",
    "load_sequences",
    "load_story",
    "load_target",
    "load_targets",
    "load_version",
    "runs_of_commit",
]

SEQUENCE_ORDERS = {"worst": "similarity", "benchmark": "index", "length": "length"}


def commits_on_branch(engine: Engine, target: str) -> list[Commit]:
    """The commits on a target's followed branch, oldest first."""
    return reader.load_commits(engine, target, on_branch=True)


def load_history(engine: Engine) -> list[Run]:
    """All current runs, in commit order within each target."""
    return reader.load_runs(engine)


def load_history_state(engine: Engine) -> tuple[object, ...]:
    """What changes when `load_history` does: cheap to ask."""
    return series_reader.load_history_state(engine)


def runs_of_commit(engine: Engine, target: str, commit_hash: str) -> dict[SeriesKey, Run]:
    """The current runs of one commit, by series."""
    runs = reader.load_runs(engine, target=target, commits=[commit_hash])
    return {series_key(run): run for run in runs}


def load_sequences(
    engine: Engine,
    run: Run,
    *,
    only_failing: bool = False,
    search: str = "",
    order: str = "benchmark",
    limit: int | None = None,
) -> list[SequenceResult]:
    """The per-sequence results that are stored with a run itself.

    Args:
        search: part of an id; empty for all.
        order: "benchmark", "worst" or "length".
    """
    return reader.load_sequences(
        engine,
        run.row_id,
        only_failing=only_failing,
        search=search or None,
        order_by=SEQUENCE_ORDERS[order],
        limit=limit,
    )


def load_pack(engine: Engine, run: Run, pack: int) -> list[SequenceResult]:
    """What was packed together as one pack, in the order of the pack."""
    results = reader.load_sequences(engine, run.row_id, pack=pack)
    return sorted(results, key=lambda result: result.slot or 0)


def load_sequence_history(
    engine: Engine, series: SeriesKey, sequence_id: str, limit: int | None
) -> list[SequencePoint]:
    """One sequence in the newest so many runs of a series that measured it, oldest first.

    Raises:
        NotFoundError: the benchmark set has no such sequence.
    """
    return reader.load_sequence_history(
        engine,
        series.target,
        series.benchmark_label,
        sequence_id,
        configuration=series.configuration,
        limit=limit,
    )


def finding_of(run: Run, measured: Run, findings: Mapping[int, Finding]) -> Finding | None:
    """What trace and probes recognised in a run; None for one that did not fail.

    Args:
        measured: the run that stands for `run`: a skipped one was recognised there.
        findings: of its target, by run id.
    """
    if run.effective_outcome is not Outcome.FAILED:
        return None
    return findings.get(measured.row_id)


def load_protocol_thresholds(engine: Engine, digest: str) -> Thresholds:
    """The thresholds of a stored protocol."""
    return Thresholds.of_protocol(reader.load_protocol(engine, digest).content)


def load_story(engine: Engine, target: str, commit: str) -> CommitStory | None:
    """A commit's message and files; None where its repository is not on this machine."""
    known = next((one for one in load_targets(engine) if one.name == target), None)
    if known is None:
        return None
    return read_story(known.location, load_settings().cache_folder, commit)
