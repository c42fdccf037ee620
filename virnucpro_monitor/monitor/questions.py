"""What is known of a run and of the incidents: each question once, for every door.

A question takes the engine of an open database first and gives records.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from virnucpro_monitor.analysis.comparison import Noise, Thresholds
from virnucpro_monitor.analysis.incidents import Incident, derive_incidents
from virnucpro_monitor.analysis.regressions import Regressions, find_regressions
from virnucpro_monitor.analysis.series import ERROR_FLOOR
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.monitor.histories import load_last_good
from virnucpro_monitor.monitor.naming import choose_target, find_bound
from virnucpro_monitor.records import Bisection, Outcome, Run, SequenceResult
from virnucpro_monitor.store import notes_reader, reader, series_reader
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.findings_reader import load_findings
from virnucpro_monitor.store.inheritance import load_measured_run


def measured_run(engine: Engine, run: Run) -> Run:
    """The run whose measures stand for `run`: for a skipped one, the run that it inherits from.

    Where no such run is left, `run` itself, which then has no sequences.
    """
    return load_measured_run(engine, run)


def load_measured(engine: Engine, run: Run) -> tuple[Run, list[SequenceResult]]:
    """The run that was measured, and its per-sequence results."""
    measured = measured_run(engine, run)
    return measured, [] if measured.id is None else reader.load_sequences(engine, measured.id)


def load_thresholds(engine: Engine, run: Run) -> Thresholds:
    """The thresholds that a run was judged by: those of its own protocol.

    For a skipped run they are those of the run that was measured, which gave the verdict.
    """
    digest = measured_run(engine, run).protocol_digest
    return Thresholds.of_protocol(reader.load_protocol(engine, digest).content)


def load_attempts(engine: Engine, run: Run) -> tuple[Outcome, ...]:
    """Verdicts of the measurements of a run's commit that are like it, oldest first."""
    stored = reader.load_runs(
        engine,
        target=run.target,
        benchmark=run.benchmark_label,
        configuration=run.configuration.digest,
        commits=[run.commit.hash],
        all_attempts=True,
    )
    like = (run.protocol_digest, run.benchmark_digest, run.environment)
    return tuple(
        one.effective_outcome
        for one in stored
        if (one.protocol_digest, one.benchmark_digest, one.environment) == like
        and one.effective_outcome.has_verdict
    )


def load_flips(engine: Engine, runs: Iterable[Run]) -> dict[int, int]:
    """How often the verdict on the code of each of these changed in one set-up, by run id.

    A run that inherits has the flips of the one that was measured. Those without any are left out.
    """
    listed = list(runs)
    flips: dict[int, int] = {}
    for target in {run.target for run in listed}:
        flips |= load_target_flips(engine, target)
    found = {run.row_id: count_flips(run, flips) for run in listed}
    return {run_id: count for run_id, count in found.items() if count}


def load_target_flips(engine: Engine, target: str) -> dict[int, int]:
    """How often the verdicts on a target's code changed, by the run id of the latest attempt.

    Raises:
        NotFoundError: there is no such target.
    """
    return series_reader.load_flips(engine, target)


def count_flips(run: Run, flips: Mapping[int, int]) -> int:
    """Those of `run`, out of its target's; a run that inherits has those of the measured one."""
    return flips.get(run.inherited_run_id or run.row_id, 0)


def load_noise(engine: Engine, run: Run) -> float | None:
    """The error 1 - cos that repeating an unchanged run can give; None where none is known.

    A run that failed says nothing of that, since its fault may move sequences about: the last good
    one before it does.
    """
    healthy = run if run.outcome is Outcome.PASSED else load_last_good(engine, run)
    if healthy is None:
        return None
    measured = measured_run(engine, healthy)
    document = reader.load_document(engine, measured.row_id, "noise")
    floor = Noise.of_documents([document]).floor
    return floor if floor > ERROR_FLOOR else None


