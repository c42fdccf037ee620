"""A pull request on the sample repository is stopped by `check`, and let through once mended."""

import json
import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.cli.sample.repository import build_repository, load_history
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_runs

pytestmark = pytest.mark.usefixtures("quick_probes", "shared_workers")


def jobs(recipe: str) -> dict[str, Any]:
    read = yaml.safe_load(recipe)
    return dict(read.get("jobs", read))


FASTA = ">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n"


def test_a_pull_request_is_stopped_and_let_through_once_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "checked.fasta"
    fasta.write_text(FASTA)
    run_command(["benchmark", "add", str(fasta), "--name", "checked"])
    history = load_history()[:4]
    assert [commit.name[:2] for commit in history] == ["01", "02", "03", "04"]
    folder = tmp_path / "tinypack"
    _, left, broken, mended = build_repository(folder, history)
    for command in (["checkout", "-q", "--detach", broken], ["branch", "-f", "main", left]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    monkeypatch.chdir(folder)
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    options = [
        "--package", "tinypack", "--model", "esm2_t6_demo", "--weights", "synthetic",
        "--device", "cpu", "--dtype", "float32", "--benchmark", "checked", "--db", url,
    ]  # fmt: skip
    capsys.readouterr()

    markdown, junit = tmp_path / "verdict.md", tmp_path / "verdict.xml"
    page = tmp_path / "verdict.html"
    files = ["--markdown", str(markdown), "--junit", str(junit), "--html", str(page)]
    assert run_command(["check", *files, *options]) == 2
    captured = capsys.readouterr()
    assert "it is measured again to be sure" in captured.err
    said = captured.out.splitlines()
    assert len(said) <= 10
    assert said[0].startswith(f"Failed: {broken[:10]} “{history[2].subject}” by ")
    assert said[0].endswith(f" breaks the promise that {left[:10]} keeps.")
    assert history[2].subject in markdown.read_text()
    assert history[2].subject in page.read_text()
    (suite,) = ET.parse(junit).getroot().iter("testsuite")
    assert int(suite.get("failures", "0")) > 0
    engine = open_engine(url, read_only=True)
    stored = {run.commit.hash: (run.id, str(run.outcome)) for run in load_runs(engine)}
    engine.dispose()
    assert {commit: outcome for commit, (_, outcome) in stored.items()} == {
        left: "passed",
        broken: "failed",
    }

    assert run_command(["check", "--head", mended, "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["base"], found["head"], found["outcome"]) == (left, mended, "passed")
    # The base was not measured again.
    assert found["results"][0]["comparison"]["base"]["id"] == stored[left][0]

    # The manual's hook, with the set-up in the environment: nothing is measured again.
    for name, value in zip(options[2:-1:2], options[3::2], strict=True):
        monkeypatch.setenv(f"VIRNUCPRO_MONITOR_{name[2:].upper()}", value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    manual = Path(__file__).parents[2] / "virnucpro_monitor" / "report" / "CI.md"
    hook = folder / ".git" / "hooks" / "pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(re.findall(r"```sh\n(#!/bin/sh\n.*?)```", manual.read_text(), re.DOTALL)[0])
    hook.chmod(0o755)
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote.git")], check=True)

    def push(refspec: str) -> int:
        command = ["git", "push", "-q", str(tmp_path / "remote.git"), refspec]
        return subprocess.run(command, cwd=folder, check=False).returncode

    assert push(f"{broken}:refs/heads/change") != 0
    assert push(f"{mended}:refs/heads/change") == 0
    assert push(":refs/heads/change") == 0  # deleting a branch checks nothing

    # The manual's jobs, in what a runner makes of a clone: all branches of origin, no branch out.
    for command in (
        ["push", "-q", "--no-verify", str(tmp_path / "remote.git"), f"{left}:refs/heads/main"],
        ["remote", "add", "origin", str(tmp_path / "remote.git")],
        ["fetch", "-q", "origin", "+refs/heads/*:refs/remotes/origin/*"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    recipes = re.findall(r"```yaml\n(.+?)```", manual.read_text(), re.DOTALL)
    github, gitlab = (next(iter(jobs(one).values())) for one in recipes)
    given = {"GITHUB_BASE_REF": "main", "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    for head, code in ((broken, 2), (mended, 0)):
        subprocess.run(["git", "checkout", "-q", "--detach", head], cwd=folder, check=True)
        for name, value in {**given, "HEAD": head}.items():
            monkeypatch.setenv(name, value)
        for line in (github["steps"][1]["run"], gitlab["script"]):
            program, *words = shlex.split(os.path.expandvars(line))
            assert program == "virnucpro-monitor"
            assert run_command(words) == code
        kept = [
            *gitlab["artifacts"]["paths"],
            gitlab["artifacts"]["reports"]["junit"],
            "verdict.md",
        ]
        assert [name for name in kept if not (folder / name).exists()] == []
        assert head[:10] in (folder / "verdict.md").read_text()
    engine = open_engine(url, read_only=True)
    # The broken one was measured twice before it failed, and never after that.
    assert len(load_runs(engine, all_attempts=True)) == 4
    engine.dispose()
