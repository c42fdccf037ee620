"""Where Python keeps no bytecode of torch, a command and its fork server keep their own."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from virnucpro_monitor import bytecode

_LEAVES = """
import os, sys
from pathlib import Path
from virnucpro_monitor.bytecode import leave_own_bytecode

kept = {one.name.partition(".")[0] for one in Path(sys.argv[1]).rglob("*.pyc")}
assert "bytecode" in kept, kept
leave_own_bytecode()
assert sys.dont_write_bytecode and sys.pycache_prefix is None
assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1"
"""


@pytest.mark.parametrize(
    ("there", "writes", "writable", "prefix", "own"),
    [
        (False, False, True, None, True),  # as uv installs, where a container is told to write none
        (False, True, False, None, True),
        (False, True, True, None, False),
        (True, False, False, None, False),
        (False, False, False, "/elsewhere", False),
    ],
)
def test_bytecode_is_kept_apart_only_where_python_keeps_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    there: bool, writes: bool, writable: bool, prefix: str | None, own: bool,
) -> None:  # fmt: skip
    cached = tmp_path / "torch" / "__pycache__" / "__init__.pyc"
    if there:
        cached.parent.mkdir(parents=True)
        cached.touch()
    torch_file = tmp_path / "torch" / "__init__.py"
    (tmp_path / "torch-2.13.0.dist-info").mkdir()
    found = SimpleNamespace(cached=str(cached), origin=str(torch_file))
    monkeypatch.setattr(bytecode.importlib.util, "find_spec", lambda _: found)
    monkeypatch.setattr(sys, "dont_write_bytecode", not writes)
    monkeypatch.setattr(sys, "pycache_prefix", prefix)
    monkeypatch.setattr(os, "access", lambda *_: writable)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "HOME": "/home"}
    options = bytecode.own_bytecode(environment)
    place = bytecode._place()
    assert place is not None
    assert place.parent == tmp_path / "virnucpro-monitor" / "bytecode"
    assert options == (["-X", f"pycache_prefix={place}"] if own else [])
    assert ("PYTHONDONTWRITEBYTECODE" in environment) is not own
    bytecode.keep_own_bytecode()
    assert sys.pycache_prefix == (str(place) if own else prefix)
    assert sys.dont_write_bytecode is not (own or writes)
    # What this process has begun to keep there, those that it starts find there.
    assert bytecode.own_bytecode(environment) == options
    (tmp_path / "torch-2.13.0.dist-info").rename(tmp_path / "torch-2.14.0.dist-info")
    assert bytecode._place() != place  # of another version, whose files may look the same


@pytest.mark.parametrize("open_to_others", [True, False])
def test_bytecode_that_others_may_write_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_to_others: bool
) -> None:
    found = SimpleNamespace(cached=str(tmp_path / "a" / "b" / "c.pyc"), origin=str(tmp_path / "a"))
    monkeypatch.setattr(bytecode.importlib.util, "find_spec", lambda _: found)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "virnucpro-monitor"
    folder.mkdir()
    folder.chmod(0o777 if open_to_others else 0o755)
    assert (bytecode.own_bytecode({}) == []) is open_to_others


def test_a_user_without_a_home_has_no_place_for_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    before = sys.pycache_prefix, sys.dont_write_bytecode
    assert bytecode.own_bytecode({}) == []
    bytecode.keep_own_bytecode()
    assert (sys.pycache_prefix, sys.dont_write_bytecode) == before


def test_the_sets_of_versions_that_were_used_last_are_kept(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}").mkdir()
        os.utime(tmp_path / f"{number}", (number, number))
    bytecode._drop_others(tmp_path / "now")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["3", "4", "5", "now"]


def test_what_a_job_imports_is_found_and_left_as_without(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "BYTECODE" not in name}
    command = [sys.executable, "-X", f"pycache_prefix={tmp_path}", "-c", _LEAVES, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
