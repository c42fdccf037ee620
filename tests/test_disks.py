"""Disks that are full, closed or gone. Nothing here needs rights or a disk of its own."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.disks import explain, is_full, path_from, probe_folder, writing
from virnucpro_monitor.errors import ConfigurationError, DiskError

CPU = (
    "--model", "esm2_t6_demo", "--weights", "synthetic", "--device", "cpu",
    "--dtype", "float32",
)  # fmt: skip


def test_a_full_disk_is_named() -> None:
    with (
        pytest.raises(DiskError, match=r"The log cannot be written: the disk of .* is full: free"),
        writing("The log", Path("/var/log/run.log")),
        open("/dev/full", "w") as file,
    ):
        file.write("x")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full: free some space"),
        (errno.EDQUOT, "is full: free some space"),
        (errno.EROFS, "is read-only: mount it writable"),
        (errno.EACCES, "is closed to this user"),
        (errno.EIO, "has gone or fails"),
        (errno.ESTALE, "has gone or fails"),
        (errno.ENOENT, "has gone: check that its disk is mounted"),
        (errno.ENOTDIR, "is in the way or no folder"),
        (errno.EFBIG, "is at its size limit"),
        (errno.ELOOP, os.strerror(errno.ELOOP)),
    ],
)
def test_each_trouble_says_where_and_what_to_do(number: int, words: str) -> None:
    bare = OSError(number, os.strerror(number))
    assert words in explain(bare, Path("/mnt/data/x"))
    assert "/mnt/data/x" in explain(bare, Path("/mnt/data/x"))
    named = OSError(number, os.strerror(number), "/mnt/other/y")
    assert "/mnt/other/y" in explain(named, Path("/mnt/data/x"))
    assert explain(bare).endswith(".")


def test_a_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    probe_folder("The cache", tmp_path / "new" / "cache")
    assert list((tmp_path / "new" / "cache").iterdir()) == []
    assert not is_full(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"The cache cannot be written: .*/file is in the way"):
        probe_folder("The cache", tmp_path / "file")


def limited() -> None:
    """Let no file grow beyond 64 KiB, which stands for a disk without room."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


@pytest.mark.parametrize(("place", "named"), [("cache", "The cache"), ("data", "The database")])
def test_a_run_finds_out_before_it_measures(
    place: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = TinyRepository(tmp_path / "tiny")
    tiny.commit(HEALTHY)
    (tmp_path / place).touch()  # a file where a folder should be
    environment = {"VIRNUCPRO_MONITOR_CACHE_DIR": str(tmp_path / "cache")}
    database = f"sqlite:///{tmp_path / 'data' / 'monitor.db'}"
    command = ["run", "--target", str(tiny.folder), *CPU, "--db", database]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert run_command(command) == 1
    said = capsys.readouterr().err
    assert "Unexpected" not in said
    assert f"{tmp_path / place}" in said
    assert named in said or "The lock" in said


@pytest.mark.parametrize("command", [["run"], ["bisect", "HEAD~1", "HEAD"]])
def test_a_disk_without_room_is_told_before_measuring(command: list[str], tmp_path: Path) -> None:
    tiny = TinyRepository(tmp_path / "tiny")
    tiny.commit(HEALTHY)
    tiny.commit()
    done = subprocess.run(
        [sys.executable, "-m", "virnucpro_monitor", *command, "--target", str(tiny.folder), *CPU,
         "--db", f"sqlite:///{tmp_path / 'monitor.db'}"],
        env={**os.environ, "VIRNUCPRO_MONITOR_CACHE_DIR": str(tmp_path / "cache")},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("virnucpro-monitor: The cache cannot be written: ")
    assert str(tmp_path / "cache") in sentence
    assert not (tmp_path / "monitor.db").exists()


@pytest.mark.usefixtures("quick_probes")
def test_a_log_without_room_does_not_stop_a_run(tmp_path: Path, private_folders: Path) -> None:
    """The log is /dev/full, and so is everything that the process prints afterwards."""
    tiny = TinyRepository(tmp_path / "tiny")
    tiny.commit(HEALTHY)
    fasta = tmp_path / "one.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n")
    if not list((private_folders / "data").rglob("*single*")):
        assert run_command(["benchmark", "add", str(fasta), "--name", "single"]) == 0
    log = tmp_path / "run.log"
    log.symlink_to("/dev/full")
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    with log.open("wb") as full:  # as a crontab's line redirects it
        done = subprocess.run(
            [sys.executable, "-m", "virnucpro_monitor", "run", "--target", str(tiny.folder), *CPU,
             "--benchmark", "single", "--db", url, "--log", str(log)],
            stdout=full,
            stderr=full,
            check=False,
        )  # fmt: skip
    assert done.returncode == 0
    listed = subprocess.run(
        [sys.executable, "-m", "virnucpro_monitor", "runs", "list", "--db", url],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "passed" in listed.stdout


def test_a_log_that_cannot_be_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out, err = sys.stdout, sys.stderr
    try:
        assert run_command(["run", "--log", str(tmp_path / "file" / "run.log")]) == 1
    finally:
        sys.stdout, sys.stderr = out, err
    assert "The log cannot be written: " in capsys.readouterr().err


def test_an_error_of_a_file_of_ours_is_translated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta = tmp_path / "a.fasta"
    fasta.write_text(">a\nMKT\n")
    with pytest.MonkeyPatch.context() as patch:
        (tmp_path / "data").touch()
        patch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert run_command(["benchmark", "add", str(fasta), "--name", "other"]) == 1
    said = capsys.readouterr().err
    assert "Unexpected" not in said
    assert f"{tmp_path / 'data'}" in said


def test_a_path_is_what_a_person_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert path_from("~/a") == Path("/home/me/a")
    assert path_from("~nobody-of-that-name/a") == Path("~nobody-of-that-name/a")
    for text in ("a\0b", "\ud800"):
        with pytest.raises(ConfigurationError, match="is no path"):
            path_from(text)
