"""`compare BASE HEAD`, through the real parser, on a stored history."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.reading_history import make_database
from tests.store.builders import BENCHMARK, make_gate, make_report
from virnucpro_monitor.analysis.comparison import compare_runs
from virnucpro_monitor.cli.compare import print_comparison
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.records import Commit
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Commit]]:
    return make_database(tmp_path_factory.mktemp("history"))


def compare_json(
    capsys: pytest.CaptureFixture[str], url: str, *arguments: str, code: int = 0
) -> Any:
    assert run_command(["compare", *arguments, "--db", url, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_break_is_told_sequence_by_sequence(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    found = compare_json(capsys, url, commits[0].hash[:9], commits[1].hash)
    assert (found["base"], found["head"]) == (commits[0].hash, commits[1].hash)
    (comparison,) = found["comparisons"]
    assert comparison["verdict"] == "broke"
    assert comparison["comparable"] is True
    assert comparison["newly_failing"] == ["short_1"]
    assert comparison["equal"] == ["short_2", "short_3"]
    assert (comparison["num_compared"], comparison["num_sequences"]) == (3, 3)
    (first, *_) = comparison["sequences"]
    assert (first["base_similarity"], first["head_similarity"]) == (0.99999, 0.99)
    assert comparison["gates"][0] == {
        "name": "seed",
        "mark": "!",
        "base": {"passed": True, "value": 1e-5, "limit": 1e-3, "unit": "1 - cos"},
        "head": {"passed": False, "value": 1e-5, "limit": 1e-3, "unit": "1 - cos"},
    }


def test_branches_and_tags_are_commits_too(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    found = compare_json(capsys, url, "v1", "main")
    assert (found["base"], found["head"]) == (commits[2].hash, commits[5].hash)
    (comparison,) = found["comparisons"]
    assert comparison["verdict"] == "fixed"
    assert comparison["newly_fixed"] == ["short_1"]
    assert comparison["base"]["measured_run"] == 2  # the tag's own run was skipped


def test_an_inherited_run_equals_what_it_inherits(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    assert run_command(["compare", commits[1].hash, commits[2].hash, "--db", url]) == 0
    assert "both stand on one measurement" in capsys.readouterr().out


def test_a_run_without_measures_is_said_to_be_incomparable(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    (comparison,) = compare_json(capsys, url, commits[3].hash, commits[4].hash)["comparisons"]
    assert comparison["verdict"] == "unknown"
    assert comparison["comparable"] is False
    assert comparison["only_in_base"] == ["short_1", "short_2", "short_3"]


def test_the_table_shows_marks_and_hides_what_is_quiet(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    arguments = ["compare", commits[0].hash, commits[1].hash, "--db", url]
    assert run_command(arguments) == 0
    captured = capsys.readouterr()
    assert "The promise broke" in captured.out
    assert "!  short_1" in captured.out
    assert "short_2" not in captured.out
    assert "! newly bad" in captured.err
    assert run_command([*arguments, "--all"]) == 0
    assert "short_2" in capsys.readouterr().out


def test_the_marks_of_gates_have_a_legend_too(capsys: pytest.CaptureFixture[str]) -> None:
    unknown, held = make_gate("oracle", None, None), make_gate("oracle", True, 1e-6)
    for base, told in ((unknown, False), (held, True)):
        runs = [make_report(place, gates=(gate,)) for place, gate in enumerate((base, unknown))]
        (first, second) = [(one.run, one.sequences) for one in runs]
        print_comparison(compare_runs(*first, *second))
        captured = capsys.readouterr()
        assert ("x  oracle" in captured.out) is told
        assert ("x not comparable (one run lacks it or did not judge it)" in captured.err) is told


def test_the_exit_code_tells_a_break_only_where_asked(
    history: tuple[str, list[Commit]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, commits = history
    good, bad = commits[0].hash, commits[1].hash
    assert run_command(["compare", good, bad, "--db", url]) == 0
    assert run_command(["compare", good, bad, "--db", url, "--exit-code"]) == 2
    assert run_command(["compare", bad, good, "--db", url, "--exit-code"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("suffix", ["md", "csv", "html"])
def test_a_report_is_written_besides(
    suffix: str,
    history: tuple[str, list[Commit]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, commits = history
    file = tmp_path / f"report.{suffix}"
    compare_json(capsys, url, commits[0].hash, commits[1].hash, "--output", str(file))
    assert "short_1" in file.read_text(encoding="utf-8").replace("\\", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["main", "feedfacefeed"], "is no commit of sample in the database"),
        (["main", "v1", "--benchmark", "proteome"], "has no stored run on proteome"),
        (["main", "v1", "--output", "report.pdf"], "end in .md, .csv, .html"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    arguments: list[str],
    message: str,
    history: tuple[str, list[Commit]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["compare", *arguments, "--db", history[0]]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_other_versions_of_a_set_are_paired_but_said_to_be_incomparable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = BENCHMARK.sequences[:2]
    newer = replace(BENCHMARK, version=2, digest="d" * 64, sequences=two)
    other = replace(BENCHMARK, name="mine", digest="e" * 64, sequences=two)
    url = f"sqlite:///{tmp_path / 'versions.db'}"
    create_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    writer.save_run(make_report(1))
    writer.save_run(make_report(2, (0.99999, 1.0), benchmark=newer))
    writer.save_run(make_report(2, (0.99999, 1.0), benchmark=other))
    writer.save_run(make_report(3, (0.99999, 1.0), benchmark=other))
    engine.dispose()
    found = compare_json(capsys, url, "0001", "0002")
    (comparison,) = found["comparisons"]
    assert comparison["comparable"] is False
    assert "other benchmark sets or versions" in comparison["reasons"][0]
    assert comparison["only_in_base"] == ["short_3"]
    assert (comparison["num_compared"], comparison["num_sequences"]) == (2, 3)
    assert found["runs_only_in_head"] == [3]
    assert run_command(["compare", "0001", "0003", "--db", url]) == 1
    assert "there is nothing to compare" in capsys.readouterr().err
