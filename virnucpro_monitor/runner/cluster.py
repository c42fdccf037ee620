"""Measure on a Dask cluster: the same jobs, each on whichever Dask worker has room.

The caller decides, orders and stores, as with one host, so that every result is stored once
whatever Dask tries again. A Dask worker is one place to measure at, with a card if the device is
one; how a cluster is started (SSH, SLURM, PBS, LSF, Kubernetes) is Dask's own affair.

    runner ── ClusterPool.run ── scheduler ── Dask worker ── fork server ── worker
"""

import logging
import queue
import uuid
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from virnucpro_monitor.errors import ClusterError
from virnucpro_monitor.records import CLUSTER_NAME, ClusterHost
from virnucpro_monitor.records.messages import Job, MeasureJob, Ready, Said, decode_said, encode
from virnucpro_monitor.records.progress import Say
from virnucpro_monitor.runner.cards import Card
from virnucpro_monitor.runner.cluster_address import connect, no_answer, no_worker
from virnucpro_monitor.runner.cluster_calls import call_at, result_of, workers_of
from virnucpro_monitor.runner.cluster_files import pack_checkout, send_file
from virnucpro_monitor.runner.cluster_hosts import hosts_of
from virnucpro_monitor.runner.cluster_lease import Leases
from virnucpro_monitor.runner.endings import in_words
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.visible import names_in

