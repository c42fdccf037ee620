"""What is asked of a database as a whole, and what a demo of releases runs: each part as it is."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.test_wiring import Recorder
from tests.store.builders import BENCHMARK, TARGET, make_report
from virnucpro_monitor.host.doctor import OK, PROBLEM, WARNING, Finding
from virnucpro_monitor.monitor import databases, release_demo, targets, validating
from virnucpro_monitor.monitor.databases import examine_database
from virnucpro_monitor.monitor.running import SILENT, RunOptions
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner import passwords
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.connection import SCHEMA_REVISION
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer


def test_a_database_is_examined_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "monitor.db"
    url = f"sqlite:///{path}"
    missing = examine_database(url)
    assert missing == Finding(
        "database", WARNING, missing.text, f"virnucpro-monitor db create --db {url}"
    )
    assert missing.text.startswith(f"There is no virnucpro-monitor database at {path}")
    create_database(url)
    assert examine_database(url) == Finding("database", OK, str(path))
    for revision, problem, remedy in (
        ("0001", f"has schema 0001 and this program needs {SCHEMA_REVISION}: run",
         f"virnucpro-monitor db upgrade --db {url}"),
        ("9999", "has schema 9999, newer than this program's", ""),
    ):  # fmt: skip
        with sqlite3.connect(path) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.close()
        found = examine_database(url)
        assert found == Finding("database", PROBLEM, found.text, remedy)
        assert f"{path} {problem}" in found.text
    found = examine_database("nonsense")
    assert (found.name, found.level, found.remedy) == ("database", PROBLEM, "")
    assert "nonsense" in found.text
    away = examine_database("postgresql://nobody@localhost:1/nothing")
    assert (away.name, away.level) == ("database", PROBLEM)


def test_what_works_here_is_asked_of_the_settings_and_the_database_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(db=f"sqlite:///{tmp_path / 'm.db'}", cache_dir=tmp_path, device="cpu")
    examined = Recorder(["found"])
    monkeypatch.setattr(databases, "examine", examined)
    found, last = databases.examine_everything(settings)
    assert (found, last) == ("found", examine_database(settings.database_url))
    assert examined.calls == [(("cpu", settings.model, settings.weights, tmp_path), {})]


def test_roles_are_made_or_only_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Recorder("roles")
    monkeypatch.setattr(databases.roles, "make_roles", made)
    for apply in (True, False):
        assert databases.make_roles("url", prefix="lab", apply=apply) == "roles"  # type: ignore[comparison-overlap]
    assert made.calls == [(("url",), {"prefix": "lab", "apply": apply}) for apply in (True, False)]


def test_a_demo_runs_each_targets_releases_from_kept_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(cache_dir=tmp_path, device="cpu")
    demo = release_demo.ReleaseDemo(
        package="tool", targets={"a": ("hf-esm", ("1.0", "2.0")), "b": ("faesm", ("2.0",))}
    )
    folder = tmp_path / "demo" / "wheels"
    folder.mkdir(parents=True)
    for release in demo.releases:
        (folder / f".tool-{release}").touch()  # fetched by an earlier start
    places: list[str | None] = []

    def run(*given: Any) -> Any:
        places.append(release_demo.os.environ.get("PIP_FIND_LINKS"))
        return given

    monkeypatch.setattr(release_demo, "run_and_store", run)
    assert release_demo.run_releases(settings, demo, SILENT) == {
        name: (
            settings,
            Target(name=name, location="pypi:tool", adapter=adapter),
            RunOptions(revisions=releases),
            SILENT,
        )
        for name, adapter, releases in (("a", "hf-esm", ("1.0", "2.0")), ("b", "faesm", ("2.0",)))
    }
    assert places == 2 * [str(folder)]


def test_a_calibration_and_a_self_test_go_by_the_protocol_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(cache_dir=tmp_path, device="cpu", dtype="bfloat16", protocol="1")
    weights = Recorder()
    weights.path, weights.digest = tmp_path / "w", "d" * 64  # type: ignore[attr-defined]
    monkeypatch.setattr(validating, "_prepare", Recorder(("subject", "oracle", weights)))
    ran, calibrated, validated = Recorder("report"), Recorder("protocol"), Recorder("verdict")
    monkeypatch.setattr(validating, "run_selftest", ran)
    monkeypatch.setattr(validating, "calibrate", calibrated)
    monkeypatch.setattr(validating, "validate_subject", validated)
    validating.selftest_builtin(settings, num_healthy_runs=2)
    validating.calibrate_builtin(settings, tmp_path / "limits.json", num_runs=200)
    benchmark: Any = "benchmark"
    validating.validate_builtin(settings, benchmark)
    assert [call[0][3].version for call in (*ran.calls, *calibrated.calls)] == ["1", "1"]
    ((given, named),) = validated.calls
    assert given == ("subject", "benchmark")
    assert (named["oracle"], named["protocol"].version) == ("oracle", "1")
    assert named["weights_digest"] == "d" * 64
    ((given, named),) = calibrated.calls
    assert (given[0], given[2], given[4]) == ("subject", "oracle", tmp_path / "limits.json")
    assert (named["num_runs"], named["reference"]) == (200, None)  # one is for float32 alone


def test_a_password_goes_with_the_last_target_of_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(passwords, "_remembered", {})
    settings = load_settings(db=f"sqlite:///{tmp_path / 'monitor.db'}", cache_dir=tmp_path)
    public = passwords.public_address("https://me:pa55@example.org/a.git")
    other = passwords.public_address("https://me:pa55@example.org/b.git")
    for address in (public, other):
        passwords.keep_password(address, lambda _: None)
    create_database(settings.database_url)
    engine = open_engine(settings.database_url)
    first = Target(name="one", location=public)
    for one in (first, replace(first, name="two"), replace(first, name="b", location=other)):
        Writer(engine).save_target(one)
    engine.dispose()

    def refuse(*_: Any) -> None:
        raise OSError("read-only")

    kept = []
    for name in ("one", "two"):
        targets.delete_target(settings, name)
        kept.append((passwords.password_of(public), passwords.password_of(other)))
        # What this host has noted of a target goes where it can: it holds the target up nowhere.
        monkeypatch.setattr(targets.Anchors, "forget", refuse)
    assert kept == [("pa55", "pa55"), (None, "pa55")]


def test_exports_are_of_the_target_and_the_set_that_are_asked_for(
    url: str, store: Callable[..., list[int]]
) -> None:
    other = replace(TARGET, name="other", location="https://example.org/other.git")
    second = replace(BENCHMARK, name="second", digest="c" * 64)
    store(
        make_report(0), make_report(0, benchmark=second), make_report(0, target=other),
        make_report(0, target=other, benchmark=second),
    )  # fmt: skip
    for options, ids in (
        ({}, [1, 2, 3, 4]),
        ({"target": "other"}, [3, 4]),
        ({"target": other.location, "benchmark": "second@1"}, [4]),
        ({"benchmark": "second"}, [2, 4]),
    ):
        found = [run.id for batch in databases.export_runs(url, **options) for run in batch]
        assert found == ids
        batches = databases.export_sequences(url, **options)
        assert [one for batch in batches for one in batch.runs] == ids
