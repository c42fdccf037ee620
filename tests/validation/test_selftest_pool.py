"""Several processes judge the self-test's changes, and new ones go on after a lost device."""

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from esm import Alphabet
from torch import Tensor

from virnucpro_monitor.errors import DeviceError, ProtocolError
from virnucpro_monitor.records import Culprit
from virnucpro_monitor.validation.builtin import make_packs
from virnucpro_monitor.validation.kill_matrix import FaultResult, Lost, Row
from virnucpro_monitor.validation.selftest import Bench
from virnucpro_monitor.validation.selftest_pool import forked, on_a_card


def test_packs_pin_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """That opens the card, and the processes of a self-test on the CPU are forks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(Tensor, "pin_memory", lambda _: pytest.fail("memory was pinned"))
    converter = Alphabet.from_architecture("ESM-1b").get_batch_converter()
    (pack,) = make_packs(converter, [("a", "MKV"), ("b", "GA")], 4096)
    assert pack.cu_seqlens.tolist() == [0, 5, 9]


class StandIn:
    """A bench of numbers, some of which fail."""

    def __init__(self, count: int, judged: Callable[[int], None]) -> None:
        self.jobs = range(count)
        self._judged = judged
        self._is_lost = False

    def judge(self, number: int) -> Row | Lost:
        assert not self._is_lost, "a process without its device is asked again"
        try:
            self._judged(number)
        except OSError as error:
            self._is_lost = True
            return Lost(reason=str(error))
        return Row(
            result=FaultResult(
                name=f"{number} by {os.getpid()}",
                kind="fault",
                killed_by=("seed",),
                margin=None,
                culprit=Culprit.PACKED,
                seed_killed=True,
                below_noise=False,
                effect=None,
                reason="",
            )
        )


def bench(count: int, judged: Callable[[int], None]) -> Any:
    return StandIn(count, judged)


def test_forks_share_the_work_and_go_on_after_one_is_lost() -> None:
    def judged(number: int) -> None:
        time.sleep(0.02)
        if number == 2:
            raise OSError("illegal memory access")
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    found = dict(forked(2)(bench(9, judged)))
    assert sorted(found) == list(range(9))
    assert found[2] == Lost(reason="illegal memory access")
    assert found[5] == Lost(reason="its process ended with exit code -9")
    names = [row.result.name for row in found.values() if isinstance(row, Row)]
    processes = {name.split()[-1] for name in names}
    assert len(names) == 7
    assert 2 <= len(processes) <= 4
    assert str(os.getpid()) not in processes
    assert multiprocessing.active_children() == []


def test_no_fork_outlives_a_self_test_that_is_left_in_the_middle() -> None:
    judges = forked(2)(bench(9, lambda number: None))
    assert isinstance(judges, Generator)
    next(judges)
    assert len(multiprocessing.active_children()) == 2
    judges.close()
    assert multiprocessing.active_children() == []


def test_what_a_fork_raises_is_raised_here() -> None:
    def judged(number: int) -> None:
        raise ProtocolError("tighter than the noise")

    with pytest.raises(ProtocolError, match="tighter than the noise"):
        list(forked(2)(bench(3, judged)))


def test_a_device_that_always_fails_is_no_success_of_the_yardstick() -> None:
    def judged(number: int) -> None:
        raise OSError("no such device")

    judges = forked(1)(bench(20, judged))
    assert [number for number, _ in itertools.islice(judges, 8)] == list(range(8))
    with pytest.raises(DeviceError, match=r"failed 8 times, last with: no such device\."):
        next(judges)


def loses_at_one(number: int) -> None:
    if number == 1:
        raise OSError("illegal memory access")


def made_again() -> Bench:
    return bench(4, loses_at_one)


def test_on_a_card_this_process_goes_as_far_as_it_can() -> None:
    found = dict(on_a_card(made_again)(bench(4, loses_at_one)))
    assert found[1] == Lost(reason="illegal memory access")
    rows = {number: row.result.name for number, row in found.items() if isinstance(row, Row)}
    assert rows[0] == f"0 by {os.getpid()}"
    assert {rows[2].split()[-1], rows[3].split()[-1]} == {rows[3].split()[-1]} != {str(os.getpid())}


def test_the_row_of_a_lost_device_is_a_kill_but_no_pass_of_a_harmless_change() -> None:
    for kind, expected in (("fault", True), ("control", False), ("healthy", False)):
        stand_in: Any = SimpleNamespace(jobs=[SimpleNamespace(name="a", kind=kind)])
        result = Bench.lost(stand_in, 0, Lost(reason="of it")).result
        assert result.killed_by == ("device",)
        assert result.reason == "The device failed: of it"
        assert result.as_expected is expected
