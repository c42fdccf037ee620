"""The one device that a model is to run on: whether it is there."""

import os

import torch

from virnucpro_monitor.errors import DeviceError


def checked_device(device: str | torch.device) -> torch.device:
    """Return "cpu", or the CUDA device with its index ("cuda" is the first one).

    Raises:
        DeviceError: `device` is no device, of another kind, several, or not in this machine.
    """
    if isinstance(device, str) and device.startswith("cuda:") and "," in device:
        raise DeviceError(f"This runs on one device, not on {device}: name one as cuda:N.")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"{device!r} is not a device: use cpu or cuda:N.") from error
    if found.type not in ("cpu", "cuda"):
        raise DeviceError(f"Device {found} is not supported: use cpu or cuda:N.")
    if found.type == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (found.index or 0) >= count:
        raise DeviceError(f"There is no {found}: {_what_is_there(count)}.")
    return torch.device("cuda", found.index or 0)


def _what_is_there(count: int) -> str:
    """How many CUDA devices there are, and what to do."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = f"PyTorch sees {count} CUDA {'device' if count == 1 else 'devices'} here; use "
    there += f"one up to cuda:{count - 1}" if count > 1 else "cuda:0" if count else "--device cpu"
    check = [] if count else ["the driver"]
    check += [] if visible is None else [f"CUDA_VISIBLE_DEVICES, which is {visible!r}"]
    return f"{there}, or check {' and '.join(check)}" if check else there
