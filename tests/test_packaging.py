"""The wheel alone gives a working `db create` and carries the dashboard."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)],
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run_from(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "virnucpro_monitor", *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_wheel_carries_what_it_needs(unpacked_wheel: Path) -> None:
    bundled = unpacked_wheel / "virnucpro_monitor" / "_bundled"
    assert (bundled / "app" / "streamlit_app.py").is_file()
    assert list((bundled / "migrations" / "versions").glob("*.py"))
    sets = unpacked_wheel / "virnucpro_monitor" / "data" / "benchmark_sets"
    named = {path.parent.name for path in sets.rglob("*.fasta")}
    assert named == {"seed", "boundaries", "proteome", "reach"}
    assert sorted(path.name for path in unpacked_wheel.iterdir()) == [
        "virnucpro_monitor",
        f"virnucpro_monitor-{version(unpacked_wheel)}.dist-info",
    ]


def version(site: Path) -> str:
    return run_from(site, "--version").stdout.strip()


@pytest.mark.slow
def test_the_wheel_creates_and_checks_a_database(unpacked_wheel: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/wheel.db"
    created = run_from(unpacked_wheel, "db", "create", "--db", url)
    assert created.returncode == 0, created.stderr
    checked = run_from(unpacked_wheel, "db", "check", "--db", url)
    assert checked.returncode == 0, checked.stderr
