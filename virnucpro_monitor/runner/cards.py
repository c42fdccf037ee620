"""The cards of this host that a start measures on: all of one kind."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from virnucpro_monitor.errors import DeviceError
from virnucpro_monitor.records.progress import Say
from virnucpro_monitor.runner.gpu import Gpu, count_gpus, find_gpu


@dataclass(frozen=True, slots=True)
class Card:
    """Attributes:
    place: among the cards of a start.
    device: "cuda:N"; without a GPU "cpu" is the one card.
    worker: address of the Dask worker that it is the card of; empty on this host.
    """

    place: int
    device: str
    worker: str = ""


def find_cards(
    device: str,
    say: Say,
    *,
    look: Callable[[str], Gpu | None] = find_gpu,
    count: Callable[[], int] = count_gpus,
) -> tuple[Card, ...]:
    """The cards that `device` asks for: "cpu", "cuda:N", "cuda:N,M", or "cuda" for all.

    Results of different kinds of cards are never mixed, so those unlike the first are left out, and
    so are those that are not there, as long as one is.

    Raises:
        DeviceError: `device` is none of these.
    """
    kind, _, places = device.partition(":")
    if kind != "cuda":
        return (Card(0, device),)
    names = [place.strip() for place in places.split(",")] if places else _all(count())
    if not all(name.isdigit() for name in names):
        raise DeviceError(
            f"{device!r} is not a device: use cpu, cuda:N, several as cuda:0,2, or cuda for all."
        )
    devices = [f"cuda:{int(name)}" for name in dict.fromkeys(names)]
    if len(devices) > 1:
        devices = _of_one_kind(devices, say, look)
    return tuple(Card(place, one) for place, one in enumerate(devices))


def cpu_utilisation() -> int:
    """Percent: this host's load of the last minute over its cores, 100 at most."""
    return min(100, round(100 * os.getloadavg()[0] / (os.cpu_count() or 1)))


def _all(number: int) -> list[str]:
    return [
        str(place) for place in range(max(1, number))
    ]  # where there is none, the worker says so


def _of_one_kind(devices: list[str], say: Say, look: Callable[[str], Gpu | None]) -> list[str]:
    seen = {device: look(device) for device in devices}
    found = {device: gpu for device, gpu in seen.items() if gpu is not None}
    if not found:
        return devices  # NVML is missing: the workers see for themselves
    first, *others = found
    for device in devices:
        if device not in found:
            say(f"{device} is not there: going on without it.")
    alike = [first]
    for device in others:
        if found[device].name == found[first].name:
            alike.append(device)
        else:
            say(
                f"{device} ({found[device].name}) is of another kind than {first} "
                f"({found[first].name}) and is left out: start it by itself, as --device {device}."
            )
    return alike
