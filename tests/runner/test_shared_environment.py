"""A process that enters an environment imports what the environment's own interpreter imports."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.runner.wheels import make_wheel
from virnucpro_monitor.runner.pip import install
from virnucpro_monitor.runner.shared_environment import PACKAGE_ROOT, shares_loaded
from virnucpro_monitor.runner.venv import HOST_PATHS, own_packages, site_packages

_SAYS = """
import importlib.metadata
import sys
import fair_name, packaging
from importlib.metadata import version
from virnucpro_monitor.runner.packages import imported_packages
print(fair_name.__file__, packaging.__file__, version("fair_name"), sys.prefix, sys.executable)
print("fair-name" in imported_packages())
print(sorted(importlib.metadata.packages_distributions().items()))
"""
_ENTERS = """
from pathlib import Path
from virnucpro_monitor.runner.packages import known_distributions
from virnucpro_monitor.runner.shared_environment import enter
known_distributions()
enter(Path({python!r}))
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment with one package of its own."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    own = own_packages(folder)
    own.joinpath(HOST_PATHS).write_text("".join(f"{one}\n" for one in site_packages()))
    wheel = make_wheel(tmp_path / "wheels", "fair_name", "1.5", "VALUE = 1\n")
    found = folder / "bin" / "python"
    install(found, None, ["--no-deps", "--no-index", str(wheel)])
    return found


def test_entering_is_as_good_as_starting(python: Path) -> None:
    def said(interpreter: str, code: str) -> str:
        done = subprocess.run(
            [interpreter, "-P", "-c", code],
            env={**os.environ, "PYTHONPATH": PACKAGE_ROOT},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    started = said(str(python), _SAYS)
    assert str(python.parent.parent) in started
    assert "\nTrue\n[" in started
    assert "('fair_name', ['fair_name'])" in started
    assert said(sys.executable, _ENTERS.format(python=str(python)) + _SAYS) == started


def test_only_what_leaves_alone_what_is_loaded_is_entered(python: Path) -> None:
    assert shares_loaded(python)
    own = own_packages(python.parent.parent)
    for name in ("packaging", "pathlib.py", "sitecustomize.py", "hook.pth"):
        own.joinpath(name).touch()
        assert not shares_loaded(python), name
        own.joinpath(name).unlink()
    assert shares_loaded(python)
    python.unlink()
    python.write_text("another")
    assert not shares_loaded(python)
