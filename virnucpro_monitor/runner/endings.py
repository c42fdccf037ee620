"""What it means that a worker process ended without a result: what happened, and whose doing."""

import re
import signal
from dataclasses import dataclass

from virnucpro_monitor.records.messages import Ended

# Sent by people, service managers and the kernel's OOM killer. A target that ends itself so is
# taken for one that was ended from outside: it is tried again, and never blamed wrongly.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Cause:
    """Attributes:
    kind: of failure.
    message: one sentence.
    ours: the monitor or the machine failed, not the target: to be tried again.
    """

    kind: str
    message: str
    ours: bool = False


def explain(ended: Ended, timeout_s: float, memory_limit_gib: float | None) -> Cause:
    """Why a worker ended without a result, under the limits it had."""
    if ended.cause == "timeout":
        return Cause("timeout", f"The run did not end within {timeout_s:g} s and was stopped.")
    if ended.cause == "memory":
        return Cause(
            "out_of_memory",
            f"The run took more than {memory_limit_gib:g} GiB of memory and was stopped.",
        )
    if ended.cause == "garbage":
        return Cause("garbage", garbage_text(ended.detail))
    if ended.cause == "signal":
        name = _signal_name(ended.code)
        if ended.code in _FROM_OUTSIDE:
            return Cause(
                "killed",
                f"The process was ended from outside, by signal {name}, before it gave a result: "
                f"the next start tries again.",
                ours=True,
            )
        return Cause("crash", f"The process was ended by signal {name} before it gave a result.")
    if ended.cause == "exit":
        return Cause("crash", f"The process left with status {ended.code} before it gave a result.")
    return Cause(
        "lost",
        "The worker process was lost before it gave a result: the next start tries again.",
        ours=True,
    )


def garbage_text(detail: str) -> str:
    """What is said of a target that wrote to the channel."""
    return (
        "The process wrote to the monitor's own channel, which no target must do, and was "
        f"stopped. {detail}".strip()
    )


def last_line(text: str) -> str:
    """The last line that says something; nothing where none does."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def in_words(error: Exception) -> str:
    """What an error says, on one line: two sentences at most, the second without an address."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    first, *others = re.split(r"(?<=[.!?])\s", text)
    return " ".join([first, *(one for one in others[:1] if "://" not in one)]).rstrip(".")


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(code).name
    except ValueError:
        return str(code)
