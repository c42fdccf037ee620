"""SQLite files with damaged pages or rows: one sentence, whatever is asked of them."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url

from tests.store.builders import make_report
from tests.store.test_inheritance import skip
from virnucpro_monitor.errors import StoreError
from virnucpro_monitor.monitor.verifying import check_everything
from virnucpro_monitor.store import health_reader, notes_reader, reader, series_reader
from virnucpro_monitor.store.connection import translated_errors
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.writer import Writer

NUM_FILES = 60
READERS: dict[str, Callable[[Engine], Any]] = {
    "runs": lambda engine: reader.load_runs(engine, all_attempts=True),
    "commits": lambda engine: reader.load_commits(engine, "sample"),
    "sequences": lambda engine: reader.load_sequences(engine, 1),
    "documents": lambda engine: reader.load_documents(engine, 1),
    "benchmarks": reader.load_benchmarks,
    "series": series_reader.load_series,
    "health": health_reader.load_health,
    "acknowledgements": notes_reader.load_acknowledgements,
}


@pytest.fixture
def healthy(sqlite_url: str) -> Path:
    engine = open_engine(sqlite_url)
    writer = Writer(engine)
    first = make_report(0, documents={"probes": {"leak": 0.0}})
    writer.save_runs([first, make_report(1, (0.9, None, 1.0)), skip(2, first)])
    engine.dispose()
    return Path(sqlite_url.removeprefix("sqlite:///"))


def ask_everything(path: Path) -> list[str]:
    """The sentences of all that failed; anything but a `StoreError` is a failure of the test."""
    url, sentences = f"sqlite:///{path}", []
    try:
        engine = open_engine(url, read_only=True)
    except StoreError as error:
        return [str(error)]
    for read in READERS.values():
        try:
            read(engine)
        except StoreError as error:
            sentences.append(str(error))
    engine.dispose()
    try:
        sentences += check_everything(url).problems
    except StoreError as error:
        sentences.append(str(error))
    return sentences


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE runs SET gates = '[[' WHERE id = 1",
        "UPDATE runs SET gates = '[[1, 2]]' WHERE id = 1",
        "UPDATE runs SET gates = '7' WHERE id = 1",
        "UPDATE runs SET outcome = 'fine' WHERE id = 1",
        "UPDATE runs SET started_at = 'yesterday' WHERE id = 1",
        "UPDATE runs SET reason = CAST(x'ff80fe' AS TEXT) WHERE id = 1",
        "UPDATE runs SET min_similarity = 'much' WHERE id = 1",
        "UPDATE runs SET environment_id = 99 WHERE id = 1",
        "UPDATE commits SET parents = '{' WHERE id = 1",
        "UPDATE commits SET subject = CAST(x'c328' AS TEXT) WHERE id = 1",
        "UPDATE protocols SET content = 'null'",
        "UPDATE documents SET content = '{\"a\"'",
        "UPDATE sequence_results SET status = 'well' WHERE run_id = 1",
        "UPDATE sequence_results SET similarity = x'00' WHERE run_id = 1",
        "UPDATE sequence_results SET length = 'long' WHERE run_id = 1",
    ],
)
def test_a_row_that_cannot_be_understood_is_one_sentence(statement: str, healthy: Path) -> None:
    with sqlite3.connect(healthy) as database:
        database.execute(statement)
    database.close()
    sentences = ask_everything(healthy)
    assert sentences
    assert all(sentence.count("\n") == 0 for sentence in sentences)


def test_an_index_that_no_longer_finds_its_row_is_a_finding(healthy: Path) -> None:
    with sqlite3.connect(healthy) as database:
        (digest,) = database.execute("SELECT digest FROM protocols").fetchone()
    database.close()
    content = healthy.read_bytes()
    table, index, end = content.split(digest.encode())  # it stands once in each
    healthy.write_bytes(table + digest.encode() + index + b"z" * len(digest) + end)
    sentences = ask_everything(healthy)
    assert any("protocol" in sentence for sentence in sentences)
    assert all(sentence.count("\n") == 0 for sentence in sentences)


def test_a_schema_that_is_no_text_is_one_sentence(healthy: Path) -> None:
    content = healthy.read_bytes()
    assert content.count(b"CREATE TABLE targets") == 1
    healthy.write_bytes(content.replace(b"CREATE TABLE targets", b"CREATE \xffABLE targets"))
    (sentence,) = ask_everything(healthy)
    assert sentence.endswith("is damaged: restore a backup.")


def test_runs_out_of_order_are_a_finding_and_no_endless_search(healthy: Path) -> None:
    with sqlite3.connect(healthy) as database:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'runs'"
        (root,) = database.execute(query).fetchone()
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
    database.close()
    content = bytearray(healthy.read_bytes())
    start = (root - 1) * page_bytes
    assert content[start] == 13  # a leaf: its header takes 8 bytes, then each cell's place in 2
    place = start + int.from_bytes(content[start + 10 : start + 12], "big")
    assert content[place] >= 128  # the payload's length takes two bytes
    assert content[place + 2] == 2  # the second run's id
    content[place + 2] = 99
    healthy.write_bytes(content)
    sentences = ask_everything(healthy)
    assert any("run 3 stands after run 99" in sentence for sentence in sentences)
    assert all(sentence.count("\n") == 0 for sentence in sentences)


@pytest.mark.parametrize("seed", range(4))
def test_garbled_pages_are_one_sentence_or_read_right(
    seed: int, healthy: Path, tmp_path: Path
) -> None:
    draw, content = random.Random(seed), healthy.read_bytes()
    for number in range(NUM_FILES // 4):
        garbled = bytearray(content)
        start = draw.randrange(len(garbled))
        for place in range(start, min(len(garbled), start + draw.choice([1, 16, 400]))):
            garbled[place] = draw.randrange(256)
        if draw.random() < 0.2:
            del garbled[draw.randrange(len(garbled)) :]
        path = tmp_path / f"garbled-{number}.db"
        path.write_bytes(garbled)
        ask_everything(path)
        path.unlink()


def test_an_untouched_file_has_nothing_to_say(healthy: Path, tmp_path: Path) -> None:
    shutil.copy(healthy, tmp_path / "copy.db")
    assert ask_everything(tmp_path / "copy.db") == []


def test_a_damaged_length_that_takes_all_memory_is_told() -> None:
    said = r"^Reading the database .*a\.db takes more memory than there is: it is damaged, which"
    with pytest.raises(StoreError, match=said), translated_errors(make_url("sqlite:///a.db")):
        raise MemoryError
