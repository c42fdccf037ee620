"""`incidents list/ack/reopen`, through the real parser, on a stored history."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.store.builders import make_report
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

BAD = (0.99, 1.0, 0.9999)
WORSE = (0.5, 1.0, 0.9999)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Good, bad, good, bad, bad: one recovered incident and an open one."""
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    store(url, make_report(0), make_report(1, BAD), make_report(2))
    store(url, make_report(3, BAD), make_report(4, BAD))
    return url


def store(url: str, *reports: Any) -> None:
    engine = open_engine(url)
    for report in reports:
        Writer(engine).save_run(report)
    engine.dispose()


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run_command([*arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def open_key(capsys: pytest.CaptureFixture[str], url: str) -> str:
    (incident,) = run_json(capsys, "incidents", "list", "--state", "open", "--db", url)
    return str(incident["key"])


def test_list_keeps_the_recovered_ones(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    recovered, open_one = run_json(capsys, "incidents", "list", "--db", url)
    assert (recovered["state"], open_one["state"]) == ("fixed", "open")
    assert recovered["fixed_by"]["position"] == 2
    assert open_one["first_bad"]["position"] == 3
    assert open_one["last_good"]["position"] == 2
    assert open_one["num_bad_runs"] == 2
    assert open_one["gates"] == ["seed"]
    assert open_one["culprit"] == "packed"
    assert open_one["worst_error"] == pytest.approx(0.01)
    assert open_one["acknowledgement"] is None


def test_list_prints_a_table(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["incidents", "list", "--db", url]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert "packed side, gate seed" in captured.out
    counts = "1 open, 0 acknowledged, 0 not seen since, 0 rewritten away, 1 fixed"
    assert captured.err == f"2 incidents: {counts}.\n"


def test_acknowledge_and_reopen(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = open_key(capsys, url)
    acknowledged = run_json(
        capsys, "incidents", "ack", key[:6], "--why", "Known.", "--who", "Ada", "--expires", "30d",
        "--reopen-if-worse-than", "0.1", "--scope", "until the release", "--db", url,
    )  # fmt: skip
    assert acknowledged["state"] == "acknowledged"
    given = acknowledged["acknowledgement"]
    assert (given["who"], given["why"], given["scope"]) == ("Ada", "Known.", "until the release")
    assert given["reopen_if_worse_than"] == 0.1
    assert given["expires_at"] > given["created_at"]
    assert run_json(capsys, "incidents", "list", "--state", "open", "--db", url) == []

    reopened = run_json(capsys, "incidents", "reopen", key, "--who", "Grace", "--db", url)
    assert reopened["state"] == "open"
    assert reopened["reopened_because"] == "It was reopened by Grace."
    assert run_command(["incidents", "list", "--db", url]) == 0
    assert f"{key}: It was reopened by Grace." in capsys.readouterr().err
    assert run_command(["incidents", "reopen", key, "--db", url]) == 1
    assert f"Incident {key} is not acknowledged." in capsys.readouterr().err


def test_acknowledging_says_what_holds_and_refuses_what_is_fixed(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = open_key(capsys, url)
    arguments = ["--why", "Known.", "--who", "Ada", "--expires", "30d", "--db", url]
    assert run_command(["incidents", "ack", key, *arguments]) == 0
    said = capsys.readouterr().out
    assert "Acknowledged by Ada, until 20" in said
    assert said.endswith(": Known.\n")
    (fixed,) = run_json(capsys, "incidents", "list", "--state", "fixed", "--db", url)
    assert run_command(["incidents", "ack", fixed["key"], *arguments]) == 1
    assert "there is nothing left to acknowledge" in capsys.readouterr().err


def test_a_worse_run_reopens_by_itself(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = open_key(capsys, url)
    arguments = ["--why", "Known.", "--who", "Ada", "--reopen-if-worse-than", "0.1"]
    run_json(capsys, "incidents", "ack", key, *arguments, "--db", url)
    # The clock of these tests' runs lies before today: this one starts after the acknowledgement.
    store(url, make_report(2000, WORSE))
    listed = run_json(capsys, "incidents", "list", "--db", url)
    reopened = next(one for one in listed if one["key"] == key)
    assert reopened["state"] == "open"
    assert "above the 1.0e-01 that was accepted" in reopened["reopened_because"]


def test_the_login_is_who_by_default(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "lovelace")
    key = open_key(capsys, url)
    acknowledged = run_json(capsys, "incidents", "ack", key, "--why", "Known.", "--db", url)
    assert acknowledged["acknowledgement"]["who"] == "lovelace"


def test_people_get_a_sentence(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    key = open_key(capsys, url)
    assert run_command(["incidents", "ack", key, "--why", "x", "--who", "Ada", "--db", url]) == 0
    assert capsys.readouterr().out.startswith(f"{key}  acknowledged: Packed side, gate seed, since")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["list", "--state", "bad"],
            "'bad' is no state: use open, acknowledged, not_seen, rewritten, fixed.",
        ),
        (["ack", "ffffffffffff", "--why", "x"], "There is no incident 'ffffffffffff'"),
        (["ack", "", "--why", "x"], "There is no incident ''"),
        (["ack", "KEY", "--why", "  "], "--why is empty"),
        (["ack", "KEY"], "Missing option '--why'"),
        (["ack", "KEY", "--why", "x", "--expires", "soon"], "'soon' is no date"),
        (["ack", "KEY", "--why", "x", "--expires", "2020-01-01"], "lies in the past"),
        (["ack", "KEY", "--why", "x", "--expires", "2026-13-01"], "is not a date"),
        (["ack", "KEY", "--why", "x", "--reopen-if-worse-than", "nan"], "reopen"),
        (["ack", "KEY", "--why", "x", "--reopen-if-worse-than", "-1"], "Invalid value"),
    ],
)
def test_bad_input_is_one_sentence_and_stores_nothing(
    arguments: list[str], message: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = open_key(capsys, url)
    filled = [key if argument == "KEY" else argument for argument in arguments]
    assert run_command(["incidents", *filled, "--db", url]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert open_key(capsys, url) == key
