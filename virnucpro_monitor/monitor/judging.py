"""Stored measures judged again, under another protocol and without a GPU."""

from dataclasses import dataclass
from datetime import UTC, datetime

from virnucpro_monitor.errors import NotFoundError, ProtocolError
from virnucpro_monitor.monitor.naming import choose_target, find_run
from virnucpro_monitor.records import VERDICTS, Judgement, Protocol, Run, short_hash
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.writer import Writer
from virnucpro_monitor.validation.noise import judge_within_noise
from virnucpro_monitor.validation.protocol import limits_of

EVERY_RUN = "all"


@dataclass(frozen=True, slots=True)
class Rejudged:
    """What came of judging again: each run with its judgement, or with why there is none."""

    judged: tuple[tuple[Run, Judgement], ...]
    refused: tuple[tuple[Run, str], ...]


def judge_again(
    engine: Engine,
    text: str,
    protocol: Protocol,
    *,
    target: str | None = None,
    benchmark: str | None = None,
    store: bool = True,
) -> Rejudged:
    """Judge stored measures under `protocol`; the runs themselves stay as they are.

    Args:
        text: a run's number, a commit, or `EVERY_RUN`.
        store: whether the judgements are kept; the engine must be writable then.

    Raises:
        NotFoundError: no such run, or none that was measured.
        ProtocolError: the one run asked for cannot be judged under it.
    """
    judged: list[tuple[Run, Judgement]] = []
    refused: list[tuple[Run, str]] = []
    for run in _select(engine, text, target, benchmark):
        try:
            judgement = judge_run(engine, run, protocol)
        except ProtocolError as error:
            if text != EVERY_RUN:
                raise
            refused.append((run, str(error)))
            continue
        if store:
            Writer(engine).save_judgement(judgement, protocol)
        judged.append((run, judgement))
    return Rejudged(tuple(judged), tuple(refused))


def _select(engine: Engine, text: str, target: str | None, benchmark: str | None) -> list[Run]:
    if text != EVERY_RUN:
        return [find_run(engine, text, target=target, benchmark=benchmark)[0]]
    name = choose_target(engine, target).name if target else None
    runs = reader.load_runs(engine, target=name, benchmark=benchmark, outcomes=VERDICTS)
    if not runs:
        raise NotFoundError("No measured run is stored that could be judged again.")
    return runs


def judge_run(engine: Engine, run: Run, protocol: Protocol) -> Judgement:
    """Judge one stored run's measures under `protocol`.

    Raises:
        ProtocolError: the run holds no measures, the protocol has no limits for its dtype, or one
            that lies below the noise of healthy runs.
    """
    run_id = run.row_id
    sequences = reader.load_sequences(engine, run_id)
    if not sequences:
        if run.inherited_from is not None:
            raise ProtocolError(
                f"Run {run_id} inherits from {short_hash(run.inherited_from)}: "
                "judge that commit's run."
            )
        raise ProtocolError(f"Run {run_id} holds no measures ({run.outcome}).")
    verdict = judge_within_noise(
        sequences,
        reader.load_documents(engine, run_id),
        protocol,
        limits_name=limits_of(run.configuration),
    )
    return Judgement(
        run_id=run_id,
        protocol_version=protocol.version,
        protocol_digest=protocol.digest,
        outcome=verdict.outcome,
        culprit=verdict.culprit,
        reason=verdict.reason,
        figures=verdict.figures,
        gates=verdict.gates,
        judged_at=datetime.now(UTC),
    )
