"""Whether `import esm` gives fair-esm: another package is imported by the same name."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError

_MEND = "pip install --force-reinstall --no-deps fair-esm==2.0.0"


def check_fair_esm() -> None:
    """Raise `ConfigurationError` where the module `esm` is not fair-esm's. Nothing is imported."""
    spec = find_spec("esm")
    places = [] if spec is None else spec.submodule_search_locations or []
    if any(Path(place, "model", "esm2.py").is_file() for place in places):
        return
    try:
        other = version("esm")
    except PackageNotFoundError:
        raise ConfigurationError(f"fair-esm is not installed: {_MEND}.") from None
    raise ConfigurationError(
        f"The package esm {other} is imported by the same name as fair-esm, which the monitor "
        f"needs, and has written over it: pip uninstall esm, then {_MEND}."
    )
