"""What a Dask scheduler is asked has an answer, or an end."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import distributed
import pytest

from virnucpro_monitor.runner import cluster_calls
from virnucpro_monitor.runner.cluster_address import knock
from virnucpro_monitor.runner.cluster_calls import result_of, workers_of


async def never(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


def test_workers_are_there_though_dask_s_client_asks_by_itself(
    dask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asks is how many there are, and that answer would stand where ours did."""
    with distributed.Client(dask.scheduler_address, set_as_default=False) as client:
        sync = client.sync

        def then_by_itself(function: Any, *given: Any, **named: Any) -> Any:
            answer = sync(function, *given, **named)
            sync(client._update_scheduler_info)
            return answer

        monkeypatch.setattr(client, "sync", then_by_itself)
        found = workers_of(client)
        monkeypatch.undo()
    assert sorted(found or ()) == sorted(worker.worker_address for worker in dask.workers.values())


def test_a_silent_scheduler_is_not_waited_for(dask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_calls, "CALL_S", 0.2)
    monkeypatch.setattr(cluster_calls, "LOOK_S", 0.1)
    monkeypatch.setattr(cluster_calls, "SILENT_S", 0.5)
    with distributed.Client(dask.scheduler_address, set_as_default=False) as client:
        address = dask.workers[0].worker_address
        future = client.submit(time.sleep, 600, workers=[address])
        monkeypatch.setattr(dask.scheduler, "handlers", {**dask.scheduler.handlers})
        monkeypatch.setitem(dask.scheduler.handlers, "identity", never)
        assert workers_of(client) is None
        with pytest.raises(ConnectionError, match="the scheduler does not answer"):
            result_of(client, address, future, 600.0)
        monkeypatch.undo()
        assert workers_of(client)
        future.cancel()


def test_a_scheduler_that_falls_silent_once_it_is_reached_is_not_waited_for() -> None:
    async def connect(*_: Any, **__: Any) -> Any:
        async def close() -> None: ...

        return SimpleNamespace(close=close)

    dask = SimpleNamespace(
        Security=lambda: SimpleNamespace(get_connection_args=lambda _: {}),
        comm=SimpleNamespace(connect=connect),
        core=SimpleNamespace(send_recv=never),
    )
    with pytest.raises(TimeoutError):
        knock(dask, "tcp://silent:8786", 0.1)
