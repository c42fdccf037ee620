"""Ask Dask workers, which may go at any moment, without waiting for one that has gone."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

CALL_S = 5.0  # for an answer; Dask tries for half a minute to reach one that has gone
SILENT_S = 30.0  # without a word of the scheduler, before no answer is waited for any longer
LOOK_S = 2.0  # between looks at whether a worker that is to answer is still there


def call_at(
    client: Any, addresses: Sequence[str], function: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """Call a function at Dask workers at once, busy or not: answers by address, of those that do.

    What it does there must be quick: the worker speaks to nobody meanwhile.
    """
    answers: dict[str, Any] = {}
    if addresses and client.status == "running":
        with suppress(Exception):  # a worker, or the scheduler, has gone, which others will see
            answers = client.run(
                function, *arguments, workers=addresses, on_error="ignore", callback_timeout=CALL_S
            )
    return answers


def result_of(client: Any, address: str, future: Any, timeout_s: float) -> Any:
    """Wait for what a task at one Dask worker gives, as long as that is there.

    Raises:
        ConnectionError: it has left the cluster, for which Dask would wait for ever, or the
            scheduler has fallen silent.
        TimeoutError: it took too long.
        Exception: whatever the task raised.
    """
    answered = time.monotonic()
    end = answered + timeout_s
    while True:
        try:
            return future.result(timeout=LOOK_S)
        except TimeoutError:
            if future.status == "error" or time.monotonic() > end:
                raise
        present = workers_of(client)
        if present is not None:
            answered = time.monotonic()
            if address not in present:
                raise ConnectionError("it has left the cluster")
        elif time.monotonic() - answered > SILENT_S:
            raise ConnectionError("the scheduler does not answer")


def workers_of(client: Any) -> dict[str, Any] | None:
    """A cluster's workers by address; None where the scheduler does not say."""
    workers: dict[str, Any] | None = None
    if client.status == "running":
        with suppress(Exception):  # the scheduler's own trouble, which is seen elsewhere
            # `client.scheduler_info` gives what its client was told last, which may be what it has
            # asked by itself meanwhile, without any workers, or what it knew of a scheduler that
            # has gone; and it waits for ever for one that is silent.
            told = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=CALL_S)
            workers = told["workers"]
    return workers
