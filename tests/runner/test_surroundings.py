"""What can change a result is recorded with it, and decides whether it stands."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runner.conftest import MakePlan
from tests.runner.test_venv import _BACKEND, _SETUP
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.records import Outcome, Target
from virnucpro_monitor.runner.code_digest import adapter_source
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.packages import imported_packages, installed_packages


@pytest.mark.usefixtures("shared_workers")
def test_a_run_records_what_it_imported_and_its_threads(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    plan = make_plan([tiny.git("rev-parse", "HEAD")], num_threads=1)
    (report,) = run_commits(plan)
    used = report.run.environment
    assert used is not None
    assert used.packages is not None
    assert used.packages["fair-esm"] == used.fair_esm
    assert used.packages["torch"] == installed_packages()["torch"]
    assert "numpy" in used.packages
    assert "streamlit" not in used.packages  # installed, and never imported there
    assert "virnucpro-monitor" not in used.packages
    assert used.parts is not None
    assert used.parts["threads"] == "1"
    assert used.parts["cpu capability"]
    assert list(run_commits(plan, known=[report.run])) == []

    older = replace(used, packages={**used.packages, "numpy": "1.0"})
    (bridge,) = run_commits(plan, known=[replace(report.run, environment=older)])
    assert (bridge.run.bridge, bridge.run.outcome) == (True, Outcome.PASSED)
    before = replace(used, packages=None, parts=None)  # as it was stored before these were kept
    assert list(run_commits(plan, known=[replace(report.run, environment=before)])) == []


@pytest.mark.usefixtures("shared_workers")
def test_numbers_do_not_depend_on_how_many_are_measured_at_once(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    model = HEALTHY[MODEL_FILE]
    hashes = [tiny.commit({MODEL_FILE: f"{model}\n# {number}\n"}) for number in range(3)]
    alone = [report.sequences for report in run_commits(make_plan(hashes, workers=1))]
    together = [report.sequences for report in run_commits(make_plan(hashes, workers=3))]
    assert alone == together
    assert len(set(alone)) == 1


@pytest.mark.usefixtures("shared_workers")
def test_a_private_environment_is_known_again(
    tiny: TinyRepository, make_plan: MakePlan, cache_folder: Path
) -> None:
    uses = f"import tiny_need\n{HEALTHY[MODEL_FILE]}"
    first = tiny.commit(
        {
            "need/pyproject.toml": _SETUP + '[project]\nname = "tiny-need"\nversion = "1.0"\n',
            "need/backend.py": _BACKEND,
            "needs.txt": "./need\n",
            MODEL_FILE: uses,
        }
    )
    target = Target(
        name="tiny",
        location=str(tiny.folder),
        requirements="needs.txt",
        paths=("tinytarget", "need"),
    )
    (report,) = run_commits(make_plan([first], target=target))
    assert report.run.outcome is Outcome.PASSED
    used = report.run.environment
    assert used is not None
    assert used.packages is not None
    assert used.packages["tiny-need"] == "1.0"
    assert "tiny-need" not in installed_packages()

    said: list[str] = []
    second = tiny.commit({"README.md": "words\n"})
    again = list(
        run_commits(make_plan([first], target=target), known=[report.run], on_message=said.append)
    )
    assert again == []
    (later,) = run_commits(
        make_plan([second], target=target), known=[report.run], on_message=said.append
    )
    assert later.run.outcome is Outcome.SKIPPED
    assert said == []

    (version,) = cache_folder.glob("environments/*/lib/*/site-packages/tiny_need-1.0.dist-info")
    version.rename(version.with_name("tiny_need-2.0.dist-info"))
    metadata = version.with_name("tiny_need-2.0.dist-info") / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "2.0"))
    (bridge,) = run_commits(make_plan([first], target=target), known=[report.run])
    assert bridge.run.bridge
    assert bridge.run.environment is not None
    assert bridge.run.environment.packages is not None
    assert bridge.run.environment.packages["tiny-need"] == "2.0"


def test_the_first_on_the_path_is_what_is_imported(tmp_path: Path) -> None:
    for place, version in (("one", "2.0"), ("other", "1.0")):
        info = tmp_path / place / f"Some_Thing-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: Some_Thing\nVersion: {version}"
        )
    path = [str(tmp_path / "one"), str(tmp_path / "other")]
    assert installed_packages(path) == {"some-thing": "2.0"}
    assert "pytest" in imported_packages()


def test_a_changed_adapter_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "somebodys"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    adapter = package / "adapter.py"
    found = []
    for text in ("x = 1", "x = 2", "x = 1"):
        adapter.write_text(text)
        adapter_source.cache_clear()
        found.append(adapter_source("somebodys.adapter:make"))
    assert found[0] == found[2] != found[1]
    assert "somebodys" not in sys.modules
    # Old digests stand: the monitor's own adapters add nothing, nor does what is not found.
    for name in ("seed-interface", "builtin", "nosuch.module:x", "unknown"):
        assert adapter_source(name) == ()
