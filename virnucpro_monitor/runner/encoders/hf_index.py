"""Import one model of transformers without the index of all.

As it is imported, transformers reads the files of each of its models, to know which names are
there: as long as all else of importing takes. Here it reads those of one model. All its other code
runs as ever, so what breaks an import for a user breaks it here.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from virnucpro_monitor.runner.encoders.packages import import_needed

_PACKAGE = "transformers"
_INDEXING = f"{_PACKAGE}.utils.import_utils"


def import_model(adapter: str, model: str) -> Any:
    """The module `modeling_MODEL` of what the shipped `adapter` needs, or that package itself.

    Raises:
        MissingPackageError: as `import_needed` says.
    """
    place = f"{_PACKAGE}.models.{model}.modeling_{model}"
    if _PACKAGE in sys.modules:
        return import_needed(adapter)
    if place in sys.modules:
        return sys.modules[place]
    try:
        with _index_of(model):
            found = importlib.import_module(place)
    except Exception:  # met again below where it is not of our making
        _forget(lambda name: True)
        return import_needed(adapter)
    # Who imports the package later gets it with all its models, and the same modules otherwise.
    _forget(lambda name: name in (_PACKAGE, f"{_PACKAGE}.models"))
    return found


def _forget(which: Callable[[str], bool]) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == _PACKAGE and which(one)]:
        del sys.modules[name]


@contextmanager
def _index_of(model: str) -> Iterator[None]:
    finder = _Finder(model)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        finder.restore()


class _Finder(MetaPathFinder):
    """Has what makes the index leave other models out, for a while."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._patched: tuple[ModuleType, Callable[..., Any]] | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == _INDEXING else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loading(spec.loader, self._patch)
        return spec

    def _patch(self, module: ModuleType) -> None:
        original = module.define_import_structure
        self._patched = module, original

        def define(place: Any, prefix: str | None = None) -> Any:
            folder = Path(place)
            if folder.name == "__init__.py":
                folder = folder.parent
            if (folder.parent.name, folder.name) != (_PACKAGE, "models"):
                return original(place, prefix=prefix)
            inside = self._model if prefix is None else f"{prefix}.{self._model}"
            return original(folder / self._model, prefix=inside)

        module.define_import_structure = define  # type: ignore[attr-defined]

    def restore(self) -> None:
        if self._patched is not None:
            module, original = self._patched
            module.define_import_structure = original  # type: ignore[attr-defined]


class _Loading(Loader):
    """Another loader, after which something is done with the module."""

    def __init__(self, loader: Loader, after: Callable[[ModuleType], None]) -> None:
        self._loader, self._after = loader, after

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._after(module)
