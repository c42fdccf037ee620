"""Whether a Dask scheduler is at an address."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any


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

    with ThreadPoolExecutor(1) as thread:  # which has no event loop yet
        thread.submit(asyncio.run, speak()).result()
