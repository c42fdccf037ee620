"""Find the adapter that a target names, and load one commit's model with it.

An adapter is named by an entry point of the group `virnucpro_monitor.adapters`, as
`module:callable`, or as `file.py:callable` for a file of the watched repository (with an absolute
path, of this machine); called without arguments, that must give the adapter. It runs in the
commit's own process, with the checkout in front of `sys.path`, and may import whatever it likes
there; in a private environment too, where a module is found as our own interpreter finds it.
"""

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import cast

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.runner.adapters import Adapter, LoadRequest
from virnucpro_monitor.runner.code_digest import ADAPTERS
from virnucpro_monitor.runner.embedder import Embedder, EmbedderSubject
from virnucpro_monitor.validation.subject import Subject


def load_subject(name: str, request: LoadRequest, search_path: str | None = None) -> Subject:
    """Load one commit's model with the adapter of this name.

    Args:
        search_path: folder in which our own interpreter finds the adapter's module, for another
            interpreter; None where there is no such.

    Raises:
        TargetError: no adapter of that name, or as `Adapter.load` says.
    """
    if ":" in name:
        sys.path.insert(0, str(request.checkout))
        if search_path is not None and search_path not in sys.path:
            sys.path.append(search_path)
    loaded = find_adapter(name, request.checkout).load(request)
    if isinstance(loaded, Embedder):
        subject = EmbedderSubject(
            loaded,
            model_name=request.model_name,
            device=request.device,
            dtype=request.dtype,
            token_budget=request.token_budget,
        )
        return cast(Subject, subject)  # its attributes may be set, which a Subject's need not
    return loaded


def find_adapter(name: str, checkout: Path | None = None) -> Adapter:
    """Find an adapter by entry point, by `module:callable` or by `file.py:callable`.

    Args:
        checkout: root of the commit's files, in which a file is looked for.

    Raises:
        TargetError: there is none of that name.
    """
    if ":" in name:
        place, _, attribute = name.rpartition(":")
        try:
            module = (
                _import_file((checkout or Path()) / place)
                if place.endswith(".py")
                else importlib.import_module(place)
            )
            factory = getattr(module, attribute)
        except (ImportError, AttributeError, OSError) as error:
            raise TargetError(f"Adapter {name!r} cannot be imported ({error}).") from error
        return cast(Adapter, factory())
    found = entry_points(group=ADAPTERS)
    for entry in found:
        if entry.name == name:
            return cast(Adapter, entry.load()())
    known = ", ".join(sorted({entry.name for entry in found})) or "none"
    raise TargetError(
        f"There is no adapter {name!r} (known: {known}; or give module:callable, or "
        f"file.py:callable for a file of the repository)."
    )


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # of a name that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
