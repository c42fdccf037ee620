"""Find the Dask scheduler at an address."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from virnucpro_monitor.errors import ClusterError


def connect(dask: Any, address: str, timeout_s: float) -> Any:
    """A client of the scheduler at this address.

    Raises:
        ClusterError: there is none.
    """
    try:
        knock(dask, address, timeout_s)
        return dask.Client(address, timeout=timeout_s, set_as_default=False)
    except Exception as error:  # another service's answer is read as a length: MemoryError
        raise no_answer(address) from error


def no_answer(address: str) -> ClusterError:
    """The error that no scheduler answers there."""
    return ClusterError(
        f"No Dask scheduler answers at {address}: start one, or correct --scheduler "
        f"(as tcp://HOST:8786)."
    )


def no_worker(address: str, *, on_cards: bool) -> ClusterError:
    """What to say where a cluster has no worker that could measure."""
    needed, how = (" with a card", " --resources GPU=1") if on_cards else ("", "")
    return ClusterError(
        f"The Dask cluster at {address} has no worker{needed}: start some, as with dask worker "
        f"{address}{how}."
    )


def knock(dask: Any, address: str, timeout_s: float) -> None:
    """Speak to whatever is at this address: a client that fails takes long to end.

    Raises:
        Exception: whatever comes of speaking to what is no scheduler, or to nobody.
    """

    async def speak() -> None:
        arguments = dask.Security().get_connection_args("client")
        comm = await dask.comm.connect(address, timeout=timeout_s, **arguments)
        try:
            told = await dask.core.send_recv(comm, op="identity")
        finally:
            await comm.close()
        if told["type"] != "Scheduler":
            raise ValueError(f"a {told['type']} answers")

    async def speak_briefly() -> None:
        await asyncio.wait_for(speak(), timeout_s)  # it may fall silent once it has been reached

    with ThreadPoolExecutor(1) as thread:  # which has no event loop yet
        thread.submit(asyncio.run, speak_briefly()).result()
