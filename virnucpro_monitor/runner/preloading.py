"""What the fork server has in memory, so that what it forks need not load it."""

import functools
import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from virnucpro_monitor.records.messages import MeasureJob


def preload() -> None:
    """Import what every process of a job needs."""

    import virnucpro_monitor.data.benchmarks
    import virnucpro_monitor.models.esm2_flash
    import virnucpro_monitor.models.weights
    import virnucpro_monitor.runner.capacity
    import virnucpro_monitor.runner.channel
    import virnucpro_monitor.runner.endings
    import virnucpro_monitor.runner.environment
    import virnucpro_monitor.runner.failures
    import virnucpro_monitor.runner.first_passes
    import virnucpro_monitor.runner.loading
    import virnucpro_monitor.runner.oracles
    import virnucpro_monitor.runner.remote
    import virnucpro_monitor.runner.reuse
    import virnucpro_monitor.runner.target_process
    import virnucpro_monitor.runner.warm
    import virnucpro_monitor.validation.oracle
    import virnucpro_monitor.validation.other_oracles
    import virnucpro_monitor.validation.validate  # noqa: F401

    leave_compiler_out()
    # Not in each version of torch, not installed, or built for another torch: the targets' affair.
    for name in ("torch.utils._device", "torch.utils.serialization", "flash_attn"):
        with suppress(Exception):
            importlib.import_module(name)


def leave_compiler_out() -> None:
    """Let operators that are not torch's own be called without torch's compiler being imported.

    Each such operator, flash-attn's too, keeps the compiler away from itself, and imports it for
    that at its first call: hundreds of modules, seconds of every process or of every start. Where
    nobody has imported the compiler, it is not there to be kept away.
    """
    import torch

    keep_away: Callable[..., Any] | None = getattr(torch, "_disable_dynamo", None)
    if keep_away is None:
        return

    def wrapped(function: Callable[..., Any] | None = None, recursive: bool = True) -> Any:
        if function is None:
            return functools.partial(wrapped, recursive=recursive)
        kept_away = keep_away(function, recursive)

        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> Any:
            chosen = kept_away if "torch._dynamo" in sys.modules else function
            return chosen(*arguments, **named)

        return called

    torch._disable_dynamo = wrapped  # type: ignore[attr-defined,assignment]


def holds_gpu() -> bool:
    """Whether an import has opened the GPU: CUDA does not survive a fork."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(os.readlink(descriptor))
    return any(link.startswith("/dev/nvidia") for link in links)


def map_checkpoints(job: MeasureJob) -> None:
    """Have the job's weights in memory, for all that is forked from here on."""
    from virnucpro_monitor.runner.warm import map_checkpoint

    with suppress(Exception):  # the worker meets the same fault and reports it
        map_checkpoint(Path(job.checkpoint))
        map_checkpoint(Path(job.regression))
