"""Find the seed's names in a checkout, without importing anything."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.errors import TargetError

_SKIPPED_FOLDERS = {"tests", "test", "build", "dist", "docs", "node_modules", "venv", "env"}
_LOADER = re.compile(r"^def load_esm2_model\b", re.MULTILINE)
_COLLATOR = re.compile(r"^class VarlenCollator\b", re.MULTILINE)
_MAX_SOURCE_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class InterfaceNames:
    """Where a target keeps the seed's names.

    Attributes:
        import_root: folder that goes to the front of `sys.path`.
        package: the import root's name.
    """

    import_root: Path
    package: str
    loader_module: str
    collator_module: str


def find_names(checkout: Path, package: str | None) -> InterfaceNames:
    """Find the modules that define `load_esm2_model` and `VarlenCollator`.

    Args:
        package: import root of the package; None where only one fits.

    Raises:
        TargetError: no package, or several, or the one named lacks a name.
    """
    loaders: dict[str, list[tuple[Path, str]]] = {}
    collators: dict[str, list[tuple[Path, str]]] = {}
    for root in (checkout, checkout / "src"):
        for path in _source_files(root, skip_src=root == checkout):
            text = _read(path)
            for pattern, found in ((_LOADER, loaders), (_COLLATOR, collators)):
                if pattern.search(text):
                    module = _module_name(path.relative_to(root))
                    found.setdefault(module.split(".")[0], []).append((root, module))
    fitting = sorted(loaders.keys() & collators.keys())
    if package is not None:
        head = package.split(".")[0]
        for name, found in (("load_esm2_model", loaders), ("VarlenCollator", collators)):
            if not [m for _, m in found.get(head, []) if (m + ".").startswith(package + ".")]:
                raise TargetError(
                    f"Package {package!r} has no {name} at this commit: it lacks the interface "
                    f"(load_esm2_model, forward_packed, VarlenCollator)."
                )
        fitting = [head]
    if not fitting:
        raise TargetError(
            "No package here has both load_esm2_model and VarlenCollator: this commit lacks the "
            "interface, --package must name it, or an adapter gives it: "
            "`virnucpro-monitor targets add NAME LOCATION --adapter ADAPTER`."
        )
    if len(fitting) > 1:
        raise TargetError(f"Several packages fit ({', '.join(fitting)}): choose by --package.")
    chosen = fitting[0]
    root, loader = _preferred(loaders[chosen], package or chosen, "models.esm2_flash")
    _, collator = _preferred(collators[chosen], package or chosen, "data.collators")
    return InterfaceNames(root, package or chosen, loader, collator)


def _preferred(found: list[tuple[Path, str]], package: str, usual: str) -> tuple[Path, str]:
    inside = [entry for entry in found if (entry[1] + ".").startswith(package + ".")] or found
    for entry in inside:
        if entry[1] == f"{package}.{usual}":
            return entry
    return min(inside, key=lambda entry: (entry[1].count("."), entry[1]))


def _source_files(root: Path, *, skip_src: bool) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        at_top = Path(folder) == root
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not (at_top and skip_src and name == "src")
        )
        found += [Path(folder, name) for name in sorted(files) if name.endswith(".py")]
    return found


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_SOURCE_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # a dangling link


def _module_name(path: Path) -> str:
    parts = list(path.with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)
