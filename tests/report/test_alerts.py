"""Alerts as they arrive, and what goes wrong on their way: said once, recorded, tried again."""

import html
import json
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.ports import free_port
from tests.report.receivers import Hook, Mailbox, mail_server, self_signed, web_server
from tests.runner.tiny_target import HEALTHY, TinyRepository
from tests.store.builders import START, TARGET, make_commit, make_gate, make_report
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.host.alert_file import AlertFile, read_alert_file
from virnucpro_monitor.monitor.alerting import AlertPass, load_told, pass_alerts
from virnucpro_monitor.records import DeliveryState, Outcome
from virnucpro_monitor.report import alerting, notify
from virnucpro_monitor.report.alerting import alert_after_run, run_alert_pass
from virnucpro_monitor.report.notify import send_message
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

NOW = START + timedelta(days=3, hours=3)
SECRET = "S3cr3t-pw"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with web_server() as server:
        yield server


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mail_server() as server:
        yield server


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database in which the third of three commits is broken."""
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    for number, worst in enumerate((1.0, 1.0, 0.9)):
        writer.save_run(make_report(number, (worst, 1.0, 1.0)))
    engine.dispose()
    return url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_engine(url)
    yield opened
    opened.dispose()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "alerts.toml"
    place.touch(0o600)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_ALERTS_FILE", str(place))
    return place


def channels(path: Path, **texts: str) -> AlertFile:
    """The file with these channels: an address, or an address and further lines."""
    path.write_text("".join(f"[channels.{name}]\nurl = {text}\n" for name, text in texts.items()))
    file = read_alert_file(path)
    assert file is not None
    return file


def look(url: str, file: AlertFile, **later: float) -> AlertPass:
    now = NOW + timedelta(**later)
    return run_alert_pass(url, file, now=now, ask_repositories=False)


def states(engine: Engine) -> dict[str, DeliveryState]:
    return {one.channel: one.state for _, ways in load_told(engine) for one in ways}


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("json://{place}/hook", "message"),
        ("mmost://{place}/abcdefghijklmnop", "text"),
        ("mmost://{place}/abcdefghijklmnop?format=markdown", "text"),
        ("ntfy://{place}/topic", "message"),
        ("gotify://{place}/abcdefghijklmno", "message"),
    ],
)
def test_a_mask_token_arrives_as_it_is(address: str, field: str, hook: Hook) -> None:
    body = "packed side, <mask> not zeroed\n  *a* _b_ #c & <d>"
    problem = send_message(address.format(place=f"127.0.0.1:{hook.port}"), "<mask>", body)
    assert problem == ""
    ((_, post),) = hook.posts
    arrived = post[field].replace("\\", "")
    assert "<mask> not zeroed" in arrived
    assert "<d>" in arrived


@pytest.mark.parametrize(
    ("address", "plain", "rich"),
    [
        ("matrix://me:secret-word@{place}/!room:example.org", "body", None),
        ("matrix://me:secret-word@{place}/!room:example.org?format=markdown", "body",
         "formatted_body"),
        ("matrix://me:secret-word@{place}/!room:example.org?format=html", "body", "formatted_body"),
        ("matrix://{place}/abcdefghijklmnop?mode=matrix", "text", None),
        ("matrix://{place}/abcdefghijklmnop?mode=slack", None, "text"),
    ],
)  # fmt: skip
def test_matrix_shows_a_mask_token(
    address: str, plain: str | None, rich: str | None, hook: Hook
) -> None:
    """A home server's own interface, and its two kinds of web hooks."""
    known = {"access_token": "t", "user_id": "@me:example.org", "room_id": "!r:example.org"}
    hook.reply = json.dumps(known | {"event_id": "$1"})
    body = "packed side, <mask> not zeroed\nand a & b"
    assert send_message(address.format(place=f"127.0.0.1:{hook.port}"), "<mask>", body) == ""
    (sent,) = [post for _, post in hook.posts if "not" in str(post)]
    sent = sent["attachments"][0] if "attachments" in sent else sent
    if plain is not None:
        assert "packed side, <mask> not zeroed" in sent[plain]
    if rich is not None:  # read as markup: what is no markup stands there as entities
        assert "<mask>" not in sent[rich]
        shown = html.unescape(sent[rich]).replace("\xa0", " ")
        assert "packed side, <mask> not zeroed" in shown
        assert "and a & b" in shown


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_teams_shows_a_mask_token(tmp_path: Path) -> None:
    """Its work flows are reached by TLS alone; a card's text is read as a little Markdown."""
    with web_server(self_signed(tmp_path)) as flows:
        address = f"workflows://127.0.0.1:{flows.port}/{'a' * 32}/{'b' * 43}?verify=no"
        assert send_message(address, "<mask>", "packed side, <mask> not zeroed\nand a & b") == ""
        ((path, message),) = flows.posts
    assert path.startswith(f"/workflows/{'a' * 32}/triggers/manual/paths/invoke?")
    (card,) = message["attachments"]
    texts = [one["text"].replace("\\", "") for one in card["content"]["body"] if "text" in one]
    assert texts == ["<mask>", "packed side, <mask> not zeroed\nand a & b"]


