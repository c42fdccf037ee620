"""Stored runs: which there are, and all that is kept of one."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.monitor.naming import choose_target, find_run
from virnucpro_monitor.monitor.questions import load_attempts, load_measured, load_thresholds
from virnucpro_monitor.records import (
    Failure,
    Judgement,
    Outcome,
    Run,
    SequenceResult,
    Target,
    Thresholds,
    read_oracle,
)
from virnucpro_monitor.store import notes_reader, reader
from virnucpro_monitor.store.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """One run with everything that is stored of it.

    Attributes:
        others: the commit's other current runs.
        measured: the run that was measured: for a skipped one, the one it inherits from.
        sequences: the results of `measured`.
        failure: why the run is an error; None where it is none.
        judgements: how it was judged again under other protocols, the latest last.
        thresholds: that the verdict rests on.
        oracle: what both sides were held against; None where that is not known.
        attempts: verdicts of all measurements of this code in this set-up, oldest first.
    """

    run: Run
    others: tuple[Run, ...]
    measured: Run
    sequences: tuple[SequenceResult, ...]
    failure: Failure | None
    target: Target
    judgements: tuple[Judgement, ...]
    thresholds: Thresholds
    oracle: str | None
    attempts: tuple[Outcome, ...] = ()

    @property
    def flips(self) -> int:
        """How often the verdict changed from one attempt to the next."""
        return sum(one is not other for one, other in itertools.pairwise(self.attempts))


def list_runs(
    engine: Engine,
    *,
    target: str | None = None,
    benchmark: str | None = None,
    outcomes: Iterable[str] | None = None,
    limit: int | None = None,
    all_attempts: bool = False,
) -> list[Run]:
    """Stored runs, oldest commit first.

    Args:
        target: a name, or the path or URL of the repository.
        benchmark: a set's name, or "name@version".
        outcomes: such as ["failed", "error"].
        limit: only the newest commits' runs, so many.
        all_attempts: also runs that later ones replaced.

    Raises:
        NotFoundError: there is no such target.
        ConfigurationError: no such outcome, or a limit below 1.
    """
    wanted = None if outcomes is None else _outcomes(outcomes)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigurationError(
            f"{limit!r} is not a number of commits: use a whole number, at least 1."
        )
    return reader.load_runs(
        engine,
        target=choose_target(engine, target).name if target else None,
        benchmark=benchmark,
        outcomes=wanted,
        limit=limit,
        all_attempts=all_attempts,
    )


def _outcomes(names: Iterable[str]) -> list[Outcome]:
    if isinstance(names, str):  # else its letters would be looked at one by one
        raise ConfigurationError(f"{names!r} is not a list of outcomes: write [{names!r}].")
    try:
        return [Outcome(name) for name in names]
    except ValueError as error:
        known = ", ".join(outcome.value for outcome in Outcome)
        raise ConfigurationError(f"{error}: an outcome is one of {known}.") from error


def load_details(
    engine: Engine, text: str, *, target: str | None = None, benchmark: str | None = None
) -> RunDetails:
    """All of the run that a number or a commit means; of a commit's several the latest started.

    Raises:
        NotFoundError: there is none.
        AmbiguousRevision: a short hash fits several commits.
    """
    run, others = find_run(engine, text, target=target, benchmark=benchmark)
    measured, sequences = load_measured(engine, run)
    run_id = run.row_id
    return RunDetails(
        run=run,
        others=tuple(others),
        measured=measured,
        sequences=tuple(sequences),
        failure=reader.load_failure(engine, run_id),
        target=reader.load_target(engine, run.target),
        judgements=tuple(notes_reader.load_judgements(engine, run_id)),
        thresholds=load_thresholds(engine, run),
        oracle=read_oracle({"oracle": reader.load_document(engine, measured.row_id, "oracle")}),
        attempts=load_attempts(engine, measured),
    )
