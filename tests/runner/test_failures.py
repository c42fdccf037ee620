"""Whose fault an exception is: a card that will not start is the machine's, whoever raised it."""

import errno
from pathlib import Path

import pytest
import torch

from virnucpro_monitor.errors import TargetError, WeightsError
from virnucpro_monitor.records import Failure
from virnucpro_monitor.runner.failures import describe_failure, is_ours, name_card


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: no CUDA-capable device is detected",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA error: uncorrectable ECC error encountered",
        "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before "
        "calling NumCudaDevices() that might have already set an error? Error 304: OS call failed "
        "or operation not supported on this OS",
    ],
)
def test_a_card_that_has_gone_or_will_not_start_is_the_machine_s_fault(text: str) -> None:
    assert is_ours(RuntimeError(text))
    wrapped = TargetError("The target could not be loaded.")
    wrapped.__cause__ = RuntimeError(text)
    assert is_ours(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: invalid device ordinal"),  # of a second card
        torch.OutOfMemoryError("CUDA out of memory."),
        OSError(errno.ENOENT, "No such file"),
        TargetError("It has no forward_packed."),
    ],
)
def test_what_the_target_did_is_its_own(error: Exception) -> None:
    assert not is_ours(error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), "out_of_memory"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`"),
            "out_of_memory",
        ),
        (RuntimeError("CUDA error: device-side assert triggered"), "exception"),
    ],
)
def test_no_memory_is_one_kind_of_failure_whoever_says_so(error: Exception, kind: str) -> None:
    assert describe_failure(error, Path("/nowhere")).kind == kind


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), WeightsError("damaged")])
def test_a_full_disk_and_bad_weights_are_ours(error: Exception) -> None:
    assert is_ours(error)


@pytest.mark.parametrize(
    ("device", "card", "gpu"),
    [
        ("cuda:2", "cuda:2", "GPU 2"),
        ("cuda:0", "cuda:0", "GPU 0"),
        ("cpu", "cuda:0", "GPU 0"),
    ],
)
def test_a_card_is_named_as_it_was_asked_for(device: str, card: str, gpu: str) -> None:
    """A process that sees one card alone calls it the first."""
    said = "at least two devices, {card} and cpu! {gpu} has a total capacity of 139.80 GiB"
    here = said.format(card="cuda:0", gpu="GPU 0")
    failure = Failure(kind="exception", message=here, traceback='model.to("cuda:0")')
    told = name_card(failure, device)
    assert told.message == said.format(card=card, gpu=gpu)
    assert told.traceback == failure.traceback


@pytest.mark.parametrize("device", ["cuda:0", "cuda:2"])
def test_who_asks_for_a_second_card_is_told_that_it_sees_one(device: str) -> None:
    failure = Failure(kind="exception", message="RuntimeError: CUDA error: invalid device ordinal")
    told = name_card(failure, device).message
    assert told == f"{failure.message} (a commit sees one card alone, as cuda:0)"
    assert name_card(failure, "cpu") == failure
