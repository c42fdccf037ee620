"""From one alert mail alone to the failing sequence, by copy and paste."""

import re
import shlex
from pathlib import Path

import pytest

from tests.report.receivers import mail_server
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.cli.sample.repository import build_repository, load_history

pytestmark = pytest.mark.usefixtures("quick_probes", "shared_workers")

FASTA = ">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n"


def after(text: str, label: str) -> list[str]:
    """The command that stands below a label, as a shell reads it."""
    line = text.partition(f"{label}\n")[2].partition("\n")[0]
    program, *words = shlex.split(line)
    assert program == "virnucpro-monitor"
    return words


def test_a_mail_leads_to_the_failing_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "checked.fasta"
    fasta.write_text(FASTA)
    run_command(["benchmark", "add", str(fasta), "--name", "checked"])
    history = load_history()[:3]
    folder = tmp_path / "tinypack"
    _, good, broken = build_repository(folder, history)
    alerts = tmp_path / "alerts.toml"
    alerts.touch(0o600)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_ALERTS_FILE", str(alerts))
    metrics = tmp_path / "monitor.prom"
    monkeypatch.setenv("VIRNUCPRO_MONITOR_METRICS_FILE", str(metrics))
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    options = [
        "--package", "tinypack", "--model", "esm2_t6_demo", "--weights", "synthetic",
        "--device", "cpu", "--dtype", "float32", "--benchmark", "checked", "--db", url,
    ]  # fmt: skip
    with mail_server() as box:
        alerts.write_text(f'[channels.me]\nurl = "{box.url}"\n')
        commits = ["--commit", good, "--commit", broken]
        assert run_command(["run", "--target", str(folder), *commits, *options]) == 2
        (text,) = box.texts()
    assert re.search(
        r'^virnucpro_monitor_outcome\{.*outcome="failed"\} 1', metrics.read_text(), re.M
    )
    assert broken in text
    assert good in text
    assert "Sample Author" in text
    monkeypatch.chdir(tmp_path)  # wherever the reader is
    capsys.readouterr()
    assert run_command(after(text, "Run it again:")) == 2
    assert f"{broken[:10]}  failed" in capsys.readouterr().err
    assert run_command(after(text, "Then:")) == 0
    shown = capsys.readouterr().out
    worst = text.partition("worst sequences")[2].split()[0].rstrip(":")
    assert worst in {"a", "b"}
    rows = [line.split() for line in shown.partition("Worst sequences")[2].splitlines()]
    assert worst in {row[0] for row in rows if row}
