"""What it means that a worker process ended without a result."""

import signal

from virnucpro_monitor.records import Json
from virnucpro_monitor.runner.plan import RunPlan


def describe_ending(event: Json, plan: RunPlan) -> tuple[str, str]:
    """(kind of failure, one sentence) for a worker that ended without a result."""
    cause, code = event["cause"], event["code"]
    if cause == "timeout":
        return "timeout", f"The run did not end within {plan.timeout_s:g} s and was stopped."
    if cause == "memory":
        return (
            "out_of_memory",
            f"The run took more than {plan.memory_limit_gib:g} GiB of memory and was stopped.",
        )
    if cause == "signal":
        try:
            name = signal.Signals(code).name
        except ValueError:
            name = str(code)
        return "crash", f"The process was ended by signal {name} before it gave a result."
    if cause == "exit":
        return "crash", f"The process left with status {code} before it gave a result."
    return "crash", "The worker process was lost before it gave a result."
