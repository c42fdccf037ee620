"""Alerts: what has happened is noted once, and brought to each channel that wants it.

Nothing here can fail or hold up a run: it is called when everything is stored, each message has a
time limit, and what could not be delivered is tried again by a later pass.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from virnucpro_monitor.analysis.environment_moves import find_environment_moves
from virnucpro_monitor.analysis.happenings import Happening, find_happenings, lasting_silences
from virnucpro_monitor.analysis.movements import find_movements
from virnucpro_monitor.analysis.regressions import SeriesMovement
from virnucpro_monitor.analysis.routing import (
    first_due,
    is_due,
    next_attempt,
    next_room,
    quiet_until,
    room_for,
    takes,
)
from virnucpro_monitor.analysis.series import split_series
from virnucpro_monitor.analysis.silence import Expectation, judge_silence
from virnucpro_monitor.errors import LockedError
from virnucpro_monitor.host.alert_file import AlertFile, Channel
from virnucpro_monitor.monitor.naming import choose_target
from virnucpro_monitor.monitor.questions import judge_incidents, load_measured
from virnucpro_monitor.monitor.status import count_commits_behind, reached
from virnucpro_monitor.records import (
    Alert,
    Delivery,
    DeliveryState,
    Heartbeat,
    Json,
    Outcome,
    Run,
    SequenceResult,
    Target,
)
from virnucpro_monitor.secrecy import MASK
from virnucpro_monitor.settings import default_database_url
from virnucpro_monitor.store import alerts as store
from virnucpro_monitor.store import health_reader, reader
from virnucpro_monitor.store.connection import option_for, parse_url
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.owners import new_owner
from virnucpro_monitor.store.writer import Writer

WORST_SHOWN = 5
LEASE = "alerts"
LEASE_TTL_S = 300.0
PASS_LIMIT_S = 60.0
"""For all channels together, which are served side by side."""
NO_ANSWER = "it did not answer in time"
_GOOD_CODES = (0, 2, 3)  # a start that measured, whatever it found


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a message is written from besides the happening.

    Attributes:
        worst: the worst sequences of an incident's worst run, the worst first.
        db_option: that names the database in a command; empty where none is needed, or it would
            hold a password.
    """

    target: Target
    file: AlertFile
    worst: tuple[SequenceResult, ...]
    db_option: str
    now: datetime


