"""A little of `tests.benchmarks.load`: writers and readers at once, on both databases."""

import json
import subprocess
import sys

import pytest

from tests.store.conftest import (
    PostgresServer,
    run_on_server,
)


def load(*arguments: str) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.benchmarks.load",
            "--seconds", "2", "--writers", "3", "--readers", "4", *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["written"] > 3
    assert found["pages"] >= 4
    assert (found["errors"], found["lost"], found["problems"]) == ({}, 0, [])


def test_nobody_loses_anything_on_sqlite() -> None:
    load()


@pytest.mark.postgres
def test_nor_on_postgresql() -> None:
    with PostgresServer() as server:
        run_on_server(f"{server.url}/postgres", "CREATE DATABASE load")
        load("--url", f"{server.url}/load")
