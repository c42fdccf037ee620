from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Engine

from tests.store.builders import START, make_commit, make_report
from virnucpro_monitor.records import Alert, AlertKind, DeliveryState
from virnucpro_monitor.store.alerts import (
    load_alerts,
    load_deliveries,
    save_alert,
    save_delivery,
)
from virnucpro_monitor.store.reader import load_commits
from virnucpro_monitor.store.writer import Writer

ALERT = Alert(
    kind=AlertKind.BROKEN,
    target="sample",
    keys=("abc", "def"),
    summary="sample: broken",
    facts={"verdict": "broken", "worst": ["a <mask>", "b"]},
    created_at=START,
)


def test_an_alert_and_its_deliveries_are_kept(engine: Engine) -> None:
    later = START + timedelta(hours=8)
    alert_id = save_alert(engine, ALERT, [("team", START), ("night", later)])
    other = replace(ALERT, target="other", told=False)
    save_alert(engine, other, [])
    assert load_alerts(engine, "sample") == [replace(ALERT, id=alert_id)]
    assert [alert.told for alert in load_alerts(engine)] == [True, False]
    team, night = load_deliveries(engine)
    assert (team.channel, team.due_at, team.state) == ("team", START, DeliveryState.WAITING)
    assert (night.channel, night.due_at) == ("night", later)
    sent = replace(team, state=DeliveryState.SENT, attempts=1, ended_at=START)
    save_delivery(engine, sent)
    assert load_deliveries(engine) == [sent, night]


def test_a_commit_keeps_the_place_that_a_force_push_took(engine: Engine) -> None:
    writer = Writer(engine)
    writer.save_run(make_report(2))
    branch = [make_commit(number) for number in range(3)]
    writer.save_commits("sample", branch, whole_history=True)
    assert writer.save_commits("sample", branch[:2], whole_history=True) == 1
    gone = {commit.hash: commit for commit in load_commits(engine, "sample")}[branch[2].hash]
    assert (gone.on_branch, gone.position, gone.former_position) == (False, None, 2)
    assert gone.left_at is not None
    # Pushed again, it is on the branch as if nothing had been.
    writer.save_commits("sample", branch, whole_history=True)
    assert branch[2] in load_commits(engine, "sample")
