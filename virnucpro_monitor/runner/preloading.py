"""What the fork server has in memory, so that what it forks need not load it."""

import gc
import importlib
import os
from contextlib import suppress
from pathlib import Path

from virnucpro_monitor.records.messages import MeasureJob


def preload() -> None:
    """Import what every process of a job needs."""
    import virnucpro_monitor.data.benchmarks
    import virnucpro_monitor.models.esm2_flash
    import virnucpro_monitor.models.weights
    import virnucpro_monitor.runner.environment
    import virnucpro_monitor.runner.first_passes
    import virnucpro_monitor.runner.loading
    import virnucpro_monitor.runner.reuse
    import virnucpro_monitor.runner.warm
    import virnucpro_monitor.validation.oracle
    import virnucpro_monitor.validation.validate  # noqa: F401

    with suppress(Exception):  # not installed, or built for another torch: the targets' affair
        importlib.import_module("flash_attn")


def preload_for_card() -> None:
    """Import what torch imports at the first call of an operator that is not its own.

    Variable-length attention is such a one, and it takes over a second in each process. A worker
    prepares the yardstick meanwhile.
    """
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with suppress(Exception):  # of this build; then each process meets it by itself
        importlib.import_module("torch._dynamo")
    if before is None:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)  # each process has one of its own
    gc.freeze()


def holds_gpu(device: str = "/dev/nvidia") -> bool:
    """Whether an import has opened the GPU: CUDA does not survive a fork.

    Args:
        device: what its file's name begins with; "/dev/nvidia-uvm" is CUDA's own.
    """
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(os.readlink(descriptor))
    return any(link.startswith(device) for link in links)


def map_checkpoints(job: MeasureJob) -> None:
    """Have the job's weights in memory, for all that is forked from here on."""
    from virnucpro_monitor.runner.warm import map_checkpoint

    with suppress(Exception):  # the worker meets the same fault and reports it
        map_checkpoint(Path(job.checkpoint))
        map_checkpoint(Path(job.regression))