def judge_incidents(
    engine: Engine, runs: Sequence[Run], now: datetime | None = None
) -> tuple[Incident, ...]:
    """The incidents of whole series, as what was acknowledged and withdrawn leaves them now.

    Args:
        runs: current runs of all series of each target that they speak of, in commit order: an
            acknowledgement may have been given for another series of the same target.
        now: when, if not at present.
    """
    acknowledgements = notes_reader.load_acknowledgements(engine, withdrawn=True)
    targets = {run.target for run in runs}
    findings = load_findings(engine, target=targets.pop() if len(targets) == 1 else None)
    moment = now or datetime.now(UTC)
    return tuple(derive_incidents(runs, acknowledgements, now=moment, findings=findings))


def load_incidents(
    engine: Engine, *, target: str | None = None, benchmark: str | None = None
) -> tuple[Incident, ...]:
    """All incidents, oldest first, those that recovered too.

    Args:
        target: a target's name.
        benchmark: a set's name, or "name@version".
    """
    runs = reader.load_runs(engine, target=target)
    incidents = judge_incidents(engine, runs)
    return tuple(one for one in incidents if _is_of(one.first_bad, benchmark))


def find_incident(engine: Engine, key: str) -> Incident:
    """The incident whose key begins with `key`.

    Raises:
        NotFoundError: none does, or several do.
    """
    found = [one for one in load_incidents(engine) if key and one.key.startswith(key.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(
            f"{key!r} fits {len(found)} incidents ({', '.join(one.key for one in found[:5])}): "
            "give more digits."
        )
    raise NotFoundError(f"There is no incident {key!r}: `incidents list` shows the keys.")


def load_regressions(
    engine: Engine,
    *,
    since: str | None = None,
    until: str | None = None,
    target: str | None = None,
    benchmark: str | None = None,
) -> Regressions:
    """What broke after `since`, up to and with `until`.

    Args:
        since, until: a commit's hash or name, a date ("2026-11-24") or an age ("30d").
        target: a name, or the path or URL of the repository.

    Raises:
        NotFoundError: a commit or the target is not in the database.
        ConfigurationError: several targets could be meant, or a date is none.
    """
    now = datetime.now(UTC)
    name = choose_target(engine, target).name if target else None
    start, its_target = find_bound(engine, since, name, now)
    end, other_target = find_bound(engine, until, name, now, is_end=True)
    name = name or its_target or other_target
    runs = reader.load_runs(engine, target=name)
    incidents = [one for one in judge_incidents(engine, runs) if _is_of(one.first_bad, benchmark)]
    runs = [run for run in runs if _is_of(run, benchmark)]
    return find_regressions(runs, incidents, since=start, until=end)


def _is_of(run: Run, benchmark: str | None) -> bool:
    return benchmark in (None, run.benchmark, run.benchmark_label)


def load_bisections(engine: Engine, target: str | None = None) -> tuple[Bisection, ...]:
    """Past and running searches of one target or of all, the latest started last."""
    names = [target] if target else [one.name for one in reader.load_targets(engine)]
    found = [one for name in names for one in notes_reader.load_bisections(engine, name)]
    return tuple(sorted(found, key=lambda one: (one.started_at, one.id or 0)))


def find_bisection(engine: Engine, bisection_id: int) -> Bisection:
    """Raises `NotFoundError` where there is no such search."""
    for one in load_bisections(engine):
        if one.id == bisection_id:
            return one
    raise NotFoundError(
        f"There is no bisection {bisection_id}: `bisections list` shows the numbers."
    )


def searches_of(bisections: Iterable[Bisection], incident: Incident) -> tuple[Bisection, ...]:
    """The searches that tried an incident's first bad commit, the latest started last."""
    first = incident.first_bad.commit.hash
    return tuple(
        one
        for one in bisections
        if one.target == incident.series.target
        and first in (one.first_bad, one.good, one.bad, *(step.commit for step in one.steps))
    )