CONNECT_S = 10.0
POLL_S = 0.2

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

            from virnucpro_monitor.runner import cluster_task, cluster_tenure
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
        device = plan.request.device
        if device not in ("cpu", "cuda", "cuda:0"):  # the last is said where nothing is
            say(f"On a cluster each worker has a card: --device {device} is taken for cuda there.")
        self._plan = plan
        self.say = say
        self._on_hosts = on_hosts
        self._task: Any = cluster_task
        self.places: dict[str, Any] = {}  # paths by address
        self._joining: dict[str, Any] = {}  # described, and not yet known to be like the others
        self._looked_at: set[str] = set()
        self._looking_at: set[str] = set()
        self._threads: dict[str, int] = {}
        self._cards: dict[str, tuple[Hashable, int]] = {}
        self._room: dict[str, tuple[Card, int]] = {}  # how many commits at once
        self._numbers = count()
        self._resource = cluster_tenure.RESOURCE
        self._jobs: dict[str, tuple[str, str]] = {}  # by a job's key, where, and in which tenure
        # By a commit's folder to be: likewise, where processes stand by for it.
        self._held: dict[str, tuple[str, str]] = {}
        self.shares_folder: bool | None = None
        self.topic = f"virnucpro-monitor-{uuid.uuid4().hex}"
        self._queues: dict[str, queue.SimpleQueue[bytes | None]] = {}
        self.client: Any = connect(distributed, plan.scheduler, CONNECT_S)
        self._line: Any = self.client.scheduler_comm
        resources = {self._resource: 1.0} if self._on_cards else None
        self.leases = Leases(
            self.client, cluster_tenure, f"{self.topic}-leases", resources, self._has_become_ours
        )
        try:
            self._find_places()
            self.client.subscribe_topic(self.topic, self._take)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the cluster; what it still does for us is cancelled."""
        self.leases.close()
        with suppress(Exception):  # a scheduler that has gone
            self.client.close(timeout=CONNECT_S)

    @property
    def name(self) -> str:
        # Not its scheduler's address: a batch system gives each start another, and alike workers
        # give the same bits wherever they are, so a start would take what is known for unknown.
        return CLUSTER_NAME

    def share(self) -> dict[Card, int]:
        """How many commits may be measured at once on which card, by those that are ours now.

        Without any it is one, wherever there will be room.
        """
        open_now = {
            card: room
            for address, (card, room) in list(self._room.items())
            if address in self.places and self.leases.is_open(address)
        }
        return open_now or {Card(0, self._plan.request.device): 1}

    def has(self, card: Card) -> bool:
        """Whether a card is still ours, without a break."""
        return card in self.share()

    def open_place(self, address: str) -> str | None:
        """This Dask worker, or else the one that has the least to do; None while none is ours."""
        places = [one for one in list(self.places) if self.leases.is_open(one)]
        if address in places:
            return address
        return min(places, key=self._num_jobs, default=None)

    def submit(self, job: Job, address: str, *, name: str = "") -> Any:
        """Begin a job at a Dask worker, as a future, and listen to its progress (`next_progress`).

        Args:
            name: of an earlier future of this job, whose beginnings count with its own.
        """
        # Dask takes equal arguments for one task, and 1, 1.0 and True for different ones.
        what, files = "prepare", None
        if isinstance(job, MeasureJob):
            what = job.checkout.rpartition("/")[2]
            if not self.shares_folder:
                files = pack_checkout(Path(job.checkout))
        key = f"virnucpro-monitor-{what}-{uuid.uuid4().hex}"
        told: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._queues[key] = told
        self._jobs[key] = address, ""  # before the tenure is looked up, so that it is kept for it
        tenure = self.leases.tenure_at(address)
        self._jobs[key] = address, tenure
        if isinstance(job, MeasureJob):
            self._held.pop(job.checkout, None)  # what stands by for it is called now
        import dask.config

        # A commit's files travel with its task: kept elsewhere, they would be lost with that host.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):
            future = self.client.submit(
                self._task.do_job,
                encode(job),
                self.places.get(address) or self._joining.get(address),
                files,
                self.topic,
                self._plan.fork,
                name or key,
                tenure,
                key=key,
                pure=False,
                retries=0,
                workers=[address],
            )
        future.add_done_callback(lambda _: told.put(None))  # so that nobody waits any longer
        return future

    def hold(self, job: MeasureJob, address: str) -> None:
        """Have a job's processes stand by at a Dask worker; see `WorkerPool.hold`."""
        paths = self.places.get(address)
        if paths is None and address in self._joining and self.shares_folder:
            paths = self._joining[address].with_weights(job)  # as it was there the last time
        tenure = self.leases.tenure_at(address)
        if paths is not None and tenure:
            ships = not self.shares_folder
            given = encode(job), paths, tenure, self._plan.fork, ships
            if self._ask(address, self._task.hold_job, *given):
                self._held[job.checkout] = address, tenure

    def drop(self, checkout: str) -> None:
        """End what is held for a commit in this folder."""
        address, tenure = self._held.pop(checkout, ("", ""))
        if address:
            self._ask(address, self._task.drop_job, checkout, tenure)

    def num_held(self, address: str) -> int:
        """How many jobs are held at a Dask worker."""
        there = address, self.leases.tenure_at(address)
        return sum(one == there for one in list(self._held.values()))

    def _ask(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function at a Dask worker at once; None where it does not answer."""
        ours = address in self.places or address in self._joining
        return call_at(self.client, [address] if ours else [], function, *arguments).get(address)

    def _num_jobs(self, address: str) -> int:
        return sum(one == address for one, _ in list(self._jobs.values()))

    def next_progress(self, key: str) -> Said | None:
        """What a job has last said of its progress; None where it says nothing for a moment."""
        try:
            told = self._queues[key].get(timeout=POLL_S)
        except queue.Empty:
            return None
        return None if told is None else decode_said(told)  # None: the job has ended

    def forget(self, future: Any) -> None:
        """End listening to a job, and the job itself where it still runs."""
        self._queues.pop(future.key, None)
        self._jobs.pop(future.key, None)
        with suppress(Exception):
            future.cancel()

    def is_cut_off(self) -> bool:
        """Whether the line to the scheduler has broken, even if there is another by now.

        Dask's client takes all that it has asked for as cancelled then, and a new scheduler knows
        nobody who listens.
        """
        line = self.client.scheduler_comm
        return self.client.status != "running" or line is not self._line or bool(line.closed())

    def is_any_left(self) -> bool | None:
        """Whether any of the places, or what may become one, is there; None if nobody says."""
        present = self._present()
        ours = {*self.places, *self._joining, *self._looking_at}
        return None if present is None else any(address in present for address in ours)

    def is_stranded(self, future: Any) -> bool:
        """Whether the place of a job has left the cluster: Dask would wait for it for ever.

        It starts a worker that was killed again, but under another address.
        """
        address, _ = self._jobs.get(future.key, ("", ""))
        return self.has_left(address)

    def has_left(self, address: str) -> bool:
        """Whether a Dask worker has left the cluster, as far as the scheduler says."""
        present = self._present()
        return present is not None and address not in present

    def was_refused(self, future: Any) -> None:
        """Learn that a place let a job not begin: it is not ours, or no longer."""
        _, tenure = self._jobs.get(future.key, ("", ""))
        self.leases.is_over(tenure)

    def newcomers(self) -> list[str]:
        """Look who has come and gone, and return the Dask workers that are ours and may fit.

        They are places only once they have been found to be like the others (`use`).
        """
        present = self._present()
        if present is not None:
            self._looked_at &= set(present)
            for address in {*self.places, *self._joining} - set(present):
                self.places.pop(address, None)
                self._joining.pop(address, None)
                self._room.pop(address, None)
            fit = [address for address in self._fit(present) if address not in self._looked_at]
            self._looking_at = set(fit)
            try:
                if fit:
                    self._joining |= self._described(fit)
            finally:
                self._looking_at = set()
            self.leases.tend(present, lambda address: self._num_jobs(address) > 0)
            for address in list(self._joining):
                self.leases.ask(address)
        return [address for address in list(self._joining) if self.leases.is_open(address)]

    @property
    def num_awaited(self) -> int:
        """How many Dask workers may fit and are not yet known to."""
        return len(self._joining)

    def tell_hosts(self) -> None:
        """Tell where it measures now, and how busy that is."""
        self._on_hosts(hosts_of(self._present() or {}, list(self.places), self._task.USE))

    def _present(self) -> dict[str, Any] | None:
        """The cluster's workers by address; None where the scheduler does not say."""
        return workers_of(self.client)

    def _fit(self, workers: dict[str, Any]) -> list[str]:
        return [
            address
            for address, one in workers.items()
            if not self._on_cards or one["resources"].get(self._resource, 0) >= 1
        ]

    def leave_out(self, address: str, why: str) -> None:
        """Measure nothing more at this Dask worker."""
        self.places.pop(address, None)
        self._joining.pop(address, None)
        self.leases.end(address)
        self.say(f"The Dask worker {address} is left out: {why}.")

    def use(self, address: str, ready: Ready) -> None:
        """Measure at a Dask worker, which has found there what a commit needs."""
        if not self.share_ahead(address, ready.checkpoint):
            self.leave_out(address, "it does not answer")
            return
        self.places[address] = self._joining[address].with_weights(ready)
        self._joining.pop(address, None)

    def share_ahead(self, address: str, checkpoint: str) -> dict[Card, int]:
        """How many commits at once a Dask worker has room for; nothing where it does not answer."""
        if address not in self._room:
            device = self._joining[address].device
            room = self._ask(address, self._task.room_for, device, checkpoint)
            if room is None:
                return {}
            self._share(address, max(1, min(room, self._threads[address])))
        return dict([self._room[address]])

    def _take(self, event: tuple[float, tuple[str, Any]]) -> None:
        key, said = event[1]
        waiting = self._queues.get(key)
        if waiting is not None:
            waiting.put(said)

    def _has_become_ours(self, address: str) -> None:
        if (share := self._room.get(address)) is not None:
            self._share(address, share[1])  # what stood by before has ended

    def _share(self, address: str, room: int) -> None:
        """Have so many commits at once at a Dask worker, as a card that none was measured on."""
        card = Card(next(self._numbers), self._plan.request.device, address)
        self._room[address] = card, room

    @property
    def _on_cards(self) -> bool:
        return self._plan.request.device.startswith("cuda")

    def _find_places(self) -> None:
        """Describe each Dask worker that can measure as this host would."""
        present = self._present()
        if present is None:
            raise no_answer(self._plan.scheduler)
        fit = self._fit(present)
        if not fit:
            raise no_worker(self._plan.scheduler, on_cards=self._on_cards)
        self._joining = self._described(fit)
        if not self._joining:
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
        look = self._task.look_around, str(token), self._plan.fork
        try:
            for address, place in self._each(addresses, *look):
                if place.sources != self._task.source_digest():
                    self.leave_out(address, "it has another version of virnucpro-monitor")
                else:
                    found.append(place)
        finally:
            token.unlink()
        if self.shares_folder is None:
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
        several = place.visible is None or len(names_in(place.visible)) > 1
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
                answers.append(
                    (address, result_of(self.client, address, future, self._plan.timeout_s))
                )
            except Exception as error:  # whatever its installation raises
                self.leave_out(address, in_words(error))
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
                            self.leave_out(place.address, in_words(error))
        folders = dict(self._each(list(paths), self._task.own_cache_folder))
        for place in found:
            if (path := paths.pop(place.address, None)) and place.address in folders:
                paths[place.address] = replace(
                    path, cache_folder=folders[place.address], weights=sent[place.host]
                )
