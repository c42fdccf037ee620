"""Tries again where a database is away for a moment: with a bound, and with a word."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar, cast

from virnucpro_monitor.errors import DatabaseAway

PATIENCE_S = 30.0
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0

_Answer = TypeVar("_Answer")


class HasPatience(Protocol):
    """What writes, and how long it waits for its database."""

    patience_s: float
    on_wait: Callable[[str], None] | None


_Self = TypeVar("_Self", bound=HasPatience)
_Rest = ParamSpec("_Rest")


def patient(
    method: Callable[Concatenate[_Self, _Rest], _Answer],
) -> Callable[Concatenate[_Self, _Rest], _Answer]:
    """A method that is tried again, and that does no harm where it succeeds twice."""

    @wraps(method)
    def wrapped(self: _Self, *args: _Rest.args, **kwargs: _Rest.kwargs) -> _Answer:
        return retried(
            lambda _: method(self, *args, **kwargs),
            patience_s=self.patience_s,
            on_wait=self.on_wait,
        )

    return cast(Callable[Concatenate[_Self, _Rest], _Answer], wrapped)


def patient_once(
    method: Callable[Concatenate[_Self, _Rest], _Answer],
) -> Callable[Concatenate[_Self, _Rest], _Answer]:
    """As `patient`, but not where an earlier try may have succeeded unnoticed."""

    @wraps(method)
    def wrapped(self: _Self, *args: _Rest.args, **kwargs: _Rest.kwargs) -> _Answer:
        return retried(
            lambda _: method(self, *args, **kwargs),
            repeatable=False,
            patience_s=self.patience_s,
            on_wait=self.on_wait,
        )

    return cast(Callable[Concatenate[_Self, _Rest], _Answer], wrapped)


def retried(
    act: Callable[[bool], _Answer],
    *,
    repeatable: bool = True,
    patience_s: float = PATIENCE_S,
    on_wait: Callable[[str], None] | None = None,
) -> _Answer:
    """Call `act` until the database answers.

    Args:
        act: given whether an earlier try may have succeeded unnoticed.
        repeatable: whether `act` may be called where an earlier try may have succeeded.
        patience_s: how long after the first failure it is tried again.
        on_wait: told once, before the first pause.

    Raises:
        DatabaseAway: it did not come back in time.
    """
    end: float | None = None
    pause, unsure = FIRST_PAUSE_S, False
    while True:
        try:
            return act(unsure)
        except DatabaseAway as error:
            unsure = unsure or error.unsure
            error.unsure = unsure
            now = time.monotonic()
            if end is None:
                end = now + patience_s
                if on_wait is not None and patience_s > 0:
                    on_wait(f"{error} Trying again for {patience_s:.0f} seconds.")
            if now >= end or (unsure and not repeatable):
                raise
        time.sleep(min(pause, max(0.01, end - now)))
        pause = min(2 * pause, LONGEST_PAUSE_S)
