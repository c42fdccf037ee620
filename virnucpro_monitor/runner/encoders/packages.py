"""Import the package that a shipped adapter needs, or say what to install."""

import importlib
from types import ModuleType

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.runner.adapter_names import SHIPPED


class MissingPackageError(TargetError):
    """The package that an adapter needs is not installed, or cannot be imported."""


def import_needed(name: str) -> ModuleType:
    """Import the package of the shipped adapter `name`.

    Raises:
        MissingPackageError: naming what to install, or what is in the way.
    """
    shipped = SHIPPED[name]
    assert shipped.needs is not None
    try:
        return importlib.import_module(shipped.needs)
    except ModuleNotFoundError as error:
        if error.name != shipped.needs:
            raise MissingPackageError(
                f"The adapter {name} needs {shipped.needs}, which is installed but needs "
                f"{error.name!r}: install that."
            ) from error
        raise MissingPackageError(
            f"The adapter {name} needs {shipped.needs}, which is not installed: "
            f"pip install {shipped.install}."
        ) from error
    except ImportError as error:
        raise MissingPackageError(
            f"The adapter {name} needs {shipped.needs}, which cannot be imported here: {error}."
        ) from error
