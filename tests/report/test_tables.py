"""Exported tables: other programs read them back, exact to the last bit."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.store.builders import TARGET, make_report
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.records import Outcome, SequenceStatus
from virnucpro_monitor.report.tables import RUNS, SEQUENCES, TABLES, TABLES_VERSION
from virnucpro_monitor.store import exporting
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

SIMILARITIES = (0.1 + 0.2, 1 - 2**-53, 5e-324)
"""Values that a rounded or a short decimal form would not give back."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Three runs: one measured, one with a lost and a not finite sequence, one not runnable."""
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    create_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    writer.save_run(make_report(0, SIMILARITIES))
    report = make_report(1, (None, None, 0.5), outcome=Outcome.FAILED)
    not_finite, lost, other = report.sequences
    sequences = (
        replace(not_finite, status=SequenceStatus.NOT_FINITE),
        replace(lost, status=SequenceStatus.LOST),
        other,
    )
    writer.save_run(replace(report, sequences=sequences))
    error = make_report(2, outcome=Outcome.ERROR, reason="=1+1")
    writer.save_run(replace(error, run=replace(error.run, figures=None, gates=()), sequences=()))
    engine.dispose()
    return url


def export(url: str, tmp_path: Path, table: str, ending: str, *arguments: str) -> Path:
    file = tmp_path / f"{table}{ending}"
    assert run_command(["export", str(file), "--table", table, "--db", url, *arguments]) == 0
    return file


def bits(values: list[float]) -> list[str]:
    return [value.hex() for value in values]


def test_parquet_is_read_by_pandas_with_every_bit(url: str, tmp_path: Path) -> None:
    frame = pd.read_parquet(export(url, tmp_path, "sequences", ".parquet"))
    assert list(frame.columns) == [column.name for column in SEQUENCES]
    assert bits(list(frame["similarity"][:3])) == bits(list(SIMILARITIES))
    assert list(frame["status"]) == ["ok"] * 3 + ["not_finite", "lost", "ok"]
    assert list(frame["sequence_id"][:3]) == ["short_1", "short_2", "short_3"]
    assert set(frame["target"]) == {TARGET.name}


def test_nan_and_missing_are_told_apart(url: str, tmp_path: Path) -> None:
    table = pq.read_table(export(url, tmp_path, "sequences", ".parquet"))
    similarity = table.column("similarity").to_pylist()
    assert math.isnan(similarity[3])  # computed, and not finite
    assert similarity[4] is None  # lost
    rows = list(csv.reader(io.StringIO(export(url, tmp_path, "sequences", ".csv").read_text())))
    place = rows[0].index("similarity")
    assert [row[place] for row in rows[4:6]] == ["nan", ""]
    lines = export(url, tmp_path, "sequences", ".jsonl").read_text().splitlines()
    assert [json.loads(line)["similarity"] for line in lines[3:5]] == ["NaN", None]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_text_formats_keep_every_bit(url: str, tmp_path: Path, ending: str) -> None:
    file = export(url, tmp_path, "sequences", ending)
    if ending == ".csv":
        found = [
            float(row["similarity"])
            for row in list(csv.DictReader(io.StringIO(file.read_text())))[:3]
        ]
    else:
        found = [json.loads(line)["similarity"] for line in file.read_text().splitlines()[:3]]
    assert bits(found) == bits(list(SIMILARITIES))


def test_duckdb_reads_it(url: str, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    for ending, read in ((".parquet", "read_parquet"), (".csv", "read_csv")):
        file = export(url, tmp_path, "sequences", ending)
        query = f"select similarity from {read}('{file}') where run_id = 1 order by sequence_index"
        found = [row[0] for row in duckdb.sql(query).fetchall()]
        assert bits(found) == bits(list(SIMILARITIES))


def test_runs_with_what_is_not_known(url: str, tmp_path: Path) -> None:
    table = pq.read_table(export(url, tmp_path, "runs", ".parquet"))
    assert table.schema.metadata[b"virnucpro_monitor"] == f"runs/{TABLES_VERSION}".encode()
    assert table.column_names == [column.name for column in RUNS]
    rows = table.to_pylist()
    assert [row["outcome"] for row in rows] == ["failed", "failed", "error"]
    assert (rows[2]["min_similarity"], rows[2]["num_sequences"]) == (None, None)
    assert rows[0]["min_similarity"] == min(SIMILARITIES)
    assert rows[0]["started_at"].tzinfo is not None


def test_a_spreadsheet_computes_nothing(url: str, tmp_path: Path) -> None:
    text = export(url, tmp_path, "runs", ".csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[2]["reason"] == "'=1+1"
    assert pq.read_table(export(url, tmp_path, "runs", ".parquet"))["reason"][2].as_py() == "=1+1"


def test_batches_join_without_a_seam(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pq.read_table(export(url, tmp_path, "sequences", ".parquet")).to_pylist()
    monkeypatch.setattr(exporting, "ROWS_PER_BATCH", 1)
    monkeypatch.setattr(exporting, "RUNS_PER_BATCH", 1)
    parts = pq.read_table(export(url, tmp_path, "sequences", ".parquet")).to_pylist()
    assert len(parts) == 6
    assert str(parts) == str(whole)  # as text NaN equals NaN
    assert pq.read_table(export(url, tmp_path, "runs", ".parquet")).num_rows == 3


def test_the_schema_is_described(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for table, columns in TABLES.items():
        assert run_command(["export", "x", "--table", table, "--columns", "--json"]) == 0
        described = json.loads(capsys.readouterr().out)
        assert described["version"] == TABLES_VERSION
        assert [one["name"] for one in described["columns"]] == [c.name for c in columns]
        assert all(one["about"] for one in described["columns"])
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("runs.xls", [], "does not say a format"),
        ("runs.csv", ["--table", "gates"], "is no table"),
        ("runs.csv", ["--target", "nosuch"], "nosuch"),
        ("nowhere/runs.csv", [], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_file(
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    arguments: list[str],
    message: str,
) -> None:
    assert run_command(["export", str(tmp_path / file), *arguments, "--db", url]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert [one.name for one in tmp_path.iterdir() if "monitor.db" not in one.name] == []


def test_results_of_superseded_runs_and_of_other_targets_stay_out(url: str, tmp_path: Path) -> None:
    engine = open_engine(url)
    writer = Writer(engine)
    other = replace(TARGET, name="other")
    report = make_report(3, target=other)
    writer.save_run(replace(report, run=replace(report.run, target="other")))
    again = writer.save_run(make_report(0, (0.25, 0.5, 0.75)))  # supersedes run 1
    engine.dispose()
    file = export(url, tmp_path, "sequences", ".parquet", "--target", TARGET.name)
    frame = pd.read_parquet(file)
    assert list(frame["run_id"]) == [2] * 3 + [again] * 3
    assert list(frame["similarity"][3:]) == [0.25, 0.5, 0.75]
