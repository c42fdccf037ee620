"""Badge and Prometheus' text: what is shown elsewhere of the newest verdicts."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.store.builders import make_report
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.report import prometheus
from virnucpro_monitor.report.prometheus import write_metrics_after_run
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

BAD = (0.99, 1.0, 0.9999999)
HOSTILE = 'evil"\\\n<b>'

# Prometheus' exposition format 0.0.4.
SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)+)\} (\S+)'
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    return url


def store(url: str, *reports: object) -> None:
    engine = open_engine(url)
    for report in reports:
        Writer(engine).save_run(report)  # type: ignore[arg-type]
    engine.dispose()


def badge(url: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> ElementTree.Element:
    assert run_command(["badge", *arguments, "--db", url]) == 0
    return ElementTree.fromstring(capsys.readouterr().out)


def words(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_the_badge_says_what_the_newest_runs_say(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words(badge(url, capsys)) == ["packed = unpacked", "no verdict"]
    store(url, make_report(0))
    assert words(badge(url, capsys))[1] == "passing, 1 set-up"
    store(url, make_report(1, BAD, outcome=Outcome.FAILED))
    svg = badge(url, capsys, "--label", "<ESM-2>")
    assert words(svg) == ["<ESM-2>", "broken"]
    assert svg.get("aria-label") == "<ESM-2>: broken"
    error = make_report(2, outcome=Outcome.ERROR)
    store(url, replace(error, run=replace(error.run, figures=None, gates=()), sequences=()))
    assert words(badge(url, capsys))[1] == "could not be run"


def test_a_series_that_is_not_measured_any_more_breaks_no_badge(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    once = make_report(0, BAD, outcome=Outcome.FAILED)
    other = replace(once.run.configuration, token_budget=512)
    store(url, replace(once, run=replace(once.run, configuration=other)))
    store(url, *(make_report(number) for number in range(4)))
    assert words(badge(url, capsys))[1] == "passing, 1 set-up"


def samples(text: str) -> dict[tuple[str, str], float]:
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, line
            found[match[1], match[2]] = float(match[3])
    return found


def test_metrics_follow_the_format(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(0)
    target = replace(report.target, name=HOSTILE)
    store(url, replace(report, target=target, run=replace(report.run, target=HOSTILE)))
    assert run_command(["metrics", "--db", url]) == 0
    text = capsys.readouterr().out
    assert text.endswith("\n")
    found = samples(text)
    assert len(found) == len([line for line in text.splitlines() if not line.startswith("#")])
    names = {name for name, _ in found}
    for name in names:
        assert text.count(f"# TYPE {name} gauge\n") == text.count(f"# HELP {name} ") == 1
        assert text.index(f"# HELP {name} ") < text.index(f"\n{name}{{")
    assert all(r'target="evil\"\\\n<b>"' in labels for _, labels in found)
    # Read by Prometheus' own parser, and named as promtool's check asks.
    read = {
        (one.name, one.labels["target"]): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert {target for _, target in read} == {HOSTILE}
    assert {name for name, _ in read} == names
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", family.name), "lower case, no colon"
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))
        assert not re.search(r"_(?:ms|minutes|hours|percent|kb|mb|gb|gib)(?:_|$)", family.name)


def test_promtool_has_nothing_to_say(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prometheus' own check, of every metric that there is, values that are not finite included."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there (Debian's package prometheus has it)")
    report = make_report(1, (0.99, 1.0, None), outcome=Outcome.FAILED)
    target = replace(report.target, name=HOSTILE)
    store(
        url, make_report(0), replace(report, target=target, run=replace(report.run, target=HOSTILE))
    )
    assert run_command(["metrics", "--db", url]) == 0
    text = capsys.readouterr().out
    wrong = (
        "# HELP wrong_milliseconds Time.\n# TYPE wrong_milliseconds gauge\nwrong_milliseconds 1\n"
    )
    said = [
        subprocess.run([promtool, "check", "metrics"], input=one, capture_output=True, text=True)
        for one in (text, text + wrong)
    ]
    assert (said[0].returncode, said[0].stdout, said[0].stderr) == (0, "", "")
    assert said[1].returncode != 0
    assert "wrong_milliseconds" in said[1].stdout + said[1].stderr


def test_metrics_are_the_stored_figures(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(0, (0.99999, 1.0, 0.5))
    store(url, report)
    assert run_command(["metrics", "--db", url]) == 0
    found = samples(capsys.readouterr().out)
    by_name = {name.removeprefix("virnucpro_monitor_"): value for (name, _), value in found.items()}
    assert by_name["worst_error"] == 0.5
    assert by_name["run_duration_seconds"] == report.run.duration_s
    assert by_name["run_start_timestamp_seconds"] == report.run.started_at.timestamp()
    assert by_name["commits_behind"] == 0.0
    assert report.run.figures is not None
    assert by_name["strict_ratio"] == report.run.figures.strict_pass_rate
    outcomes = {labels: v for (name, labels), v in found.items() if name.endswith("_outcome")}
    assert len(outcomes) == 5
    assert [labels for labels, value in outcomes.items() if value == 1.0] == [
        labels for labels in outcomes if f'outcome="{report.run.outcome}"' in labels
    ]


def test_a_start_leaves_its_metrics_and_is_not_failed_by_them(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store(url, make_report(0))
    assert run_command(["metrics", "--db", url]) == 0
    text = capsys.readouterr().out
    file, said = tmp_path / "monitor.prom", list[str]()
    write_metrics_after_run(load_settings(db=url, metrics_file=file), said.append)
    assert (file.read_text(), said) == (text, [])
    write_metrics_after_run(load_settings(db=url), said.append)
    assert said == []
    nowhere = tmp_path / "nowhere" / "monitor.prom"
    write_metrics_after_run(load_settings(db=url, metrics_file=nowhere), said.append)
    write_metrics_after_run(load_settings(db=f"{url}.gone", metrics_file=file), said.append)

    def explode(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(prometheus, "list_series", explode)
    write_metrics_after_run(load_settings(db=url, metrics_file=file), said.append)
    assert [one.partition(": ")[0] for one in said] == ["No metrics were written"] * 3
    assert f"{nowhere} cannot be written" in said[0]
    assert said[2].endswith(": unexpected RuntimeError.")
    assert file.read_text() == text


def test_files_are_exchanged_when_complete(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(url, make_report(0))
    for command, name in (("badge", "badge.svg"), ("metrics", "monitor.prom")):
        file = tmp_path / name
        file.write_text("left from before")
        assert run_command([command, str(file), "--db", url]) == 0
        assert "left from before" not in file.read_text()
        assert run_command([command, str(tmp_path / "no" / name), "--db", url]) == 1
        assert "cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*partial"))
