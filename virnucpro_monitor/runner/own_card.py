"""A process that measures sees its own card alone, as cuda:0.

Code that names no card lands on the first one, which is its own then. And CUDA's start opens every
card that is visible, for which a process that starts by itself waits (engine.md).
"""

import os
import re
from dataclasses import replace

from virnucpro_monitor.records.messages import Job, PrepareJob
from virnucpro_monitor.runner.visible import visible_name

_CARD = re.compile(r"cuda(?::(\d+))?")
_OWN = "cuda:0"


def own_card(device: str) -> dict[str, str]:
    """The variables by which CUDA sees `device` alone; none where that is no card.

    One that is not visible here is not visible there either: then no card is.
    """
    found = _CARD.fullmatch(device)
    return {"CUDA_VISIBLE_DEVICES": visible_name(int(found[1] or 0))} if found else {}


def on_own_card(job: Job) -> Job:
    """Have this process and all that it starts see the job's card alone, before CUDA starts.

    Who prepares sees them all: it is one process, runs nothing foreign, and says of a card that is
    not there which it was asked for and how many there are.

    Returns:
        The job as it is to be done here.
    """
    seen = {} if isinstance(job, PrepareJob) else own_card(job.request.device)
    if not seen:
        return job
    os.environ.update(seen)
    return replace(job, request=replace(job.request, device=_OWN))
