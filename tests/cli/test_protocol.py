"""`protocol list/show/calibrate`: what is printed, and what calibrate asks for."""

import copy
import json
from pathlib import Path

import pytest

from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor import validating
from virnucpro_monitor.validation.protocol import LATEST, RELEASED_DIGESTS, load_protocol


def test_list_names_every_released_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["protocol", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["version"]: row["digest"] for row in rows} == RELEASED_DIGESTS
    assert [row["version"] for row in rows if row["latest"]] == [LATEST]


def test_show_prints_thresholds_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["protocol", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Protocol {LATEST} ")
    assert "strict 0.999" in lines[1]
    protocol = load_protocol()
    columns = next(line for line in lines if line.startswith("limits for")).split()[2:]
    for name, limits in protocol.content["limits"].items():
        (line,) = (line for line in lines if line.startswith(f"{name}  "))
        assert line.split()[-len(columns) :] == [f"{limits[column]:.1e}" for column in columns]
    assert run_command(["protocol", "show", "no-such"]) == 1


def test_show_says_where_a_limit_is_wider_than_its_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"

    def shown(**limits: float) -> str:
        content = copy.deepcopy(dict(load_protocol().content)) | {"version": "mine"}
        content["limits"]["float32"].update(limits)
        path.write_text(json.dumps(content))
        assert run_command(["protocol", "show", str(path)]) == 0
        return capsys.readouterr().err

    assert shown() == shown(gain=0.0) == ""
    said = shown(gain=1.0, ceiling=1.0)
    assert "the worst of its healthy runs: float32 ceiling, float32 gain. " in said


def test_calibrate_hands_its_settings_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def calibrate(settings, path, *, num_runs, on_progress):
        asked.append((settings.device, settings.dtype, path, num_runs))
        return load_protocol()

    monkeypatch.setattr(validating, "calibrate_builtin", calibrate)
    path = tmp_path / "own.json"
    command = ["protocol", "calibrate", str(path), "--device", "cpu", "--dtype", "float32"]
    assert run_command([*command, "--runs", "240", "--json"]) == 0
    assert asked == [("cpu", "float32", path, 240)]
    assert json.loads(capsys.readouterr().out)["digest"] == load_protocol().digest
    assert run_command([*command, "--runs", "10"]) == 1


def test_a_calibration_that_is_interrupted_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def calibrate(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(validating, "calibrate_builtin", calibrate)
    assert run_command(["protocol", "calibrate", str(tmp_path / "own.json")]) == 130
    assert "started again with the same file, it goes on" in capsys.readouterr().err
