"""One run and what is next to it."""

from collections.abc import Sequence
from typing import Any

from app.data.database import database_url, engine, identity, kept
from app.data.series import load_series, load_series_runs, load_thresholds
from virnucpro_monitor.analysis.comparison import Comparison, Noise, compare_runs
from virnucpro_monitor.analysis.series import BAD_OUTCOMES, ERROR_FLOOR, SeriesKey, series_key
from virnucpro_monitor.records import Failure, Json, Outcome, Run, SequenceResult
from virnucpro_monitor.store import reader

COMPARISON_S = 600  # two stored runs never change
NEIGHBOUR_WINDOWS = (20, 500, None)
SEQUENCE_ORDERS = {"worst": "similarity", "benchmark": "index", "length": "length"}


def load_run(run_id: int) -> Run:
    """Raises `NotFoundError` where there is no such run; never answered from a cache."""
    return reader.load_run(engine(), run_id)


def load_recent_runs(limit: int = 30) -> tuple[Run, ...]:
    """The newest runs of each series, the most recently started first."""
    runs = [run for card in load_series()[:50] for run in load_series_runs(card, 10)]
    return tuple(sorted(runs, key=lambda run: run.started_at, reverse=True)[:limit])


def load_measured(run: Run) -> Run:
    """The run whose sequences stand for `run`: for a skipped one the run it inherits from."""
    if run.outcome is not Outcome.SKIPPED or run.inherited_from is None:
        return run
    found = reader.load_runs(
        engine(),
        target=run.target,
        benchmark=versioned(run),
        configuration=run.configuration.digest,
        commits=[run.inherited_from],
    )
    return found[0] if found else run


def versioned(run: Run) -> str:
    return f"{run.benchmark}@{run.benchmark_version}"


def load_sequences(
    run: Run,
    *,
    only_failing: bool = False,
    search: str = "",
    order: str = "benchmark",
    limit: int | None = None,
) -> list[SequenceResult]:
    return reader.load_sequences(
        engine(),
        run.id or 0,
        only_failing=only_failing,
        search=search or None,
        order_by=SEQUENCE_ORDERS[order],
        limit=limit,
    )


def load_failure(run: Run) -> Failure | None:
    return reader.load_failure(engine(), run.id or 0)


def load_document(run: Run, name: str) -> Json:
    return reader.load_document(engine(), run.id or 0, name)


def load_noise(run: Run) -> float | None:
    """The error 1 - cos that repeating an unchanged run can give; None where none is known.

    A run that failed says nothing of that, since its fault may move sequences about: the last good
    one before it does.
    """
    healthy = run if run.outcome is Outcome.PASSED else load_last_good(run)
    if healthy is None:
        return None
    floor = Noise.of_documents([load_document(healthy, "noise")]).floor
    return floor if floor > ERROR_FLOOR else None


def load_neighbours(run: Run) -> tuple[Run | None, Run | None]:
    """The runs of the previous and the next measured commit of the same series."""
    return _load_neighbours(database_url(), identity(run), run)


@kept()
def _load_neighbours(url: str, run_key: str, _run: Run) -> tuple[Run | None, Run | None]:
    run, position = _run, _run.commit.position
    series: dict[str, Any] = {
        "target": run.target,
        "benchmark": versioned(run),
        "configuration": run.configuration.digest,
    }
    if position is None:  # off the followed branch only its parent is known
        before = reader.load_runs(engine(), **series, commits=run.commit.parents[:1])
        return (before[0] if before else None), None
    before = reader.load_runs(engine(), **series, to_position=position - 1, limit=1)
    for window in NEIGHBOUR_WINDOWS:
        after = reader.load_runs(
            engine(),
            **series,
            from_position=position + 1,
            to_position=position + window if window else None,
        )
        if after:
            break
    return (before[0] if before else None), (after[0] if after else None)


def load_last_good(run: Run) -> Run | None:
    """The last passed run of the same series before `run`, if `run` itself is bad."""
    return _load_last_good(database_url(), identity(run), run)


@kept()
def _load_last_good(url: str, run_key: str, _run: Run) -> Run | None:
    run = _run
    if run.effective_outcome not in BAD_OUTCOMES or run.commit.position is None:
        return None
    found = reader.load_runs(
        engine(),
        target=run.target,
        benchmark=versioned(run),
        configuration=run.configuration.digest,
        to_position=run.commit.position - 1,
        outcomes=[Outcome.PASSED],
        limit=1,
    )
    return found[0] if found else None


def load_commit_runs(target: str, commit_hash: str) -> dict[SeriesKey, Run]:
    """The current runs of one commit."""
    runs = reader.load_runs(engine(), target=target, commits=[commit_hash])
    return {series_key(run): run for run in runs}


def load_outcomes(like: Run, hashes: Sequence[str]) -> dict[str, Run]:
    """The runs of some commits in the series of `like`, by hash."""
    runs = reader.load_runs(
        engine(),
        target=like.target,
        benchmark=versioned(like),
        configuration=like.configuration.digest,
        commits=list(hashes),
    )
    return {run.commit.hash: run for run in runs}


def load_comparison(base: Run, head: Run) -> Comparison:
    """Two runs side by side; a skipped one stands on what it inherits."""
    return _load_comparison(database_url(), identity(base), identity(head), base, head)


@kept(COMPARISON_S)
def _load_comparison(url: str, base_key: str, head_key: str, _base: Run, _head: Run) -> Comparison:
    base, head = _base, _head
    measured = load_measured(base), load_measured(head)
    noise = [load_document(run, "noise") for run in measured if run.outcome is Outcome.PASSED]
    return compare_runs(
        base,
        load_sequences(measured[0]),
        head,
        load_sequences(measured[1]),
        noise=Noise.of_documents(noise),
        thresholds=load_thresholds([measured[1]])[measured[1].protocol_digest],
        base_measured=measured[0],
        head_measured=measured[1],
    )
