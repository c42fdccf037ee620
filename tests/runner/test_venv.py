import subprocess
import sys
from pathlib import Path

import pytest

from tests.runner.wheels import make_wheel, only_index
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.venv import PrivateEnvironmentError, own_packages, target_python

TARGET = Target(name="t", location="", requirements="needs.txt")
_SETUP = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# Builds a wheel by hand, so that nothing has to be downloaded.
_BACKEND = """
import zipfile

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "tiny_need-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as file:
        file.writestr("tiny_need.py", "VALUE = 7\\n")
        file.writestr(
            "tiny_need-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\\nName: tiny-need\\nVersion: 1.0\\n",
        )
        file.writestr(
            "tiny_need-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        )
        file.writestr(
            "tiny_need-1.0.dist-info/RECORD",
            "tiny_need.py,,\\ntiny_need-1.0.dist-info/METADATA,,\\n"
            "tiny_need-1.0.dist-info/WHEEL,,\\ntiny_need-1.0.dist-info/RECORD,,\\n",
        )
    return name
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "need").mkdir(parents=True)
    (folder / "need" / "pyproject.toml").write_text(
        _SETUP + '[project]\nname = "tiny-need"\nversion = "1.0"\n'
    )
    (folder / "need" / "backend.py").write_text(_BACKEND)
    (folder / "needs.txt").write_text("./need\n")
    return folder


def test_what_builds_with_another_package_is_built_where_that_is(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As flash-attn does with torch, which its build imports and does not ask for."""
    wheel = make_wheel(tmp_path / "wheels", "needed_first", "1.0", "VALUE = 7\n")
    only_index(wheel.parent, monkeypatch)
    backend = checkout / "need" / "backend.py"
    backend.write_text("import needed_first\n" + backend.read_text())
    checkout.joinpath("needs.txt").write_text("./need\nneeded-first==1.0\n")
    python = target_python(TARGET, checkout, tmp_path / "cache", lambda _: None)
    assert python is not None
    assert own_packages(python.parent.parent).joinpath("tiny_need.py").exists()
    checkout.joinpath("needs.txt").write_text("./need\n")
    with pytest.raises(PrivateEnvironmentError, match=r"Error: No module named 'needed_first'\)$"):
        target_python(TARGET, checkout, tmp_path / "cache", lambda _: None)


def test_nothing_is_made_for_a_target_without_requirements(tmp_path: Path) -> None:
    plain = Target(name="t", location="")
    assert target_python(plain, tmp_path, tmp_path / "cache", pytest.fail) is None


@pytest.mark.slow
def test_the_environment_holds_the_requirement_and_sees_ours(
    checkout: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    python = target_python(TARGET, checkout, tmp_path / "cache", said.append)
    assert python is not None
    assert python != Path(sys.executable)
    code = "import tiny_need, torch, esm; print(tiny_need.VALUE)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7\n"
    assert target_python(TARGET, checkout, tmp_path / "cache", said.append) == python
    assert len(said) == 1  # the second time it came from the cache


def test_a_missing_requirement_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrivateEnvironmentError, match=r"'needs\.txt' is not in this commit"):
        target_python(TARGET, tmp_path, tmp_path / "cache", lambda _: None)


@pytest.mark.slow
def test_a_requirement_that_cannot_be_installed_is_told_and_not_kept(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "needs.txt").write_text("./nowhere\n")
    for _ in range(2):
        with pytest.raises(PrivateEnvironmentError, match="could not be made"):
            target_python(TARGET, checkout, tmp_path / "cache", lambda _: None)
