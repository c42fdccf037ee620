"""`runs list/show/judge`, through the real parser, on a stored history."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.reading_history import HOSTILE, make_database
from tests.protocols import worst_of_side
from tests.store.builders import make_report, store_flips
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.records import Commit
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.notes_reader import load_judgements
from virnucpro_monitor.store.writer import Writer
from virnucpro_monitor.validation.protocol import load_protocol

CONTRACT = {
    "id", "target", "commit", "benchmark", "model", "dtype", "device", "backend", "outcome",
    "num_sequences", "strict_pass_rate", "min_similarity", "gates", "culprit", "reason",
    "inherited_from", "inherited_outcome", "started_at", "duration_s",
}  # fmt: skip


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Commit]]:
    return make_database(tmp_path_factory.mktemp("history"))


@pytest.fixture
def url(history: tuple[str, list[Commit]]) -> str:
    return history[0]


@pytest.fixture
def commits(history: tuple[str, list[Commit]]) -> list[Commit]:
    return history[1]


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert run_command([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_list_is_json_with_the_oldest_commit_first(
    url: str, commits: list[Commit], capsys: pytest.CaptureFixture[str]
) -> None:
    listed = run_json(capsys, "runs", "list", "--db", url)
    assert [run["commit"] for run in listed] == [commit.hash for commit in commits]
    assert all(run.keys() >= CONTRACT for run in listed)
    assert [run["outcome"] for run in listed] == [
        "passed", "failed", "skipped", "passed", "error", "passed",
    ]  # fmt: skip
    failed, skipped, error = listed[1], listed[2], listed[4]
    assert failed["gates"]["seed"] == {
        "passed": False, "value": 1e-5, "limit": 1e-3, "unit": "1 - cos",
    }  # fmt: skip
    assert failed["gates"]["leak"]["passed"] is None
    assert failed["min_similarity"] == 0.99
    assert failed["culprit"] == "packed"
    assert skipped["inherited_from"] == commits[1].hash
    assert skipped["inherited_outcome"] == "failed"
    assert error["gates"] == {}
    assert {error[name] for name in ("num_sequences", "strict_pass_rate", "min_similarity")} == {
        None
    }
    assert error["culprit"] is None


def test_list_filters(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(*arguments: str) -> list[int]:
        return [run["id"] for run in run_json(capsys, "runs", "list", "--db", url, *arguments)]

    assert ids("--outcome", "failed", "--outcome", "error") == [2, 5]
    assert ids("--limit", "2") == [5, 6]
    assert ids("--benchmark", "seed@1", "--target", "sample") == [1, 2, 3, 4, 5, 6]


def test_list_finds_a_target_by_its_repository(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(Path(url.removeprefix("sqlite:///")).parent / "repository")
    assert len(run_json(capsys, "runs", "list", "--db", url, "--target", folder)) == 6


def test_list_prints_a_table_that_obeys_no_foreign_text(
    url: str, commits: list[Commit], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["runs", "list", "--db", url]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 7
    assert lines[2].split()[1] == commits[1].hash[:10]
    assert "failed, packed" in lines[2]
    assert "2 of 3" in lines[2]
    assert "skipped (failed)" in lines[3]
    assert "\x1b" not in captured.out
    assert "\u202e" not in captured.out
    assert "[bold]" in lines[6]


def test_list_says_when_it_is_cut(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["runs", "list", "--db", url, "--limit", "2"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3
    assert captured.err == "Only the newest 2 are shown: --limit shows more.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--outcome", "bad"], "passed, failed, error, skipped, not_run"),
        (["--target", "nobody"], "There is no target 'nobody' in the database; known: sample."),
        (["--limit", "0"], "Invalid value for '--limit'"),
    ],
)
def test_list_refuses_what_it_does_not_know(
    url: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["runs", "list", "--db", url, *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err


def test_an_empty_database_is_an_empty_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    create_database(url)
    assert run_json(capsys, "runs", "list", "--db", url) == []
    assert run_command(["runs", "list", "--db", url]) == 0
    assert "No stored run fits" in capsys.readouterr().err


def test_a_missing_database_is_one_sentence_and_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "missing.db"
    assert run_command(["runs", "list", "--json", "--db", f"sqlite:///{path}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert not path.exists()


@pytest.mark.parametrize("by", ["number", "hash", "short hash"])
def test_show_finds_a_run_by_number_and_by_commit(
    by: str, url: str, commits: list[Commit], capsys: pytest.CaptureFixture[str]
) -> None:
    name = {"number": "2", "hash": commits[1].hash, "short hash": commits[1].hash[:8]}[by]
    shown = run_json(capsys, "runs", "show", name, "--db", url)
    assert shown["id"] == 2
    assert shown["commit"] == commits[1].hash
    assert shown["environment"]["host"] == "runner-1"
    assert shown["worst_sequences"][0]["sequence_id"] == "short_1"
    assert shown["failure"] is None
    assert commits[1].hash in shown["reproduce"]
    assert shown["protocol_digest"] == make_report().protocol.digest


@pytest.mark.parametrize(("name", "run_id"), [("main", 6), ("v1", 3), ("HEAD", 6)])
def test_show_asks_the_repository_for_branches_and_tags(
    name: str, run_id: int, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_json(capsys, "runs", "show", name, "--db", url)["id"] == run_id


def test_show_prints_all_that_a_verdict_rests_on(
    url: str, commits: list[Commit], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["runs", "show", "2", "--db", url]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Failed: short_1 differs.")
    for part in (
        commits[1].hash,
        "seed@1 SHA-256 bbbb",
        "wrong side    packed",
        "torch 2.13.0",
        "1 digest",
        "seed  FAILED",
        "leak  not judged",
        "short_1",
        "virnucpro-monitor run --target sample --commit",
    ):
        assert part in printed


def test_show_of_a_skipped_run_shows_what_it_inherits(
    url: str, commits: list[Commit], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run_json(capsys, "runs", "show", "3", "--db", url)
    assert shown["measured_run"] == 2
    assert shown["worst_sequences"][0]["similarity"] == 0.99
    assert run_command(["runs", "show", "3", "--db", url]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Skipped, inherits failed from {commits[1].hash[:10]}")
    assert f"from run 2 of {commits[1].hash}" in printed


def test_show_of_an_error_prints_the_traceback_and_the_output(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["runs", "show", "5", "--db", url]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Could not be run: sample cannot be imported")
    assert "Traceback (most recent call last):" in printed
    assert "a line of its output" in printed
    assert "\x1b" not in printed
    shown = run_json(capsys, "runs", "show", "5", "--db", url)
    assert HOSTILE in shown["failure"]["traceback"]


@pytest.mark.parametrize(("name", "part"), [("a.md", "short\\_1"), ("a.xml", 'name="short_1"')])
def test_show_writes_a_report_besides(
    name: str, part: str, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / name
    assert run_json(capsys, "runs", "show", "2", "--db", url, "--output", str(file))["id"] == 2
    assert part in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("999", "There is no run 999"),
        ("feedfacefeed", "is no commit of sample in the database"),
        ("no-such-branch", "is no commit of sample in the database"),
        ("--", "Missing argument"),
    ],
)
def test_show_of_what_is_not_there_is_one_sentence(
    name: str, message: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["runs", "show", "--db", url, name]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_an_ambiguous_hash_lists_the_candidates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'twins.db'}"
    create_database(url)
    engine = open_engine(url)
    for number in (0xABC1, 0xABC2):
        Writer(engine).save_run(make_report(number))
    engine.dispose()
    assert run_command(["runs", "show", "abc", "--db", url]) == 1
    error = capsys.readouterr().err
    assert "'abc' fits 2 commits of sample" in error
    assert "abc1000000" in error
    assert "abc2000000" in error


def test_several_targets_need_a_choice_unless_the_commit_tells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    from tests.store.builders import TARGET

    url = f"sqlite:///{tmp_path / 'two.db'}"
    create_database(url)
    engine = open_engine(url)
    Writer(engine).save_run(make_report(0xAAA1))
    other = replace(TARGET, name="other", location="elsewhere")
    Writer(engine).save_run(make_report(0xBBB1, target=other))
    engine.dispose()
    assert run_json(capsys, "runs", "show", "bbb1", "--db", url)["target"] == "other"
    assert run_command(["runs", "show", "main", "--db", url]) == 1
    assert "choose by --target (other, sample)" in capsys.readouterr().err


def test_judge_stores_a_new_judgement_and_leaves_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = make_database(tmp_path)
    protocol = load_protocol()
    arguments = ["runs", "judge", "2", "--protocol", protocol.version, "--db", url]
    (previewed,) = run_json(capsys, *arguments, "--dry-run", code=2)
    engine = open_engine(url)
    assert load_judgements(engine, 2) == []
    (judged,) = run_json(capsys, *arguments, code=2)
    (stored,) = load_judgements(engine, 2)
    engine.dispose()
    assert stored.protocol_digest == protocol.digest == judged["protocol_digest"]
    assert judged["outcome"] == previewed["outcome"] == "failed"
    assert {gate["name"] for gate in judged["gates"]} >= {"seed", "gain", "residue"}
    assert run_json(capsys, "runs", "show", "2", "--db", url)["outcome"] == "failed"
    assert run_command(["runs", "show", "2", "--db", url]) == 0
    assert f"Under protocol {protocol.version}: failed." in capsys.readouterr().out


def test_judge_takes_all_measured_runs_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = make_database(tmp_path)
    judged = run_json(capsys, "runs", "judge", "--db", url, "--dry-run", code=2)
    assert [judgement["run_id"] for judgement in judged] == [1, 2, 4, 6]
    assert run_command(["runs", "judge", "--db", url]) == 2
    assert f"Under protocol {load_protocol().version}" in capsys.readouterr().out


def test_judge_refuses_a_protocol_tighter_than_the_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = make_database(tmp_path)
    report = make_report(0xCCC1)
    healthy = {"packed_relative_l2": 1e-6, "unpacked_relative_l2": 5e-7, "gain": 1.0 + 1e-7}
    sequences = tuple(
        replace(one, worst_residue_similarity=1.0, **healthy) for one in report.sequences
    )
    engine = open_engine(url)
    run_id = Writer(engine).save_run(replace(report, sequences=sequences))
    engine.dispose()
    content = copy.deepcopy(dict(load_protocol().content))
    content["version"] = "mine"
    own = f"float32, {report.run.configuration.model}"
    content["limits"][own]["ceiling"] = 1e-9
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps(content))
    arguments = ["runs", "judge", str(run_id), "--protocol", str(mine), "--db", url]
    assert run_command(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"its ceiling gate allows 1.0e-09 in {own} and would fail this run for 1.0e-06" in (
        captured.err
    )
    assert f"healthy runs have had up to {worst_of_side(content, own):.1e}" in captured.err
    engine = open_engine(url)
    assert load_judgements(engine, run_id) == []
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["3"], "Run 3 inherits from"),
        (["5"], "Run 5 holds no measures (error)."),
        (["2", "--protocol", "0"], "There is no protocol '0'"),
    ],
)
def test_judge_refuses_what_it_cannot_judge(
    arguments: list[str], message: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["runs", "judge", "--db", url, "--dry-run", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_verdict_that_flipped_is_never_the_last_ones_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'flips.db'}"
    store_flips(url)
    first, steady = run_json(capsys, "runs", "list", "--db", url)
    assert (first["outcome"], first["flips"], steady["flips"]) == ("passed", 2, 0)
    shown = run_json(capsys, "runs", "show", "3", "--db", url)
    assert (shown["attempts"], shown["flips"]) == (["passed", "failed", "passed"], 2)
    assert run_command(["runs", "list", "--db", url]) == 0
    assert "flipped 2 x" in " ".join(capsys.readouterr().out.split())
    assert run_command(["runs", "show", "3", "--db", url]) == 0
    told = "2: the same code in this set-up gave passed, failed, passed"
    assert told in capsys.readouterr().out
    (status,) = run_json(capsys, "status", "--db", url)
    assert status["flips"] == {first["commit"]: 2}
    assert run_command(["status", "--db", url]) == 0
    assert f"both passed and failed: {first['commit'][:10]} (2)" in capsys.readouterr().out
