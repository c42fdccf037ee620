"""Packages behind an environment are shown to an installer that reads its folder alone."""

import venv
from importlib.metadata import distributions
from pathlib import Path

from tests.runner.wheels import make_wheel
from virnucpro_monitor.runner.pip import install
from virnucpro_monitor.runner.shown_packages import packages_shown
from virnucpro_monitor.runner.venv import own_packages


def installed(folder: Path) -> dict[str, str]:
    return {one.name: one.version for one in distributions(path=[str(folder)])}


def test_what_lies_behind_is_not_installed_again_but_where_another_version_is_needed(
    tmp_path: Path,
) -> None:
    wheels, behind, environment = tmp_path / "wheels", tmp_path / "ours", tmp_path / "environment"
    for name in ("kept", "replaced"):
        info = behind / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        info.joinpath("RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n")
        behind.joinpath(f"{name}.py").touch()
    make_wheel(wheels, "replaced", "2.0", "")  # there is no wheel of the other one
    make_wheel(wheels, "first", "1.0", "", "kept>=1")
    make_wheel(wheels, "second", "1.0", "", "replaced>=2")
    venv.create(environment, symlinks=True)
    own = own_packages(environment)
    # pip finds nothing behind this environment: it reads the folder alone, as uv does anywhere.
    with packages_shown(own, [str(behind), str(tmp_path / "none")]):
        assert installed(own) == {"kept": "1.0", "replaced": "1.0"}
        python = environment / "bin" / "python"
        install(python, None, ["--no-index", "--find-links", str(wheels), "first", "second"])
    assert installed(own) == {"first": "1.0", "second": "1.0", "replaced": "2.0"}
    assert own.joinpath("replaced.py").exists()
    assert installed(behind) == {"kept": "1.0", "replaced": "1.0"}
    assert behind.joinpath("replaced.py").exists()
