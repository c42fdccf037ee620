"""Whether a driver starts under confinement is tried, not hoped for."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from virnucpro_monitor.runner import confined_cuda
from virnucpro_monitor.runner.confined_cuda import start_cuda, try_confined
from virnucpro_monitor.runner.confinement import Territory, landlock_version


def stands_confinement(
    territory: Territory, *, network: bool, start: Callable[[], bool] = start_cuda
) -> bool:
    return try_confined(territory, network=network, start=start).succeeded()


def writes(path: str) -> bool:
    with open(path, "w") as file:
        file.write("named")
    return True


def test_a_driver_may_name_its_threads(tmp_path: Path) -> None:
    # CUDA's does, by this file, and gives error 304 where it may not.
    assert stands_confinement(
        Territory((tmp_path,)),
        network=False,
        start=lambda: writes(f"/proc/self/task/{os.getpid()}/comm"),
    )


def test_a_driver_that_wants_more_than_is_left_does_not_start(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    territory = Territory((mine,))
    assert stands_confinement(territory, network=False, start=lambda: writes(f"{mine}/file"))
    started = stands_confinement(territory, network=False, start=lambda: writes(f"{theirs}/file"))
    assert started is (landlock_version() == 0)
    assert (theirs / "file").exists() is started


def test_the_one_who_asks_stays_as_he_is(tmp_path: Path) -> None:
    assert not stands_confinement(Territory(()), network=False, start=lambda: False)
    assert writes(f"{tmp_path}/file")


@pytest.mark.parametrize("kind", [OSError, SystemExit])
def test_a_driver_that_raises_has_not_started(kind: type[BaseException]) -> None:
    def start() -> bool:
        raise kind

    assert not stands_confinement(Territory(()), network=False, start=start)


def test_a_driver_that_hangs_has_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confined_cuda, "TRIAL_S", 1)

    def start() -> bool:
        time.sleep(600)
        return True

    assert not stands_confinement(Territory(()), network=False, start=start)


def test_a_fork_that_cannot_start_cuda_asks_a_fresh_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Counting the cards before is enough. The interpreter stands in for one that can.
    asked = tmp_path / "asked"
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\necho "$2 $3" > {asked}\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    assert stands_confinement(Territory((tmp_path,)), network=False)
    assert asked.read_text() == f"-m {confined_cuda.__name__}\n"


def test_a_trial_that_others_reap_is_heard_all_the_same() -> None:
    trial = try_confined(Territory(()), network=False, start=lambda: True)
    os.waitpid(trial.pid, 0)
    assert trial.succeeded()


@pytest.mark.gpu
def test_cuda_starts_in_a_confined_process(tmp_path: Path) -> None:
    assert stands_confinement(Territory((tmp_path,)), network=False, start=start_cuda)
