"""Why a start of the runner leaves the next commit for another time."""

import time
from collections.abc import Callable

from virnucpro_monitor.runner.gpu import wait_for_gpu
from virnucpro_monitor.runner.plan import RunPlan


def stop_reasons(
    plan: RunPlan, needed_gpu_bytes: int, say: Callable[[str], None]
) -> Callable[[int], str | None]:
    """A function that says why the next commit must not be started, None where it may.

    It is told how many commits are being measured. The clock of `max_minutes` runs from now, and a
    reason once found stays.

    Args:
        needed_gpu_bytes: of free GPU memory for one commit.
        say: receives lines for a person while a busy GPU is waited for.
    """
    end = None if plan.max_minutes is None else time.monotonic() + plan.max_minutes * 60
    reason: str | None = None

    def why(num_active: int) -> str | None:
        nonlocal reason
        if reason is None and end is not None and time.monotonic() > end:
            reason = f"The limit of {plan.max_minutes:g} min was reached before this commit."
        if reason is None and plan.request.device.startswith("cuda"):
            reason = wait_for_gpu(
                plan.request.device,
                limit_s=plan.gpu_wait_s,
                needed_bytes=needed_gpu_bytes,
                num_jobs=num_active,
                on_wait=say,
            )
        return reason

    return why
