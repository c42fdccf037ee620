"""What it means that a job raised: the failure as it is stored, and whose doing it was."""

import errno
import os
import re
import traceback
from dataclasses import replace
from pathlib import Path

from virnucpro_monitor.errors import MonitorError, TargetError, WeightsError
from virnucpro_monitor.records import Failure

MAX_TRACEBACK_CHARACTERS = 20_000
MAX_MESSAGE_CHARACTERS = 1_000

_SECOND_CARD = "invalid device ordinal"  # where a process that sees one asks for another
# What CUDA says of a card that has gone, is broken, or is kept by others.
_LOST_CARD = re.compile(
    r"no CUDA-capable device is detected|devices? (is|are) busy or unavailable|uncorrectable ECC"
    r"|CUDA driver initialization failed|No CUDA GPUs are available"
    r"|Unexpected error from cudaGetDeviceCount"
)
# What a host, CUDA itself (for a context, a kernel's code) and its libraries say, beside PyTorch.
_NO_MEMORY = re.compile(
    r"can't allocate memory|CUDA error: out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"
)
_OWN_CARD = re.compile(r"\bcuda:0\b")
_OWN_GPU = re.compile(r"\bGPU 0\b")  # PyTorch's words, where there is no memory left


def describe_failure(error: BaseException, checkout: Path) -> Failure:
    """Turn an exception into a `Failure` that reads the same wherever the checkout lay."""
    text = "".join(traceback.format_exception(error))
    message = str(error) if isinstance(error, MonitorError) else _one_line(error)
    place = f"{checkout}{os.sep}"
    return Failure(
        kind=_kind_of(error),
        message=message.replace(place, "")[:MAX_MESSAGE_CHARACTERS],
        traceback=text.replace(place, "")[-MAX_TRACEBACK_CHARACTERS:],
    )


def name_card(failure: Failure, device: str) -> Failure:
    """The same failure, whose message names the card as it was asked for.

    Where it failed that card was the only one, and so the first. What a commit printed stays as it
    is, its traceback too.

    Args:
        device: "cuda:N", or "cpu".
    """
    if device == "cpu":
        return failure
    gpu = f"GPU {device.removeprefix('cuda:')}"
    message = _OWN_GPU.sub(gpu, _OWN_CARD.sub(device, failure.message))
    if _SECOND_CARD in message:
        message += " (a commit sees one card alone, as cuda:0)"
    return replace(failure, message=message)


def is_of_lost_card(message: str) -> bool:
    """Whether CUDA said so of a card that has gone, is broken, or is kept by others."""
    return _LOST_CARD.search(message) is not None


def is_ours(error: BaseException) -> bool:
    """Whether the monitor or its machine failed, not the target: disk, weights, device, settings.

    Such a run is tried again by the next start. The machine's part may lie under a target's own
    exception.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(seen, RuntimeError) and is_of_lost_card(str(seen)):
            return True
        seen = seen.__cause__ or seen.__context__
    return isinstance(error, MonitorError) and not isinstance(error, TargetError)


def _one_line(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _kind_of(error: BaseException) -> str:
    import torch

    from virnucpro_monitor.runner.adapters import TargetImportError

    text = str(error)
    if is_ours(error):
        return "weights" if isinstance(error, WeightsError) else "machine"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _NO_MEMORY.search(text):
        return "out_of_memory"
    if isinstance(error, (TargetImportError, ImportError, SyntaxError)):
        return "import"
    if isinstance(error, TargetError):
        return "interface"
    return "exception"
