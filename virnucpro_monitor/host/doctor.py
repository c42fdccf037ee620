"""What works on this machine, and the one command that mends what does not."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from virnucpro_monitor.errors import MonitorError
from virnucpro_monitor.records.request import NAMED_WEIGHTS
from virnucpro_monitor.runner.cards import find_cards
from virnucpro_monitor.runner.confinement import LOCKS_SIGNALS, landlock_version
from virnucpro_monitor.runner.git import run_git
from virnucpro_monitor.runner.gpu import GIB, Gpu, count_gpus, find_gpu

MIN_FREE_BYTES = 10 * GIB
OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        level: "ok", "warning" (something optional is missing) or "problem".
        remedy: the command that mends it, empty where nothing has to be mended.
    """

    name: str
    level: str
    text: str
    remedy: str = ""


def examine(device: str, model: str, weights: str, cache_folder: Path) -> list[Finding]:
    """Look at everything but the database, one finding each."""
    on_gpu = device.startswith("cuda")
    checks: list[Callable[[], Finding]] = [
        lambda: _gpu(device, on_gpu),
        lambda: _torch(on_gpu),
        lambda: _flash_attn(on_gpu),
        lambda: _weights(model, weights, cache_folder),
        lambda: _disk(cache_folder),
        _isolation,
        _git,
        _cron,
    ]
    return [check() for check in checks]


def _gpu(device: str, wanted: bool) -> Finding:
    cards = find_cards(
        device if wanted else "cuda:0", lambda _: None, look=lambda _: None, count=count_gpus
    )
    seen = {card.device: find_gpu(card.device) for card in cards}
    found = {name: gpu for name, gpu in seen.items() if gpu is not None}
    if not found:
        return _no_gpu(PROBLEM if wanted else WARNING, " and ".join(seen))
    kind = next(iter(found.values())).name
    told = {
        name: _as_it_is(gpu, kind) if gpu else ("is not there", True) for name, gpu in seen.items()
    }
    text = "; ".join(f"{name} {one}" for name, (one, _) in told.items())
    if len(told) == 1:
        ((text, _),) = told.values()
    return Finding("GPU", WARNING if any(bad for _, bad in told.values()) else OK, text)


def _no_gpu(level: str, asked: str) -> Finding:
    number, visible = count_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")
    text = (
        f"{asked}: there is no such card, of {number}" if number else "no NVIDIA GPU or no driver"
    )
    if visible is not None:
        text += f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    on = "--device cuda" if number else "--device cpu --dtype float32"
    return Finding("GPU", level, text, f"virnucpro-monitor run --model esm2_t6_8M_UR50D {on}")


def _as_it_is(gpu: Gpu, kind: str) -> tuple[str, bool]:
    """(a card in words, whether something of it stands in the way of measuring there)."""
    text = f"{gpu.name}, driver {gpu.driver}, {gpu.free_bytes / GIB:.0f} of "
    text += f"{gpu.total_bytes / GIB:.0f} GiB free"
    why = gpu.why_busy(0)
    if gpu.name != kind:
        why = "it is of another kind than the first, and left out beside that"
    return (f"{text}; {why}", True) if why else (text, False)


def _torch(on_gpu: bool) -> Finding:
    import torch

    text = f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}"
    # Without a GPU that is all there is to say, and torch need not be mended.
    if on_gpu and find_gpu("cuda:0") is not None and not torch.cuda.is_available():
        return Finding(
            "torch", PROBLEM, f"{text}; it sees no GPU", "pip install --force-reinstall torch"
        )
    return Finding("torch", OK, text)


def _flash_attn(on_gpu: bool) -> Finding:
    try:
        found = version("flash-attn")
    except PackageNotFoundError:
        if not on_gpu:
            return Finding("flash-attn", OK, "not installed, not needed on the CPU")
        if find_gpu("cuda:0") is None:
            return Finding("flash-attn", OK, "not installed, and there is no GPU to use it on")
        return Finding(
            "flash-attn",
            WARNING,
            "not installed; Triton's or torch's own attention is used",
            "pip install flash-attn --no-build-isolation",
        )
    if importlib.util.find_spec("flash_attn") is None:
        return Finding("flash-attn", PROBLEM, f"{found} is installed but has no module")
    try:
        importlib.import_module("flash_attn")
    except Exception as error:
        return Finding(
            "flash-attn",
            PROBLEM,
            f"{found} cannot be imported ({type(error).__name__}); it was built for another torch",
            "pip install --force-reinstall flash-attn --no-build-isolation",
        )
    return Finding("flash-attn", OK, found)


def _weights(model: str, weights: str, cache_folder: Path) -> Finding:
    import torch

    from virnucpro_monitor.models.weight_files import other_family
    from virnucpro_monitor.models.weights import (
        DEMO_MODEL,
        checkpoint_file,
        load_checkpoint,
        model_shape,
    )

    name = f"{model}, {weights}"
    try:
        model_shape(model)
        if weights in NAMED_WEIGHTS and weights != "official":
            return Finding("weights", OK, f"{name}: made when they are needed")
        path = Path(weights).expanduser()
        if weights == "official":
            path = Path(torch.hub.get_dir()) / "checkpoints" / f"{model}.pt"
            if not path.exists() and model != DEMO_MODEL:
                return Finding("weights", WARNING, f"{name}: downloaded at the first run")
        if (family := other_family(path)) is not None:
            return Finding("weights", OK, f"{name}: of the family {family}, for its adapter")
        load_checkpoint(model, checkpoint_file(model, path, cache_folder))
    except MonitorError as error:
        return Finding("weights", PROBLEM, str(error), "virnucpro-monitor weights list")
    return Finding("weights", OK, name)


def _disk(cache_folder: Path) -> Finding:
    place = cache_folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.0f} GiB free for {cache_folder}"
    if not os.access(place, os.W_OK):
        remedy = f"chmod u+w {place}"
        return Finding("disk", PROBLEM, f"{place} cannot be written", remedy)
    return Finding("disk", OK if free >= MIN_FREE_BYTES else WARNING, text)


def _isolation() -> Finding:
    """What a commit's process is kept from on this kernel."""
    version = landlock_version()
    if version >= LOCKS_SIGNALS:
        return Finding(
            "isolation",
            OK,
            f"Landlock {version}: a commit's process writes its own folders alone, and reaches "
            "neither the network nor other processes",
        )
    remedy = "a kernel of Linux 6.12 or newer, started with landlock in lsm="
    if version:
        return Finding(
            "isolation",
            WARNING,
            f"Landlock {version}: a commit's process writes its own folders alone; on a GPU it can "
            "signal this user's processes",
            remedy,
        )
    return Finding(
        "isolation",
        WARNING,
        "no Landlock: a commit's process on a GPU can write what this user can (root's, what "
        "`nobody` can); on the CPU read-only mounts keep it from that where namespaces are allowed",
        remedy,
    )


def _git() -> Finding:
    try:
        return Finding("git", OK, run_git("--version").strip().removeprefix("git version "))
    except MonitorError as error:
        return Finding("git", PROBLEM, str(error), "apt install git")


def _cron() -> Finding:
    if shutil.which("crontab") is None:
        return Finding("cron", WARNING, "no crontab command", "apt install cron")
    if shutil.which("pgrep") is not None:
        looked = subprocess.run(["pgrep", "-x", "cron|crond"], capture_output=True, check=False)
        if looked.returncode != 0:
            text = "installed, but its daemon is not running"
            return Finding("cron", WARNING, text, "service cron start")
    return Finding("cron", OK, "installed")
