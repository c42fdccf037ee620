"""Measure on a Dask cluster: the same jobs, each on whichever Dask worker has room.

The caller decides, orders and stores, as with one host, so that every result is stored once
whatever Dask tries again. A Dask worker is one place to measure at, with a card if the device is
one; how a cluster is started (SSH, SLURM, PBS, LSF, Kubernetes) is Dask's own affair.

    runner ── ClusterPool.run ── scheduler ── Dask worker ── fork server ── worker
"""

import asyncio
import logging
import queue
import uuid
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from virnucpro_monitor.errors import ClusterError
from virnucpro_monitor.records import CLUSTER_NAME, ClusterHost
from virnucpro_monitor.records.messages import (
    Advanced,
    Job,
    MeasureJob,
    Ready,
    encode,
)
from virnucpro_monitor.records.progress import Say
from virnucpro_monitor.runner.cluster_files import pack_checkout, send_file
from virnucpro_monitor.runner.plan import RunPlan

CONNECT_S = 10.0
POLL_S = 0.2
MAX_ON_PLACE = 4  # commits at once on one card, as on one of this host
RESOURCE = "GPU"

OnHosts = Callable[[tuple[ClusterHost, ...]], None]


class Cluster:
    """A Dask cluster, as places to measure at.

    Args:
        say: receives a line for each Dask worker that cannot be used.
        on_hosts: receives where it measures now, each time that `tell_hosts` is called.

    Raises:
        ClusterError: `distributed` is not installed, no scheduler answers, or no Dask worker fits.
    """

    def __init__(self, plan: RunPlan, say: Say, on_hosts: OnHosts = lambda _: None) -> None:
        try:
            import distributed

            from virnucpro_monitor.runner import cluster_task
        except ImportError as error:
            raise ClusterError(
                "The Dask engine needs the package distributed: install virnucpro-monitor[cluster]."
            ) from error
        # A scheduler that goes is said in a sentence; Dask's client prints two screens beside it.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        if not plan.scheduler:
            raise ClusterError(
                "The Dask engine needs to know its scheduler: give --scheduler tcp://HOST:8786."
            )
        self._plan = plan
        self._say = say
        self._on_hosts = on_hosts
        self._task: Any = cluster_task
        self.places: dict[str, Any] = {}
        self._joining: dict[str, Any] = {}  # described, and not yet known to be like the others
        self._looked_at: set[str] = set()
        self._threads: dict[str, int] = {}
        self._cards: dict[str, tuple[Hashable, int]] = {}
        self._askable: dict[str, list[str]] = {}  # by a job's key, who may do it
        self.topic = f"virnucpro-monitor-{uuid.uuid4().hex}"
        self._queues: dict[str, queue.SimpleQueue[tuple[str, int, int, int] | None]] = {}
        try:
            dask: Any = distributed
            _knock(dask, plan.scheduler)
            self.client: Any = dask.Client(plan.scheduler, timeout=CONNECT_S, set_as_default=False)
        except Exception as error:  # another service's answer is read as a length: MemoryError
            raise ClusterError(
                f"No Dask scheduler answers at {plan.scheduler}: start one, or correct --scheduler "
                f"(as tcp://HOST:8786)."
            ) from error
        try:
            self._find_places()
            self.client.subscribe_topic(self.topic, self._take)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the cluster; what it still does for us is cancelled."""
        with suppress(Exception):  # a scheduler that has gone
            self.client.close(timeout=CONNECT_S)

    @property
    def name(self) -> str:
        # Not its scheduler's address: a batch system gives each start another, and alike workers
        # give the same bits wherever they are, so a start would take what is known for unknown.
        return CLUSTER_NAME

    @property
    def num_at_once(self) -> int:
        """How many commits are measured at once, by those that are there now."""
        room = self.on_one_place * len(self.places)
        return room if self._plan.workers is None else min(room, self._plan.workers)

    @property
    def on_one_place(self) -> int:
        """How many commits one Dask worker measures at once: as many as it has threads for."""
        fewest = min((self._threads[address] for address in list(self.places)), default=1)
        return max(1, min(MAX_ON_PLACE, fewest))

    def submit(self, job: Job, address: str | None = None, *, name: str = "") -> Any:
        """Begin a job, as a Dask future, and listen to its progress (`next_progress`).

        Args:
            address: the Dask worker that is to do it; None: any that can.
            name: of an earlier future of this job, whose beginnings count with its own.
        """
        # Dask takes equal arguments for one task, and 1, 1.0 and True for different ones.
        what = job.checkout.rpartition("/")[2] if isinstance(job, MeasureJob) else "prepare"
        key = f"virnucpro-monitor-{what}-{uuid.uuid4().hex}"
        told: queue.SimpleQueue[tuple[str, int, int, int] | None] = queue.SimpleQueue()
        self._queues[key] = told
        import dask.config

        resources = {RESOURCE: 1 / self.on_one_place} if self._on_cards else None
        self._askable[key] = list(self.places) if address is None else [address]
        # A commit's files travel with its task: kept elsewhere, they would be lost with that host.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):
            future = self.client.submit(
                self._task.do_job,
                encode(job),
                {**self.places, **self._joining},
                self._packed(job),
                self.topic,
                self._plan.fork,
                name or key,
                key=key,
                pure=False,
                retries=0,
                workers=self._askable[key],
                resources=resources,
            )
        future.add_done_callback(lambda _: told.put(None))  # so that nobody waits any longer
        return future

    def next_progress(self, key: str) -> Advanced | None:
        """What a job has last said of its progress; None where it says nothing for a moment."""
        try:
            told = self._queues[key].get(timeout=POLL_S)
        except queue.Empty:
            return None
        if told is None:  # the job has ended
            return None
        _, benchmark, done, total = told
        return Advanced(benchmark=benchmark, done=done, total=total)

    def forget(self, future: Any) -> None:
        """End listening to a job, and the job itself where it still runs."""
        self._queues.pop(future.key, None)
        self._askable.pop(future.key, None)
        with suppress(Exception):
            future.cancel()

    def is_any_left(self) -> bool:
        """Whether any of the places is still part of the cluster."""
        present = self._present()
        return present is None or any(address in present for address in list(self.places))

    def is_stranded(self, future: Any) -> bool:
        """Whether all that may do a job have left the cluster: Dask would wait for them for ever.

        It starts a worker that was killed again, but under another address.
        """
        present, may = self._present(), self._askable.get(future.key, [])
        return present is not None and not any(address in present for address in may)

    def newcomers(self) -> list[str]:
        """Describe the Dask workers that have joined since the last look, and that may fit.

        They are places only once they have been found to be like the others (`use`); those that
        have left are none any more, as soon as others are.
        """
        present = self._present()
        if present is None:
            return []
        self._looked_at &= set(present)
        gone = [address for address in self.places if address not in present]
        if len(gone) < len(self.places):
            for address in gone:
                del self.places[address]
        fit = [address for address in self._fit(present) if address not in self._looked_at]
        if fit:
            self._joining = self._described(fit)
        return [address for address in fit if address in self._joining]

    def tell_hosts(self) -> None:
        """Tell where it measures now, and how busy that is."""
        present, uses = self._present(), defaultdict(list)
        for address in list(self.places):
            told = (present or {}).get(address, {}).get("metrics", {}).get(self._task.USE)
            if told is not None:  # one that has just joined has told nothing yet
                host, card, share = told
                uses[host, card].append(share)
        self._on_hosts(
            tuple(
                ClusterHost(
                    host=host, card=card, num_workers=len(shares), utilisation=_mean(shares)
                )
                for (host, card), shares in sorted(uses.items())
            )
        )

    def _present(self) -> dict[str, Any] | None:
        """The cluster's workers by address; None where the scheduler does not say."""
        try:
            workers: dict[str, Any] = self.client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, RuntimeError):  # the scheduler's own trouble, which is seen elsewhere
            return None
        return workers

    def _fit(self, workers: dict[str, Any]) -> list[str]:
        return [
            address
            for address, one in workers.items()
            if not self._on_cards or one["resources"].get(RESOURCE, 0) >= 1
        ]

    def leave_out(self, address: str, why: str) -> None:
        """Measure nothing more at this Dask worker."""
        self.places.pop(address, None)
        self._joining.pop(address, None)
        self._say(f"The Dask worker {address} is left out: {why}.")

    def use(self, address: str, ready: Ready) -> None:
        """Note where a Dask worker found what a commit needs."""
        self.places[address] = replace(
            self._joining.pop(address, None) or self.places[address],
            checkpoint=ready.checkpoint,
            regression=ready.regression,
            torch_home=ready.torch_home,
        )

    def _take(self, event: tuple[float, tuple[str, int, int, int]]) -> None:
        waiting = self._queues.get(event[1][0])
        if waiting is not None:
            waiting.put(event[1])

    @property
    def _on_cards(self) -> bool:
        return self._plan.request.device.startswith("cuda")

    def _find_places(self) -> None:
        """Describe each Dask worker that can measure as this host would."""
        fit = self._fit(self.client.scheduler_info(n_workers=-1)["workers"])
        if not fit:
            needed = " with a card: start them with --resources GPU=1" if self._on_cards else ""
            raise ClusterError(f"The Dask cluster at {self._plan.scheduler} has no worker{needed}.")
        self.places = self._described(fit)
        if not self.places:
            raise ClusterError(
                f"No worker of the Dask cluster at {self._plan.scheduler} can be used, for "
                f"what was said of each: start it anew, or install this version of "
                f"virnucpro-monitor[cluster] there."
            )

    def _described(self, addresses: Sequence[str]) -> dict[str, Any]:
        """Paths by address of those of these Dask workers that have this version."""
        self._looked_at |= set(addresses)
        token = self._plan.cache_folder / f".{self.topic}"
        token.parent.mkdir(parents=True, exist_ok=True)
        token.touch()
        found = []
        try:
            for address, place in self._each(addresses, self._task.look_around, str(token)):
                if place.sources != self._task.source_digest():
                    self.leave_out(address, "it has another version of virnucpro-monitor")
                else:
                    found.append(place)
        finally:
            token.unlink()
        if not self.places:
            self.shares_folder = all(place.shares for place in found)
        elif self.shares_folder:  # commits are not sent then
            for place in found:
                if not place.shares:
                    self.leave_out(place.address, "it does not see the cache folder (cache_dir)")
            found = [place for place in found if place.shares]
        found.sort(key=lambda place: place.address)
        paths = {place.address: self._task.Paths(device=self._device(place)) for place in found}
        if not self.shares_folder:
            self._send_files(paths, found)
        return paths

    def _device(self, place: Any) -> str:
        """Dask workers that see the same cards share them: each takes the first that is free."""
        workers = self._present() or {}
        self._threads[place.address] = int(workers.get(place.address, {}).get("nthreads", 1))
        if not self._on_cards:
            return self._plan.request.device
        same = (place.host, place.visible)
        taken = {
            number
            for address, (cards, number) in self._cards.items()
            if cards == same and address in workers
        }
        number = next(one for one in range(len(taken) + 1) if one not in taken)
        self._cards[place.address] = same, number
        several = place.visible is None or "," in place.visible
        return f"cuda:{number if several else 0}"

    def _each(
        self, addresses: Sequence[str], function: Callable[..., Any], *arguments: Any
    ) -> list[tuple[str, Any]]:
        """Call a function at each Dask worker; one that cannot is left out."""
        futures = {
            address: self.client.submit(function, *arguments, workers=[address], pure=False)
            for address in addresses
        }
        answers = []
        for address, future in futures.items():
            try:
                answers.append((address, future.result(timeout=self._plan.timeout_s)))
            except Exception as error:  # whatever its installation raises
                self.leave_out(address, _first_line(error))
        return answers

    def _send_files(self, paths: dict[str, Any], found: Sequence[Any]) -> None:
        """Give each host that shares no folder with us a cache folder, and the weights' file."""
        # Starts on this host, which come this way too, need no torch in the process that plans.
        from virnucpro_monitor.models.weights import SYNTHETIC, checkpoint_file

        weights = self._plan.request.weights
        first_of = {place.host: place.address for place in reversed(found)}
        sent: dict[str, str | None] = dict.fromkeys(first_of)
        if weights != "official" and weights not in SYNTHETIC:
            model, cache = self._plan.request.model, self._plan.cache_folder
            file = checkpoint_file(model, Path(weights), cache)
            for host, address in first_of.items():
                try:
                    sent[host] = send_file(self.client, self._task.keep_piece, file, address)
                except Exception as error:  # its disk is full, or it has gone
                    for place in found:
                        if place.host == host:
                            del paths[place.address]
                            self.leave_out(place.address, _first_line(error))
        folders = dict(self._each(list(paths), self._task.own_cache_folder))
        for place in found:
            if (path := paths.pop(place.address, None)) and place.address in folders:
                paths[place.address] = replace(
                    path, cache_folder=folders[place.address], weights=sent[place.host]
                )

    def _packed(self, job: Job) -> bytes | None:
        """The commit's files, for Dask workers that don't see them."""
        if self.shares_folder or not isinstance(job, MeasureJob):
            return None
        return pack_checkout(Path(job.checkout))


def _knock(dask: Any, address: str) -> None:
    """Speak to whatever is at this address, or raise: a client that fails takes long to end."""

    async def speak() -> None:
        arguments = dask.Security().get_connection_args("client")
        comm = await dask.comm.connect(address, timeout=CONNECT_S, **arguments)
        try:
            told = await dask.core.send_recv(comm, op="identity")
        finally:
            await comm.close()
        if told["type"] != "Scheduler":
            raise ValueError(f"a {told['type']} answers")

    with ThreadPoolExecutor(1) as thread:  # which has no event loop yet
        thread.submit(asyncio.run, speak()).result()


def _mean(shares: Sequence[int | None]) -> int | None:
    known = [share for share in shares if share is not None]
    return round(fmean(known)) if known else None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
