"""Find the adapter that a target names, and load one commit's model with it.

`runner.adapter_names` says how it is named. What is named is called: without arguments it must give
an adapter; a class or function that takes one argument is handed the `LoadRequest` itself and gives
what `Adapter.load` gives. It runs in the commit's own process, with the checkout in front of
`sys.path`, and may import whatever it likes there; in a private environment too, where a module is
found as our own interpreter finds it.
"""

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.families import FAMILIES, Family
from virnucpro_monitor.runner.adapter_names import ADAPTERS, SHIPPED, AdapterName, parse_adapter
from virnucpro_monitor.runner.adapters import Adapter, LoadRequest
from virnucpro_monitor.runner.embedder import Embedder, EmbedderSubject
from virnucpro_monitor.validation.subject import Subject


class AdapterImportError(TargetError):
    """A module that an adapter needs is not there; the cause is chained."""


def load_subject(name: str, request: LoadRequest, search_path: Sequence[str] = ()) -> Subject:
    """Load one commit's model with the adapter of this name.

    Args:
        search_path: folders beside the checkout in which an adapter's module, and what it imports,
            is looked for last: where our own interpreter finds it, for another interpreter.

    Raises:
        TargetError: no adapter of that name, or as `Adapter.load` says.
    """
    named = parse_adapter(name)
    if named.name not in SHIPPED:  # an entry point's may be installed without what it watches
        sys.path.insert(0, str(request.checkout))
        sys.path += [one for one in search_path if one not in sys.path]
    try:
        loaded = find_adapter(name, request.checkout).load(request)
    except AdapterImportError as error:
        places = f"{', '.join(search_path) or request.checkout} and among what is installed"
        raise TargetError(
            f"{error}: it was looked for in {places}; install it, or start from the folder that "
            f"holds it."
        ) from error.__cause__
    if isinstance(loaded, Embedder):
        subject = EmbedderSubject(
            loaded,
            model_name=request.model_name,
            device=request.device,
            dtype=request.dtype,
            token_budget=request.token_budget,
            family=_family_of(loaded, parse_adapter(name).family),
        )
        return cast(Subject, subject)  # its attributes may be set, which a Subject's need not
    if not hasattr(loaded, "embed_packed_layers"):
        lacks = [how for how in ("alone", "together") if not callable(getattr(loaded, how, None))]
        raise TargetError(
            f"The adapter {name!r} gives {type(loaded).__name__}, which has no "
            f"{' and no '.join(lacks)}: give it both, as alone(ids) and "
            f"together(ids, cu_seqlens, max_seqlen)."
        )
    return loaded


def find_adapter(name: str, checkout: Path | None = None) -> Adapter:
    """Find an adapter by its name or its place.

    Args:
        checkout: root of the commit's files, in which a file is looked for.

    Raises:
        TargetError: there is none of that name, or it is none.
        ConfigurationError: the name is not well formed.
    """
    parsed = parse_adapter(name)
    factory = _placed(name, parsed, checkout) if parsed.place else _named(name, parsed)
    if _takes_request(factory, parsed):
        return _Direct(factory)
    try:
        adapter = factory(**parsed.options)
    except TypeError as error:
        raise TargetError(
            f"The adapter {name!r} cannot be made ({error}): it is called with one argument, the "
            f"LoadRequest, or with none to give what has a method load."
        ) from error
    if isinstance(adapter, Embedder) and not hasattr(adapter, "load"):
        raise TargetError(
            f"{name!r} takes no argument: let {parsed.attribute or parsed.name} take one, the "
            f"LoadRequest, as in __init__(self, request)."
        )
    if not callable(getattr(adapter, "load", None)):
        raise TargetError(
            f"{name!r} gives {type(adapter).__name__}, which has no method load: name an adapter, "
            f"or what makes a model from a LoadRequest."
        )
    return cast(Adapter, adapter)


def _family_of(embedder: Any, named: str) -> Family:
    """Whose tokens an embedder reads: its own word goes before its adapter's name."""
    own = getattr(embedder, "family", None) or named
    family = FAMILIES.get(own) if isinstance(own, str) else own
    if not isinstance(family, Family):
        raise TargetError(
            f"The adapter's model has the family {own!r}: give a Family of "
            f"virnucpro_monitor.models.families, or one of {', '.join(FAMILIES)}."
        )
    return family


class _Direct:
    """What makes a model from a request, as an adapter."""

    def __init__(self, make: Callable[[LoadRequest], Any]) -> None:
        self._make = make

    def load(self, request: LoadRequest) -> Any:
        return self._make(request)


def _takes_request(factory: Callable[..., Any], parsed: AdapterName) -> bool:
    if parsed.options:
        return False
    try:
        parameters = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [one for one in parameters if one.default is one.empty and one.kind in positional]
    return len(needed) == 1


def _placed(name: str, parsed: AdapterName, checkout: Path | None) -> Callable[..., Any]:
    try:
        module = (
            _import_file((checkout or Path()) / parsed.place)
            if parsed.file
            else importlib.import_module(parsed.place)
        )
    except ModuleNotFoundError as error:
        raise AdapterImportError(f"Adapter {name!r} cannot be imported ({error})") from error
    except (ImportError, AttributeError, OSError) as error:
        raise TargetError(f"Adapter {name!r} cannot be imported ({error}).") from error
    try:
        factory = getattr(module, parsed.attribute)
    except AttributeError as error:
        known = [one for one, value in vars(module).items() if callable(value)]
        meant = _meant(parsed.attribute, known)
        raise TargetError(f"Adapter {name!r} cannot be imported ({error}){meant}") from error
    if not callable(factory):
        raise TargetError(f"{parsed.attribute} of {parsed.place} is not callable.")
    return cast(Callable[..., Any], factory)


def _meant(wanted: str, known: Iterable[str]) -> str:
    """The end of a sentence, with the known name that was probably meant."""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(wanted.lower(), lower, n=1, cutoff=0.5)
    return f": did you mean {lower[near[0]]}?" if near else "."


def _named(name: str, parsed: AdapterName) -> Callable[..., Any]:
    shipped = SHIPPED.get(parsed.name)
    if shipped is not None:
        return _placed(name, parse_adapter(shipped.place), None)
    found = entry_points(group=ADAPTERS)
    for entry in found:
        if entry.name == parsed.name:
            return cast(Callable[..., Any], entry.load())
    if parsed.name.endswith(".py"):
        raise TargetError(
            f"The adapter {name!r} names a file alone: say what of it loads the model, as in "
            f"{parsed.name}:CLASS."
        )
    known = sorted({*SHIPPED, *(entry.name for entry in found)})
    raise TargetError(
        f"There is no adapter {name!r} (known: {', '.join(known)}; or give module:callable, or "
        f"file.py:callable for a file of the repository){_meant(parsed.name, known)}"
    )


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # of a name that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module
