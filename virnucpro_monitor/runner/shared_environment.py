"""A private environment in a process that was forked, and not started as an interpreter of its own.

Importing torch takes longer than to measure a small model. An environment that leaves alone what a
warm process of ours has imported would import the very same files: so a fork of that process enters
it instead. What an environment has of its own is then imported from there, as ever.
"""

import gc
import importlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import virnucpro_monitor
from virnucpro_monitor.records.messages import MeasureJob
from virnucpro_monitor.runner.adapter_names import SHIPPED, parse_adapter
from virnucpro_monitor.runner.packages import installed_packages
from virnucpro_monitor.runner.venv import (
    HOST_PATHS,
    own_packages,
    search_path,
    site_packages,
)

PACKAGE_ROOT = str(Path(virnucpro_monitor.__file__).parent.parent)
"""Where other interpreters find this package."""
_RUNS_AT_START = ("sitecustomize", "usercustomize")
_TOLD = ("torch", "esm", "flash_attn", "nvidia")
"""What `capture_environment` reads the facts of an interpreter from."""


def shares_loaded(python: Path, *, beside: Iterable[str] = ()) -> bool:
    """Whether an environment's interpreter is ours, and would import what this process has.

    False too where the environment runs code as it starts: that needs a start.

    Args:
        beside: other importable names, as if this process had them.
    """
    if os.path.realpath(python) != os.path.realpath(sys.executable):
        return False
    try:
        own = [entry.name for entry in own_packages(_folder(python)).iterdir()]
    except OSError:
        return False
    roots = {name.partition(".")[0] for name in own if not name.endswith((".dist-info", ".pth"))}
    loaded = {name.partition(".")[0] for name in list(sys.modules)}
    hooks = any(name.endswith(".pth") and name != HOST_PATHS for name in own)
    return not hooks and roots.isdisjoint({*loaded, *_RUNS_AT_START, *beside})


def installed_beside(python: Path) -> dict[str, str] | None:
    """Version by distribution, where an environment is ours in all else that a run tells of it.

    None where its interpreter has to be asked what it is.
    """
    if not shares_loaded(python, beside=_TOLD):
        return None
    return installed_packages(search_path(_folder(python)))


def load_for(job: MeasureJob) -> None:
    """Import a release's adapter and what its package imports of others, for all to come."""
    shipped = SHIPPED.get(parse_adapter(job.adapter).name)
    if job.python is None or shipped is None or not shares_loaded(Path(job.python)):
        return
    own = own_packages(_folder(Path(job.python)))
    for name in (shipped.place.partition(":")[0], *shipped.loads):
        if not own.joinpath(name.partition(".")[0]).exists():
            with suppress(Exception):  # not installed here: the package may do without it
                importlib.import_module(name)
    gc.freeze()


def enter(python: Path) -> None:
    """Make this process one of the environment, which `shares_loaded`."""
    from virnucpro_monitor.runner.packages import enter_packages

    folder = _folder(python)
    own = str(own_packages(folder))
    ours = site_packages()
    place = next((at for at, one in enumerate(sys.path) if one in ours), len(sys.path))
    sys.path.insert(place, own)
    sys.executable, sys.prefix, sys.exec_prefix = str(python), str(folder), str(folder)
    os.environ["PYTHONPATH"] = PACKAGE_ROOT  # for interpreters that it starts itself
    importlib.invalidate_caches()
    enter_packages(own)


def _folder(python: Path) -> Path:
    return python.parent.parent
