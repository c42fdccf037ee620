"""What a pass of the alerts notes and sends, with senders of the test's own: whole records."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.store.builders import START, TARGET, make_report, make_run
from virnucpro_monitor.analysis.happenings import Happening
from virnucpro_monitor.errors import LockedError, NotFoundError
from virnucpro_monitor.host.alert_file import AlertFile, Channel
from virnucpro_monitor.monitor import alerting
from virnucpro_monitor.monitor.alerting import (
    AlertPass,
    Context,
    Delivered,
    last_sign,
    load_told,
    pass_alerts,
)
from virnucpro_monitor.records import (
    Alert,
    AlertKind,
    ChannelRules,
    Delivery,
    DeliveryState,
    Heartbeat,
    Outcome,
    RunReport,
)
from virnucpro_monitor.store import alerts as store_alerts
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

NOW = START + timedelta(days=3)
WAITING, SENT, GIVEN_UP = DeliveryState.WAITING, DeliveryState.SENT, DeliveryState.GIVEN_UP
OTHER = replace(TARGET, name="other", location="https://example.org/other.git")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    opened = open_engine(url)
    yield opened
    opened.dispose()


def save(engine: Engine, *reports: RunReport) -> None:
    for report in reports:
        Writer(engine).save_run(report)


def channel(name: str, **rules: Any) -> Channel:
    return Channel(rules=ChannelRules(**{"name": name, "zone": UTC, **rules}), url=f"x://{name}")


def alert_file(*channels: Channel, **values: Any) -> AlertFile:
    given = {"path": Path("alerts.toml"), "silent_after": None, "channels": channels}
    return AlertFile(**{**given, **values})


@dataclass
class Senders:
    """What a pass asked to be described and sent, and what is answered."""

    problems: dict[str, list[str]] = field(default_factory=dict)
    described: list[tuple[Happening, Context]] = field(default_factory=list)
    sent: list[tuple[str, tuple[int | None, ...]]] = field(default_factory=list)

    def describe(self, one: Happening, context: Context) -> tuple[str, dict[str, Any]]:
        self.described.append((one, context))
        return f"{one.kind} {one.keys[0]}", {"verdict": one.target}

    def send(self, to: Channel, alerts: Sequence[Alert]) -> str:
        name = to.rules.name
        self.sent.append((name, tuple(one.id for one in alerts)))
        left = self.problems.get(name, [])
        return left.pop(0) if left else ""


@pytest.fixture
def senders() -> Senders:
    return Senders()


@pytest.fixture
def look(engine: Engine, senders: Senders) -> Callable[..., AlertPass]:
    def look(file: AlertFile, now: datetime = NOW, **others: Any) -> AlertPass:
        values = {"describe": senders.describe, "send": senders.send, "ask_repositories": False}
        return pass_alerts(engine, file, now=now, **{**values, **others})

    return look


def wait(
    engine: Engine, *channels: str, kind: AlertKind = AlertKind.BROKEN, due: datetime = NOW,
    made: datetime = NOW, told: bool = True, target: str = "nowhere", copies: int = 1,
) -> None:  # fmt: skip
    """Alerts that wait to be sent, of a target that is not looked at."""
    for number in range(copies):
        one = Alert(
            kind=kind, target=target, keys=(f"k{number}",), summary="", told=told, created_at=made
        )
        store_alerts.save_alert(engine, one, [(name, due) for name in channels])


def stored(engine: Engine) -> list[Delivery]:
    return store_alerts.load_deliveries(engine)


def test_a_pass_notes_what_happened_with_what_its_message_needs_and_sends_it(
    engine: Engine, senders: Senders, look: Callable[..., AlertPass]
) -> None:
    save(engine, make_report(0), make_report(1, (0.98, 1.0, 0.9)))
    file = alert_file(
        channel("all"),
        channel("mends", kinds=frozenset({AlertKind.MENDED})),
        channel("later", digest=time(18)),
    )
    done = look(file)
    (watched, _), (broken, context) = senders.described
    assert (watched.kind, watched.told, watched.target) == (AlertKind.HEARD, False, "sample")
    (incident,) = broken.incidents
    assert incident.first_bad.commit.hash == "0001".ljust(40, "0")
    alert = Alert(
        id=2, kind=AlertKind.BROKEN, target="sample", keys=(incident.key,),
        summary=f"broken {incident.key}", facts={"verdict": "sample"}, created_at=NOW,
    )  # fmt: skip
    assert done == AlertPass(
        alerts=(alert,), delivered=(Delivered(channel="all", alerts=(alert,)),)
    )
    noted = Alert(
        id=1, kind=AlertKind.HEARD, target="sample", keys=("watched",), summary="heard watched",
        told=False, created_at=NOW,
    )  # fmt: skip
    assert store_alerts.load_alerts(engine) == [noted, alert]
    assert [one.sequence_id for one in context.worst] == ["short_3", "short_1", "short_2"]
    assert senders.described[0][1].worst == ()
    named = f"--db sqlite:///{engine.url.database}"
    assert context == Context(
        target=context.target, file=file, worst=context.worst, db_option=named, now=NOW
    )
    assert (context.target.name, context.target.location) == ("sample", TARGET.location)
    six = datetime.combine(NOW.date(), time(18), tzinfo=UTC)
    ways = (
        Delivery(id=1, alert_id=2, channel="all", state=SENT, attempts=1, due_at=NOW, ended_at=NOW),
        Delivery(id=2, alert_id=2, channel="later", due_at=six),
    )
    assert load_told(engine) == ((alert, ways),)
    assert load_told(engine, "other") == ()
    assert look(file) == AlertPass(alerts=(), delivered=())


def test_one_target_is_looked_at_or_all(
    engine: Engine, senders: Senders, look: Callable[..., AlertPass]
) -> None:
    save(engine, make_report(0), make_report(0, target=OTHER))
    file = alert_file()
    look(file, target="other")
    assert [context.target.name for _, context in senders.described] == ["other"]
    look(file)
    assert [context.target.name for _, context in senders.described] == ["other", "sample"]
    with pytest.raises(NotFoundError, match="nosuch"):
        look(file, target="nosuch")


def test_the_default_database_needs_no_option_and_a_password_is_not_written(
    engine: Engine, senders: Senders, look: Callable[..., AlertPass],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    save(engine, make_report(0))
    monkeypatch.setattr(alerting, "default_database_url", lambda: str(engine.url))
    look(alert_file())
    assert senders.described[-1][1].db_option == ""
    monkeypatch.undo()
    monkeypatch.setattr(alerting, "option_for", lambda url: f"--db x://me:{alerting.MASK}@{url}")
    save(engine, make_report(0, target=OTHER))
    look(alert_file())
    assert senders.described[-1][0].target == "other"
    assert senders.described[-1][1].db_option == ""


def test_silence_and_commits_that_wait_are_judged_by_the_file(
    engine: Engine, senders: Senders, look: Callable[..., AlertPass],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    save(engine, make_report(0), make_report(0, target=OTHER))
    asked: list[tuple[str, set[str]]] = []

    def count(target: Any, seen: set[str]) -> tuple[int | None, str | None]:
        asked.append((target.name, seen))
        return (None, "it is gone.") if target.name == "other" else (7, None)

    monkeypatch.setattr(alerting, "count_commits_behind", count)
    heard = START + timedelta(hours=2, seconds=1.5)
    file = alert_file(silent_after=timedelta(hours=5), max_behind=6)
    done = look(file, now=heard + timedelta(hours=5), ask_repositories=True)
    assert sorted(asked) == [("other", {"0" * 40}), ("sample", {"0" * 40})]
    assert done.problems == ("The commits of other cannot be counted: it is gone.",)
    assert [one.keys for one in done.alerts] == [(f"behind:{heard.isoformat()}",)]
    done = look(file, now=heard + timedelta(hours=5, seconds=1))
    assert sorted((one.target, one.keys) for one in done.alerts) == [
        (name, (f"unheard:{heard.isoformat()}",)) for name in ("other", "sample")
    ]
    # Only a sign of the target's own runner counts.
    beat = Heartbeat(host="h", target="sample", state="idle", message="", at=NOW)
    monkeypatch.setattr(alerting.health_reader, "load_heartbeats", lambda _: [beat])
    done = look(file, now=NOW)
    assert [(one.target, one.kind) for one in done.alerts] == [("sample", AlertKind.HEARD)]


def test_the_last_sign_of_life_is_a_result_or_a_start_that_was_none_of_failure() -> None:
    def beat(hours: int, state: str = "finished", code: int | None = None) -> Heartbeat:
        at = START + timedelta(hours=hours)
        return Heartbeat(host="h", target="t", state=state, message="", at=at, exit_code=code)

    measured = [make_run(0, duration_s=60.0), make_run(1, outcome=Outcome.NOT_RUN)]
    end = START + timedelta(hours=2, seconds=60)
    assert last_sign([], []) is None
    assert last_sign(measured, []) == end
    assert last_sign(measured, [beat(1), beat(9, code=1), beat(9, code=4)]) == end
    for sign in (beat(9, code=0), beat(9, code=2), beat(9, code=3), beat(9, "running", 1)):
        assert last_sign(measured, [sign]) == sign.at


def test_a_pass_waits_for_no_other_and_gives_its_lease_back(
    engine: Engine, look: Callable[..., AlertPass]
) -> None:
    writer = Writer(engine)
    assert writer.acquire_lease("alerts", "somebody", 60.0)
    with pytest.raises(LockedError, match=r"^Alerts are being sent by another program: it has"):
        look(alert_file())
    writer.release_lease("alerts", "somebody")
    look(alert_file())
    assert writer.acquire_lease("alerts", "somebody", 60.0)


def test_a_channel_that_fails_is_left_and_tried_again_until_it_is_given_up(
    engine: Engine, senders: Senders, look: Callable[..., AlertPass]
) -> None:
    wait(engine, "bad", "good", copies=2)
    senders.problems["bad"] = [f"no {number}" for number in range(20)]
    file = alert_file(channel("bad"), channel("good"))
    done = look(file)
    assert [(one.channel, [a.id for a in one.alerts], one.problem) for one in done.delivered] == [
        ("bad", [1], "no 0"), ("good", [1], ""), ("good", [2], "")
    ]  # fmt: skip
    bad = Delivery(
        id=1, alert_id=1, channel="bad", attempts=1, due_at=NOW + timedelta(minutes=1),
        problem="no 0",
    )  # fmt: skip
    good = Delivery(
        id=2, alert_id=1, channel="good", state=SENT, attempts=1, due_at=NOW, ended_at=NOW
    )
    untried = Delivery(id=3, alert_id=2, channel="bad", due_at=NOW)
    second = replace(good, id=4, alert_id=2, ended_at=NOW + timedelta(microseconds=1))
    assert stored(engine) == [bad, good, untried, second]
    now = NOW
    for pause in (1, 5, 15, 60, 180, 360, 720, 1440):
        now += timedelta(minutes=pause)
        look(file, now=now)
    gone = stored(engine)[0]
    assert (gone.state, gone.attempts, gone.ended_at) == (GIVEN_UP, 9, now)
    assert gone.problem.startswith("no ")


def test_what_waits_for_a_channel_that_is_gone_is_given_up(
    engine: Engine, look: Callable[..., AlertPass]
) -> None:
    wait(engine, "stays", "gone")
    look(alert_file(channel("stays"), channel("gone", quiet=(time(0), time(23)))))
    assert [one.state for one in stored(engine)] == [SENT, WAITING]
    (sent, waiting), later = stored(engine), NOW + timedelta(hours=1)
    assert look(alert_file(), now=later).delivered == ()
    problem = "alerts.toml has no channel gone any more"
    assert stored(engine) == [
        sent, replace(waiting, state=GIVEN_UP, ended_at=later, problem=problem)
    ]  # fmt: skip


def test_quiet_hours_move_what_is_due_to_their_end_and_urgent_kinds_pass(
    engine: Engine, senders: Senders, look: Callable[..., AlertPass]
) -> None:
    wait(engine, "night")
    wait(engine, "night", kind=AlertKind.SILENT)
    wait(engine, "night", due=NOW + timedelta(hours=1))
    rules = {"quiet": (time(10), time(20)), "urgent": frozenset({AlertKind.SILENT})}
    file = alert_file(channel("night", **rules))
    look(file)
    assert senders.sent == [("night", (2,))]
    end = datetime.combine(NOW.date(), time(20), tzinfo=UTC)
    assert [one.due_at for one in stored(engine)] == [end, NOW, NOW + timedelta(hours=1)]
    look(file, now=end)
    assert senders.sent[1:] == [("night", (1, 3))], "they waited: one message"


def test_no_more_messages_an_hour_than_a_channel_takes(
    engine: Engine, senders: Senders, look: Callable[..., AlertPass]
) -> None:
    file = alert_file(channel("few", max_per_hour=2))
    wait(engine, "few", copies=2)
    look(file)
    assert senders.sent == [("few", (1,)), ("few", (2,))], "as many as it takes: one by one"
    later = NOW + timedelta(minutes=20)
    wait(engine, "few", made=later, due=later, copies=3)
    look(file, now=later)
    assert len(senders.sent) == 2, "two messages of one pass are two"
    free = NOW + timedelta(hours=1)
    assert [one.due_at for one in stored(engine)[2:]] == [free] * 3
    free += timedelta(seconds=1)
    look(file, now=free)
    assert senders.sent[2:] == [("few", (3, 4, 5))]
    soon = free + timedelta(minutes=30)
    wait(engine, "few", made=soon, due=soon, copies=2)
    look(file, now=soon)
    assert senders.sent[3:] == [("few", (6, 7))], "more than there is room for: together"
    wait(engine, "few", made=soon, due=soon)
    look(file, now=soon + timedelta(minutes=1))
    assert len(senders.sent) == 4


def test_what_breaks_and_what_hangs_is_told_without_the_services_own_words(
    engine: Engine, look: Callable[..., AlertPass]
) -> None:
    wait(engine, "breaks", "hangs", "works", copies=2)
    held = threading.Event()

    def send(to: Channel, alerts: Sequence[Alert]) -> str:
        if to.rules.name == "breaks":
            raise RuntimeError("https://user:secret@host")
        if to.rules.name == "hangs":
            held.wait()
        return ""

    file = alert_file(channel("breaks"), channel("hangs"), channel("works"))
    try:
        done = look(file, send=send, limit_s=0.5)
    finally:
        held.set()
    assert [(one.channel, one.problem) for one in done.delivered] == [
        ("breaks", "it failed with RuntimeError"),
        ("hangs", "it did not answer in time"),
        ("works", ""),
        ("works", ""),
    ]


def test_alerts_are_listed_with_their_own_deliveries_and_without_those_only_noted(
    engine: Engine,
) -> None:
    wait(engine, "a", "b")
    wait(engine, "a", told=False)
    wait(engine, "a", target="other")
    listed = [
        (alert.id, [one.id for one in ways]) for alert, ways in load_told(engine)
    ]  # fmt: skip
    assert listed == [(1, [1, 2]), (3, [4])]
    assert [alert.id for alert, _ in load_told(engine, "other")] == [3]
