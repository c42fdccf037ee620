"""The demo of releases: wheels are fetched once, and then no index is needed."""

import shutil
from pathlib import Path

import pytest

from tests.cli.test_adapter import example
from tests.runner.wheels import make_wheel, only_index
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor import release_demo
from virnucpro_monitor.monitor.release_demo import ReleaseDemo

pytestmark = pytest.mark.usefixtures("quick_probes", "shared_workers")


@pytest.mark.slow
def test_releases_are_shown_without_an_index_once_their_wheels_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    only_index(index, monkeypatch)
    right = example(tmp_path).read_text()
    wrong = right.replace("rows[mask] for", "rows[mask] * 0.88 for")
    for version, text in (("1.0", right), ("1.1", wrong), ("1.2", right)):
        make_wheel(index, "tinyenc", version, text)
    demo = ReleaseDemo(
        package="tinyenc", targets={"tinyenc-padded": ("tinyenc:Padded", ("1.0", "1.1", "1.2"))}
    )
    monkeypatch.setattr(release_demo, "TRANSFORMERS", demo)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_CACHE_DIR", str(tmp_path / "cache"))
    wheels = tmp_path / "cache" / "demo" / "wheels"

    def start(database: str) -> tuple[int, str, str]:
        url = f"sqlite:///{tmp_path / database}"
        code = run_command(["demo", "--releases", "--no-open", "--db", url])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, printed, said = start("first.db")
    assert code == 0, said
    assert "3 releases: 2 passed, 1 failed" in said
    (told,) = (line for line in said.splitlines() if line.startswith("tinyenc-padded: "))
    assert "Packed side" in told
    assert "since 1.1" in told
    assert "last good 1.0" in told
    assert "fixed by 1.2" in told
    assert len(list(wheels.glob("*.whl"))) == 3

    shutil.rmtree(index)
    shutil.rmtree(tmp_path / "cache" / "environments")
    code, again, said = start("second.db")
    assert code == 0, said
    assert "Fetching" not in said
    assert again == printed

    shutil.rmtree(wheels)
    code, _, said = start("third.db")
    assert code == 1
    assert "The wheels of tinyenc 1.0 are not in" in said
    assert "start this demo once with a network" in said
