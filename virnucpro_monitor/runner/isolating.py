"""What a job's process that runs foreign code gives up, by what its job says and the kernel offers.

Landlock or, in a namespace, read-only mounts keep it from files; where there is neither, root
becomes a user that owns nothing. What stays open is told.
"""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from virnucpro_monitor.records.calls import Confined
from virnucpro_monitor.records.messages import DescribeJob, MeasureJob, PrepareJob
from virnucpro_monitor.runner import dropped_user
from virnucpro_monitor.runner.confined_cuda import Found, Trial, try_confined
from virnucpro_monitor.runner.confinement import (
    LOCKS_SIGNALS,
    LOCKS_TCP,
    Territory,
    confine_files,
    give_up_capabilities,
    landlock_version,
)
from virnucpro_monitor.runner.containment import Inside, own_shared_memory
from virnucpro_monitor.runner.own_card import own_card

# Of the cache: what a target must not know, or has no business with.
_PRIVATE_FOLDERS = ("oracle", "unpacked", "begun", "spool")

_trial: Trial | None = None
"""Of CUDA under confinement, while it runs."""
_confined_cuda: Found | None = None
"""How CUDA starts in a confined process; None until a job needs to know."""
_tried: set[str] = set()
"""The devices on which that was tried."""


def begin_trial(job: PrepareJob | MeasureJob) -> None:
    """Begin to find out, once in a process, whether a card starts under confinement.

    That takes as long as a card takes to start, and passes beside what else is made ready. One card
    that does speaks for all; one that does not may not be there, and only speaks for itself.
    """
    global _trial
    device = job.request.device
    known = _confined_cuda is not None and _confined_cuda.starts
    if _trial is not None or known or device in _tried:
        return
    if job.confine and device.startswith("cuda"):
        territory = Territory((Path(tempfile.gettempdir()),), _hidden_from(job))
        _tried.add(device)
        _trial = try_confined(territory, network=job.network, variables=own_card(device))


def wait_for_trial(job: MeasureJob) -> None:
    """Wait for the end of what `begin_trial` began, if it did, until that speaks for this job."""
    global _trial, _confined_cuda
    while _trial is not None:
        _confined_cuda, _trial = _trial.found(), None
        begin_trial(job)


def trial_pids() -> set[int]:
    """The process in which that is being found out, if it is."""
    return set() if _trial is None else {_trial.pid}


def territory_of(job: MeasureJob | DescribeJob, scratch: Path | None) -> Territory:
    """What the job's foreign code may write, and what it may not read."""
    writable = [] if scratch is None else [scratch]
    if isinstance(job, MeasureJob):
        if job.checkout != job.cache_folder:  # the built-in target has no files of its own
            writable.append(Path(job.checkout))
        if job.kernels is not None:
            with suppress(OSError):
                Path(job.kernels).mkdir(parents=True, exist_ok=True)
                writable.append(Path(job.kernels))
    return Territory(tuple(writable), _hidden_from(job))


def _hidden_from(job: PrepareJob | MeasureJob | DescribeJob) -> tuple[Path, ...]:
    """What foreign code may not read."""
    cache = Path(job.cache_folder)
    return (*(cache / name for name in _PRIVATE_FOLDERS), *map(Path, job.hidden))


def give_up(job: MeasureJob | DescribeJob, territory: Territory, inside: Inside) -> Confined:
    """In the process itself, before any foreign code: give up what it has no use for, and tell."""
    if not job.confine:
        return Confined(files=False, network=False, processes=inside.namespace, chosen=True)
    network = isinstance(job, MeasureJob) and job.network
    # A card that will not start is worse than a target that could write: it is told below.
    on_gpu = job.request.device.startswith("cuda")
    stands = not on_gpu or _confined_cuda is None or _confined_cuda.starts
    if on_gpu and _confined_cuda is not None and _confined_cuda.own_memory:
        own_shared_memory()  # what is left in the machine's would outlive this process
    if stands:
        give_up_capabilities()
    locked = stands and confine_files(territory, network=network)
    dropped = not (locked or inside.read_only) and dropped_user.become_nobody(
        territory, _needed(job)
    )
    return Confined(
        files=locked or inside.read_only or dropped,
        network=not inside.network or (locked and not network and landlock_version() >= LOCKS_TCP),
        processes=inside.namespace or dropped or (locked and landlock_version() >= LOCKS_SIGNALS),
        user=dropped_user.NAME if dropped else "",
    )


def _needed(job: MeasureJob | DescribeJob) -> list[Path]:
    """What a target's process reads before it is asked anything."""
    paths = [job.python or sys.executable, str(Path(__file__).parent)]
    if isinstance(job, MeasureJob):
        paths += [job.checkout, job.checkpoint, job.regression, job.torch_home]
        paths += job.adapter_paths
    return [Path(one) for one in paths]
