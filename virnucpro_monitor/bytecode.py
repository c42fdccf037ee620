"""Bytecode of torch and all else that a command and its fork server import, where none is kept.

Installers may leave it to Python to compile, which containers often tell to write nothing, and
which may not write beside torch at all. Each start would compile 1,200 files anew then, for three
times the processor's seconds of their import.

Python tells a changed file by its time and size, which installers may set to the same for each
version. So each set of installed versions has a folder of its own. And whoever may write there has
his code run: it is only used where that is this user alone.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from virnucpro_monitor.user_folders import user_folder

_OPTION = "pycache_prefix"
_WRITES_NONE = "PYTHONDONTWRITEBYTECODE"
_MOST_KEPT = 4  # sets of versions, each some 60 MB


def keep_own_bytecode() -> None:
    """Let this process itself find and keep what it imports from here on in the user's cache."""
    place = _place()
    if place is not None and _is_needed(place):
        sys.pycache_prefix, sys.dont_write_bytecode = str(place), False
        _drop_others(place)


def own_bytecode(environment: dict[str, str]) -> list[str]:
    """Options of an interpreter that is to keep bytecode in the user's cache; none if it need not.

    Args:
        environment: of that interpreter, which is changed with it.
    """
    place = _place()
    if place is None or (sys.pycache_prefix != str(place) and not _is_needed(place)):
        return []
    environment.pop(_WRITES_NONE, None)
    return ["-X", f"{_OPTION}={place}"]


def _place() -> Path | None:
    """The folder for what is installed now; None for a user without a home."""
    with suppress(RuntimeError):
        return user_folder("XDG_CACHE_HOME", ".cache") / "bytecode" / _installed()
    return None


def _installed() -> str:
    """Tells one set of packages beside torch from another, by their names and versions."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "none"
    with suppress(OSError):
        beside = Path(spec.origin).parent.parent
        named = sorted(name for name in os.listdir(beside) if name.endswith("-info"))
        return hashlib.sha256("\n".join([str(beside), *named]).encode()).hexdigest()[:16]
    return "none"


def _is_private(folder: Path) -> bool:
    """Whether nobody but this user may write a folder of the cache, which is made where missing.

    His own group may, which on many systems is his alone.
    """
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for one in (folder.stat(), folder.parent.stat()):
            others = 0o002 if one.st_gid == os.getgid() else 0o022
            if one.st_uid != os.getuid() or one.st_mode & others:
                return False
        return True
    return False


def _drop_others(used: Path) -> None:
    """Keep the sets of versions that were used last."""
    with suppress(OSError):
        used.mkdir(exist_ok=True)
        os.utime(used)
        others = sorted(used.parent.iterdir(), key=lambda one: -one.stat().st_mtime)
        for old in others[_MOST_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)


def _is_needed(place: Path) -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.cached is None or sys.pycache_prefix is not None:
        return False
    beside = Path(spec.cached).parent.parent
    writes = not sys.dont_write_bytecode and os.access(beside, os.W_OK)
    return not (writes or Path(spec.cached).exists()) and _is_private(place.parent)


def leave_own_bytecode() -> None:
    """Let whoever imports from here on write none and find what it would find without."""
    sys.dont_write_bytecode = True
    if _OPTION in sys._xoptions:
        sys.pycache_prefix = None
        os.environ[_WRITES_NONE] = "1"
