"""`regressions`, through the real parser, on a stored history."""

import json
from typing import Any

import pytest

from tests.cli.reading_history import make_database
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.records import Commit


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Commit]]:
    return make_database(tmp_path_factory.mktemp("history"))


def find(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> Any:
    assert run_command(["regressions", *arguments, "--db", url, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def first_bad(incidents: list[dict[str, Any]]) -> list[str]:
    return [incident["first_bad"]["commit"] for incident in incidents]


def test_the_whole_history(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    found = find(capsys, url)
    assert found["broken"] == []
    assert first_bad(found["recovered"]) == [commits[1].hash, commits[4].hash]
    assert [incident["cause"] for incident in found["recovered"]] == ["failed", "error"]
    assert (found["num_judged"], found["num_series"]) == (1, 1)


@pytest.mark.parametrize(
    ("since", "until", "broken", "recovered", "fixed"),
    [
        ("0", "1", [1], [], []),
        ("0", "v1", [1], [], []),
        ("1", "3", [], [], [1]),
        ("2026-03-01", "2026-03-02", [1], [], []),
        ("3", None, [], [4], []),
        ("2026-03-05T12:00:00+00:00", None, [], [], [4]),
        ("3", "main", [], [4], []),
    ],
)
def test_a_range_of_commits_or_dates(
    since: str,
    until: str | None,
    broken: list[int],
    recovered: list[int],
    fixed: list[int],
    history: tuple[str, list[Commit]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, commits = history

    def name(text: str) -> str:
        return commits[int(text)].hash[:12] if len(text) == 1 else text

    arguments = ["--since", name(since), *(["--until", name(until)] if until else [])]
    found = find(capsys, url, *arguments)
    for part, places in (("broken", broken), ("recovered", recovered), ("fixed", fixed)):
        assert first_bad(found[part]) == [commits[place].hash for place in places], part


def test_an_age_reaches_back_from_now(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    found = find(capsys, history[0], "--since", "90y")
    assert len(found["recovered"]) == 2
    nothing = find(capsys, history[0], "--since", "0d")
    assert (nothing["num_judged"], nothing["num_series"]) == (0, 1)
    assert len(nothing["vanished"]) == 1


def test_people_get_a_sentence_and_tables(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    assert run_command(["regressions", "--db", url, "--until", commits[1].hash]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1 incident begun and not fixed; 1 of 1 series could be judged.")
    assert commits[1].hash[:10] in printed
    assert run_command(["regressions", "--db", url, "--since", "0d"]) == 0
    printed = capsys.readouterr().out
    assert "No regression; 0 of 1 series could be judged; 1 vanished." in printed
    assert "Vanished: no run in the range" in printed


def test_the_exit_code_tells_lasting_ones_only_where_asked(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    until = ["--until", commits[1].hash]
    assert run_command(["regressions", "--db", url, *until, "--exit-code"]) == 2
    assert run_command(["regressions", "--db", url, "--exit-code"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("since", "message"),
    [
        ("2026-02-31", "'2026-02-31' is not a date"),
        ("feedfacefeed", "is no commit of sample"),
        ("", "is no commit of sample"),
    ],
)
def test_a_bound_that_is_neither_is_one_sentence(
    since: str,
    message: str,
    history: tuple[str, list[Commit]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["regressions", "--db", history[0], "--since", since]) == 1
    assert message in capsys.readouterr().err