Describe = Callable[[Happening, Context], tuple[str, Mapping[str, Json]]]
"""Gives a summary of one line, and the facts of the message."""
Send = Callable[[Channel, Sequence[Alert]], str]
"""Brings alerts to a channel as one message; gives what went wrong, empty where nothing did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One message that was tried.

    Attributes:
        problem: empty where it was taken.
    """

    channel: str
    alerts: tuple[Alert, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPass:
    """What one pass noted and sent.

    Attributes:
        problems: what kept it from looking, one sentence each.
    """

    alerts: tuple[Alert, ...]
    delivered: tuple[Delivered, ...]
    problems: tuple[str, ...] = ()


def pass_alerts(
    engine: Engine,
    file: AlertFile,
    target: str | None = None,
    *,
    describe: Describe,
    send: Send,
    now: datetime | None = None,
    ask_repositories: bool = True,
    limit_s: float = PASS_LIMIT_S,
) -> AlertPass:
    """Note what has happened to one target or to all, and send all that is due.

    Args:
        target: its name, path or URL; None for all.
        ask_repositories: whether commits that wait are counted, which asks each repository.

    Raises:
        NotFoundError: that target is not in the database.
        LockedError: another pass is at work.
        StoreError: the database cannot be written.
    """
    moment = now or datetime.now(UTC)
    targets = [choose_target(engine, target)] if target else reader.load_targets(engine)
    problems: list[str] = []
    with _alone(engine):
        noted = [
            alert
            for one in targets
            for alert in _note(engine, file, one, describe, moment, ask_repositories, problems)
        ]
        delivered = _deliver(engine, file, send, moment, limit_s)
    return AlertPass(
        alerts=tuple(one for one in noted if one.told),
        delivered=tuple(delivered),
        problems=tuple(problems),
    )


def load_told(
    engine: Engine, target: str | None = None
) -> tuple[tuple[Alert, tuple[Delivery, ...]], ...]:
    """Alerts that somebody was to be told, oldest first, each with its deliveries."""
    ways: dict[int, list[Delivery]] = defaultdict(list)
    for delivery in store.load_deliveries(engine):
        ways[delivery.alert_id].append(delivery)
    return tuple(
        (alert, tuple(ways[alert.id or 0]))
        for alert in store.load_alerts(engine, target)
        if alert.told
    )


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    writer, owner = Writer(engine), new_owner()
    if not writer.acquire_lease(LEASE, owner, LEASE_TTL_S):
        raise LockedError("Alerts are being sent by another program: it has them all.")
    try:
        yield
    finally:
        writer.release_lease(LEASE, owner)


def _note(
    engine: Engine,
    file: AlertFile,
    target: Target,
    describe: Describe,
    now: datetime,
    ask_repository: bool,
    problems: list[str],
) -> Iterator[Alert]:
    """Store what has happened to one target, with when it is due on each channel."""
    runs = reader.load_runs(engine, target=target.name)
    known = store.load_alerts(engine, target.name)
    series = split_series(run for run in runs if run.commit.on_branch)
    behind = None
    if ask_repository:
        behind, problem = count_commits_behind(target, reached(runs))
        if problem:
            problems.append(f"The commits of {target.name} cannot be counted: {problem}")
    expected = Expectation(silent_after=file.silent_after, max_behind=file.max_behind)
    beats = [one for one in health_reader.load_heartbeats(engine) if one.target == target.name]
    happenings = find_happenings(
        target.name,
        known,
        runs=runs,
        incidents=judge_incidents(engine, runs, now),
        movements=[
            SeriesMovement(key=key, movement=moved)
            for key, members in series.items()
            for moved in find_movements(members)
        ],
        environment=[
            move for key, members in series.items() for move in find_environment_moves(key, members)
        ],
        silences=judge_silence(
            last_sign(runs, beats), behind, expected, now, tuple(lasting_silences(known))
        ),
        now=now,
    )
    for one in happenings:
        context = Context(
            target=target,
            file=file,
            worst=_worst_sequences(engine, one),
            db_option=_db_option(engine),
            now=now,
        )
        summary, facts = describe(one, context)
        alert = Alert(
            kind=one.kind,
            target=target.name,
            keys=one.keys,
            summary=summary,
            facts=facts if one.told else {},
            told=one.told,
            created_at=now,
        )
        wanted = [one.rules for one in file.channels if alert.told and takes(one.rules, alert)]
        due = [(rules.name, first_due(rules, alert.kind, now)) for rules in wanted]
        yield replace(alert, id=store.save_alert(engine, alert, due))


def _db_option(engine: Engine) -> str:
    option = option_for(engine.url)
    is_default = option == option_for(parse_url(default_database_url()))
    return "" if is_default or MASK in option else option


def last_sign(runs: Sequence[Run], beats: Sequence[Heartbeat]) -> datetime | None:
    """When a target's runner last gave a result, or ended a start that was none of failure."""
    signs = [
        run.started_at + timedelta(seconds=run.duration_s)
        for run in runs
        if run.outcome is not Outcome.NOT_RUN
    ]
    signs += [one.at for one in beats if one.state != "finished" or one.exit_code in _GOOD_CODES]
    return max(signs, default=None)


def _worst_sequences(engine: Engine, one: Happening) -> tuple[SequenceResult, ...]:
    if not one.told or not one.incidents:
        return ()
    found = load_measured(engine, one.incidents[0].worst)[1]
    found.sort(key=lambda result: -1.0 if result.similarity is None else result.similarity)
    return tuple(found[:WORST_SHOWN])


@dataclass(frozen=True, slots=True)
class _Message:
    """Deliveries that go to one channel together."""

    channel: Channel
    deliveries: tuple[Delivery, ...]
    alerts: tuple[Alert, ...]


def _deliver(
    engine: Engine, file: AlertFile, send: Send, now: datetime, limit_s: float
) -> list[Delivered]:
    """Send what is due, channels side by side, and store what became of it."""
    alerts = {alert.id: alert for alert in store.load_alerts(engine)}
    by_channel: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in store.load_deliveries(engine):
        by_channel[delivery.channel].append(delivery)
    queues: dict[str, list[_Message]] = {}
    for channel in file.channels:
        own = by_channel.pop(channel.rules.name, [])
        queues[channel.rules.name] = _messages(engine, channel, own, alerts, now)
    for name, gone in by_channel.items():
        for one in gone:
            if one.state is DeliveryState.WAITING:
                problem = f"{file.path.name} has no channel {name} any more"
                _store_end(engine, one, DeliveryState.GIVEN_UP, problem, now)
    outcomes = _send_all(queues, send, limit_s)
    delivered = []
    for name, queue in queues.items():
        for place, message in enumerate(queue):
            if place < len(outcomes[name]):
                problem = outcomes[name][place]
            elif any(outcomes[name]):
                continue  # the channel does not work: the rest is not tried
            else:
                problem = NO_ANSWER
            # Each at a moment of its own: by that a channel's messages of an hour are counted.
            _store_outcome(engine, message, problem, now + timedelta(microseconds=place))
            delivered.append(Delivered(channel=name, alerts=message.alerts, problem=problem))
            if problem:
                break
    return delivered


def _messages(
    engine: Engine,
    channel: Channel,
    deliveries: Sequence[Delivery],
    alerts: Mapping[int | None, Alert],
    now: datetime,
) -> list[_Message]:
    """What a channel is sent now: one by one, or together where it had to wait."""
    rules = channel.rules
    due = []
    for one in deliveries:
        if one.state is not DeliveryState.WAITING or not is_due(one.due_at, now):
            continue
        later = quiet_until(rules, alerts[one.alert_id].kind, now)
        if later is not None:
            store.save_delivery(engine, replace(one, due_at=later))
        else:
            due.append(one)
    if not due:
        return []
    sent = [one.ended_at for one in deliveries if one.state is DeliveryState.SENT and one.ended_at]
    room = room_for(rules, sent, now)
    if room == 0:
        later = next_room(sent, now)
        for one in due:
            store.save_delivery(engine, replace(one, due_at=later))
        return []
    waited = any(one.due_at > alerts[one.alert_id].created_at for one in due)
    together = len(due) > 1 and (waited or (room is not None and len(due) > room))
    groups = [due] if together else [[one] for one in due]
    return [
        _Message(channel, tuple(group), tuple(alerts[one.alert_id] for one in group))
        for group in groups
    ]


def _send_all(
    queues: Mapping[str, Sequence[_Message]], send: Send, limit_s: float
) -> dict[str, list[str]]:
    """Each channel's outcomes, up to the first that failed or did not end in time."""
    outcomes: dict[str, list[str]] = {name: [] for name in queues}

    def work(queue: Sequence[_Message], results: list[str]) -> None:
        for message in queue:
            try:
                problem = send(message.channel, message.alerts)
            except Exception as error:  # of somebody else's service; its words may hold the address
                problem = f"it failed with {type(error).__name__}"
            results.append(problem)
            if problem:
                return

    # Daemons: a service that never answers must not keep the program from ending.
    threads = [
        threading.Thread(target=work, args=(queue, outcomes[name]), daemon=True)
        for name, queue in queues.items()
        if queue
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return {name: list(found) for name, found in outcomes.items()}


def _store_outcome(engine: Engine, message: _Message, problem: str, now: datetime) -> None:
    for one in message.deliveries:
        tried = replace(one, attempts=one.attempts + 1)
        again = next_attempt(tried.attempts, now) if problem else None
        if not problem:
            _store_end(engine, tried, DeliveryState.SENT, "", now)
        elif again is None:
            _store_end(engine, tried, DeliveryState.GIVEN_UP, problem, now)
        else:
            store.save_delivery(engine, replace(tried, due_at=again, problem=problem))


def _store_end(
    engine: Engine, delivery: Delivery, state: DeliveryState, problem: str, now: datetime
) -> None:
    store.save_delivery(engine, replace(delivery, state=state, ended_at=now, problem=problem))
