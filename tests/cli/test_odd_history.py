"""End to end: one odd commit in a branch's history costs its own row and nothing else."""

import json
from pathlib import Path

import pytest

from tests.runner.test_commit_objects import PERSON, write_commit
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.cli.main import run_command

pytestmark = pytest.mark.usefixtures("quick_probes")

CPU = (
    "--model", "esm2_t6_demo", "--weights", "synthetic", "--device", "cpu",
    "--dtype", "float32",
)  # fmt: skip


@pytest.fixture
def small(tmp_path: Path, private_folders: Path) -> str:
    fasta = tmp_path / "few.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n")
    if not list((private_folders / "data").rglob("*few*")):
        assert run_command(["benchmark", "add", str(fasta), "--name", "few"]) == 0
    return "few"


@pytest.mark.usefixtures("shared_workers")
def test_a_branch_with_an_odd_root_is_watched(
    tmp_path: Path, small: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = tmp_path / "gitconfig"
    users.write_text("[log]\n\tshowSignature = true\n[i18n]\n\tlogOutputEncoding = UTF-16\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(users))
    tiny = TinyRepository(tmp_path / "odd")
    tiny.commit({"README": "Nothing yet."})
    odd = write_commit(
        tiny,
        author=PERSON + b"\x1e\x1f 1701836000 +051800",
        committer=PERSON + b" 99999999999999 +9959",
        message=b"Odd \x1e one\n",
        extra=b"gpgsig -----BEGIN PGP SIGNATURE-----\n aaaa\n -----END PGP SIGNATURE-----",
    )
    tiny.git("reset", "--quiet", "--hard", odd)
    tiny.num_commits += 1
    healthy = tiny.commit(HEALTHY, "Add packed inference")
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    assert run_command(["targets", "add", "odd", str(tiny.folder), "--db", url]) == 0
    assert "2 commits" in capsys.readouterr().err
    run = ["run", "--target", "odd", "--benchmark", small, *CPU, "--db", url]
    assert run_command([*run, "--new"]) == 0
    assert run_command([*run, "--commit", odd[:10]]) == 3
    capsys.readouterr()
    assert run_command(["runs", "list", "--target", "odd", "--json", "--db", url]) == 0
    listed = {one["commit"]: one["outcome"] for one in json.loads(capsys.readouterr().out)}
    assert listed == {odd: "error", healthy: "passed"}
    for command in (["runs", "list"], ["status"], ["incidents", "list"], ["regressions"]):
        assert run_command([*command, "--db", url]) == 0
    assert run_command(["compare", odd[:10], healthy[:10], "--target", "odd", "--db", url]) == 0


@pytest.mark.usefixtures("shared_workers")
def test_a_commit_that_cannot_be_read_is_one_error_row(
    tmp_path: Path, small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TinyRepository(tmp_path / "torn")
    torn = tiny.commit({"README": "Torn."})
    healthy = tiny.commit(HEALTHY, "Add packed inference")
    last = tiny.commit({"README": "The same code."}, "Say more")
    path = tiny.folder / ".git" / "objects" / torn[:2] / torn[2:]
    path.chmod(0o644)
    path.write_bytes(b"not an object")
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    run = ["run", "--target", str(tiny.folder), "--benchmark", small, *CPU, "--db", url]
    assert run_command([*run, "--commit", healthy]) == 0
    assert run_command([*run, "--commit", last]) == 0
    assert run_command([*run, "--commits", f"{torn}..{last}"]) == 0
    assert run_command([*run, "--commit", torn[:10]]) == 3
    assert run_command([*run, "--commit", torn]) == 3
    capsys.readouterr()
    assert run_command(["runs", "list", "--json", "--db", url]) == 0
    rows = [
        (one["commit"], one["inherited_outcome"] or one["outcome"])
        for one in json.loads(capsys.readouterr().out)
    ]
    assert rows == [(torn, "error"), (healthy, "passed"), (last, "passed")]
    assert run_command(["runs", "show", torn[:10], "--db", url]) == 0
    assert torn[:10] in capsys.readouterr().out


def test_a_target_reads_no_secret_and_stops_nobody(
    tmp_path: Path, small: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("VIRNUCPRO_MONITOR_DB", "PGPASSWORD", "SOME_TOKEN")
    for name in secrets:
        monkeypatch.setenv(name, "S3cr3t")
    tiny = TinyRepository(tmp_path / "curious")
    curious = """
import os, signal, sys
print(sorted(os.environ.items()), file=sys.stderr, flush=True)
for number in (signal.SIGSTOP, signal.SIGKILL):
    try:
        os.kill(os.getppid(), number)
    except PermissionError:
        pass
raise RuntimeError("that was all")
"""
    model = curious + HEALTHY[MODEL_FILE]
    head = tiny.commit({**HEALTHY, MODEL_FILE: model}, "Look around")
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    run = ["run", "--target", str(tiny.folder), "--benchmark", small, *CPU, "--db", url]
    assert run_command([*run, "--commit", head]) == 3
    capsys.readouterr()
    assert run_command(["runs", "show", head[:10], "--db", url]) == 0
    said = capsys.readouterr().out
    assert "that was all" in said
    assert "PATH" in said
    assert "S3cr3t" not in said
    assert not any(name in said for name in secrets)