@pytest.mark.parametrize(
    ("plugin", "attribute", "address", "shown"),
    [
        # Slack reads <mask> as a link, and shows the entity as the sign.
        ("slack.NotifySlack", "webhook_url", "slack://T1JJ3T3L2/A1BRTD4JD/{token}", "&lt;mask&gt;"),
        ("discord.NotifyDiscord", "notify_url", "discord://{hook_id}/{token}", "<mask>"),
    ],
)  # fmt: skip
def test_services_with_an_address_of_their_own_get_it_escaped_as_they_ask(
    plugin: str, attribute: str, address: str, shown: str, hook: Hook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    apprise = notify._load_apprise()
    module, name = plugin.split(".")
    service = getattr(__import__(f"{apprise.__name__}.plugins.{module}", fromlist=[name]), name)
    monkeypatch.setattr(service, attribute, f"http://127.0.0.1:{hook.port}")
    given = address.format(token="TIiajkdnlazkcOXrIdevi7FQ", hook_id="1" * 18)
    assert send_message(given, "title", "packed side, <mask> not zeroed") == ""
    assert any(shown in str(post) for _, post in hook.posts)


def test_no_sequence_is_named_where_a_probe_alone_saw_the_fault(
    tmp_path: Path, path: Path, hook: Hook
) -> None:
    url = f"sqlite:///{tmp_path / 'probes.db'}"
    create_database(url)
    engine = open_engine(url)
    gate = make_gate("probes", passed=False, value=0.75, limit=1e-4)
    for number, changes in enumerate(({}, {"outcome": Outcome.FAILED, "gates": (gate,)})):
        Writer(engine).save_run(make_report(number, **changes))
    engine.dispose()
    look(url, channels(path, all=f'"{hook.url()}"\nkinds = ["broken"]'))
    ((_, post),) = hook.posts
    assert "none disagrees: 3 of 3 agree, and the gates above say what" in post["message"]
    assert "short_1" not in post["message"]


def test_a_channel_that_fails_is_recorded_tried_again_and_holds_up_no_other(
    url: str, engine: Engine, path: Path, hook: Hook, box: Mailbox
) -> None:
    hook.answers = [500]
    file = channels(
        path,
        refuses=f'"json://user:{SECRET}@127.0.0.1:{free_port()}/x"',
        offline=f'"json://user:{SECRET}@nowhere.invalid/x"',  # a name that no network knows
        breaks=f'"{hook.url()}"',
        unknown='"nosuch://a/b"',
        works=f'"{box.url}"',
    )
    done = look(url, file)
    problems = {one.channel: one.problem for one in done.delivered}
    assert problems["works"] == ""
    assert problems["unknown"] == "its address has no form that Apprise knows"
    assert "500" in problems["breaks"]
    assert problems["refuses"]
    assert problems["offline"]
    assert SECRET not in str(done)
    assert len(box.mails) == 1
    assert "short_1: 1 - cos 1.0e-1" in box.texts()[0]
    # A minute later the pause is over: the hook takes it, and the mail is not sent twice.
    again = look(url, file, minutes=2)
    assert {one.channel for one in again.delivered if not one.problem} == {"breaks"}
    assert (len(hook.posts), len(box.mails)) == (2, 1)
    assert states(engine)["breaks"] is DeliveryState.SENT
    # In the end the others are given up, and a channel that is gone too.
    for days in range(1, 12):
        look(url, channels(path, refuses=f'"json://127.0.0.1:{free_port()}"'), days=days)
    assert states(engine) == {
        "refuses": DeliveryState.GIVEN_UP,
        "offline": DeliveryState.GIVEN_UP,
        "unknown": DeliveryState.GIVEN_UP,
        "breaks": DeliveryState.SENT,
        "works": DeliveryState.SENT,
    }
    stored = Path(url.removeprefix("sqlite:///")).read_bytes()
    assert SECRET.encode() not in stored
    assert b"json://" not in stored


def test_a_channel_that_never_answers_holds_up_nobody(
    url: str, path: Path, hook: Hook, box: Mailbox
) -> None:
    notify._load_apprise()  # which takes seconds where the machine is busy, and holds up both
    hook.hold = threading.Event()
    file = channels(path, hangs=f'"{hook.url()}"', works=f'"{box.url}"')
    opened = open_engine(url)
    try:
        done = pass_alerts(
            opened, file, describe=alerting.describe_happening, send=alerting.send_alerts,
            now=NOW, ask_repositories=False, limit_s=2.0,
        )  # fmt: skip
    finally:
        opened.dispose()
    assert not hook.hold.is_set(), "it still holds the request"
    assert {one.channel: one.problem for one in done.delivered} == {
        "hangs": "it did not answer in time",
        "works": "",
    }


def test_what_waited_is_sent_together(url: str, engine: Engine, path: Path, hook: Hook) -> None:
    path.write_text(
        f'zone = "UTC"\n[channels.team]\nurl = "{hook.url()}"\nquiet = "12:00-18:00"\n'
        f'[channels.few]\nurl = "{hook.url(path="few")}"\nmax_per_hour = 1\n'
    )
    file = read_alert_file(path)
    assert file is not None
    writer = Writer(engine)
    look(url, file)  # 15 o'clock: quiet, and the first of the hour
    writer.save_run(make_report(3, started_at=NOW))
    look(url, file, minutes=30)
    assert [post["title"] for _, post in hook.posts] == [
        "sample: broken since 0002000000 “Change number 2”"
    ]
    writer.save_run(make_report(4, (0.8, 1.0, 1.0), started_at=NOW + timedelta(minutes=40)))
    look(url, file, minutes=45)
    look(url, file, hours=4)
    posts = [(place, post["title"]) for place, post in hook.posts[1:]]
    assert sorted(posts) == [("/few", "2 alerts: sample"), ("/hook", "3 alerts: sample")]
    together = next(post["message"] for place, post in hook.posts if place == "/hook")
    assert together.index("1. sample: broken since 0002") < together.index("2. sample: mended by")
    assert look(url, file, hours=5).delivered == ()


def test_a_first_look_tells_what_is_broken_now_and_nothing_old(tmp_path: Path, hook: Hook) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    create_database(url)
    opened = open_engine(url)
    similarities = [1.0] * 20 + [0.9] + [1.0] * 10 + [1 - 1e-4] * 15 + [0.8]
    Writer(opened).save_runs(
        make_report(number, (worst, 1.0, 1.0)) for number, worst in enumerate(similarities)
    )
    opened.dispose()
    path = tmp_path / "alerts.toml"
    path.touch(0o600)
    file = channels(path, all=f'"{hook.url()}"')
    now = START + timedelta(days=46, hours=5)
    run_alert_pass(url, file, now=now, ask_repositories=False)
    run_alert_pass(url, file, now=now + timedelta(hours=1), ask_repositories=False)
    assert [post["title"] for _, post in hook.posts] == [
        "sample: broken since 002e000000 “Change number 46”"
    ]


def test_a_clock_that_went_back_is_told_once(url: str, path: Path, hook: Hook) -> None:
    file = channels(path, all=f'"{hook.url()}"\nkinds = ["silent", "heard"]')
    for days in (-40, -39):
        look(url, file, days=days)
    assert [post["title"] for _, post in hook.posts] == [
        "sample: the newest result is dated 2026-03-03 14:00 UTC, which lies in the future"
    ]
    look(url, file)
    assert hook.posts[-1][1]["title"] == "sample: the runner is heard of again"


def test_commits_that_wait_are_told_while_the_runner_is_dead(tmp_path: Path, hook: Hook) -> None:
    repository = TinyRepository(tmp_path / "tiny")
    first = repository.commit(HEALTHY)
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    assert run_command(["targets", "add", "tiny", str(repository.folder), "--db", url]) == 0
    opened = open_engine(url)
    target = replace(TARGET, name="tiny", location=str(repository.folder), branch=None)
    measured = make_report(0, target=target, commit=make_commit(0, hash=first))
    Writer(opened).save_run(measured)
    opened.dispose()
    path = tmp_path / "alerts.toml"
    path.touch(0o600)
    path.write_text(f'max_behind = 2\n[channels.all]\nurl = "{hook.url()}"\n')
    file = read_alert_file(path)
    assert file is not None
    for number in range(3):
        repository.commit({**HEALTHY, "note.txt": str(number)})
    now = measured.run.started_at + timedelta(hours=1)
    assert run_alert_pass(url, file, now=now).problems == ()
    assert [post["title"] for _, post in hook.posts] == ["tiny: 3 commits wait to be measured"]
    assert run_alert_pass(url, file, now=now).delivered == ()


def test_the_commands(url: str, path: Path, hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["alerts", "init"]) == 1
    path.unlink()
    assert run_command(["alerts", "check", "--db", url]) == 1
    assert "`virnucpro-monitor alerts init` writes one" in capsys.readouterr().err
    assert run_command(["alerts", "init"]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_alert_file(path) == AlertFile(path=path)
    channels(path, good=f'"{hook.url()}"\ntitle = "{{target}} {{nosuch}}"', bad='"nosuch://x"')
    capsys.readouterr()
    assert run_command(["alerts", "test"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "good: sent", "bad: not taken: its address has no form that Apprise knows"
    ]  # fmt: skip
    assert "has 'nosuch', which is no name that it can hold" in said.err
    assert run_command(["alerts", "test", "good"]) == 0
    assert "<mask> and signs such as _ * # &" in hook.posts[-1][1]["message"]
    hook.posts.clear()
    alert_after_run(load_settings(db=url), TARGET, lambda _: None)
    titles = [post["title"] for _, post in hook.posts]
    assert "sample: broken since 0002000000 “Change number 2”" in titles
    capsys.readouterr()
    assert run_command(["alerts", "list", "--db", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("broken      sample: broken since 0002000000" in line for line in lines)
    assert "                 good sent" in lines
    assert any(line.startswith("                 bad waiting: its address") for line in lines)


def test_a_start_is_not_failed_by_its_alerts(
    url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels(path, good='"json://127.0.0.1:1"')
    said: list[str] = []
    alert_after_run(load_settings(db=f"{url}.gone"), TARGET, said.append)
    path.chmod(0o644)
    alert_after_run(load_settings(db=url), TARGET, said.append)
    path.chmod(0o600)

    def explode(*_: Any, **__: Any) -> None:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(alerting, "pass_alerts", explode)
    alert_after_run(load_settings(db=url), TARGET, said.append)
    assert len(said) == 3
    assert all(one.startswith("No alert was sent: ") for one in said)
    assert "chmod 600" in said[1]
    assert SECRET not in str(said)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'[channels.a]\nurl = "json://{SECRET}@x\n', "it is not TOML at line 2"),
        ("[channels.a]\nquiet = '22-7'", "channels.a.url in"),
        (f'[channels.a]\nurl = "json://{SECRET}"\nquiet = "late"', "channels.a.quiet in"),
        (f'[channels.a]\nurl = "json://{SECRET}"\nkinds = ["bad"]', "a list of broken, mended"),
        (f'[channels.a]\nurl = "json://{SECRET}"\nquite = "x"', "did you mean quiet?"),
        ('silent_after = "soon"', "a time such as 90m, 26h or 3d"),
        ('zone = "Mars/Olympus"', "a name such as Europe/Berlin"),
        ("max_behind = true", "a whole number of commits"),
    ],
)
def test_a_file_that_is_wrong_is_one_sentence_without_its_secrets(
    text: str, words: str, path: Path
) -> None:
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_alert_file(path)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_moment_of_a_pass_is_now_where_none_is_given(url: str, path: Path) -> None:
    done = run_alert_pass(url, channels(path), ask_repositories=False)
    assert all(abs(one.created_at - datetime.now(UTC)) < timedelta(hours=1) for one in done.alerts)
