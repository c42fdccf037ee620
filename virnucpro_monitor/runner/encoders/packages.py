"""Import the package that a shipped adapter needs, or say what to install."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.runner.adapter_names import SHIPPED

_PLACE = re.compile(r" \(/[^()]*\)$")  # that Python names behind what a module lacks


class MissingPackageError(TargetError):
    """The package that an adapter needs is not installed, or cannot be imported."""


def import_needed(name: str, module: str = "") -> ModuleType:
    """Import the package of the shipped adapter `name`.

    Args:
        module: of the package, the one that the adapter uses; the package itself by default.

    Raises:
        MissingPackageError: naming what to install, or what is in the way.
    """
    shipped = SHIPPED[name]
    assert shipped.needs is not None
    try:
        return importlib.import_module(module or shipped.needs)
    except ModuleNotFoundError as error:
        if error.name != shipped.needs:
            raise MissingPackageError(
                f"The adapter {name} needs {shipped.needs}, which is installed but needs "
                f"{error.name!r}: pip install {error.name}."
            ) from error
        raise MissingPackageError(
            f"The adapter {name} needs {shipped.needs}, which is not installed: "
            f"pip install {shipped.install}."
        ) from error
    except ImportError as error:
        said = _PLACE.sub("", " ".join(str(error).split()))
        raise MissingPackageError(
            f"The adapter {name} needs {shipped.needs}, which cannot be imported with what is "
            f"installed here ({said}): pip install {shipped.install}."
        ) from error


def in_front(folder: Path) -> None:
    """Let a folder of the commit's be looked into first, where it has it."""
    if folder.is_dir():
        sys.path.insert(0, str(folder))
