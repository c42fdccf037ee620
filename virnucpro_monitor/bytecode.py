"""Bytecode of torch and all else that a command and its fork server import, where none is kept.

Installers may leave it to Python to compile, which containers often tell to write nothing, and
which may not write beside torch at all. Each start would compile 1,200 files anew then, for three
times the processor's seconds of their import.
"""

import importlib.util
import os
import sys
from pathlib import Path

from virnucpro_monitor.user_folders import user_folder

_OPTION = "pycache_prefix"
_WRITES_NONE = "PYTHONDONTWRITEBYTECODE"


def keep_own_bytecode() -> None:
    """Let this process itself find and keep what it imports from here on in the user's cache."""
    if _is_needed():
        sys.pycache_prefix, sys.dont_write_bytecode = _place(), False


def own_bytecode(environment: dict[str, str]) -> list[str]:
    """Options of an interpreter that is to keep bytecode in the user's cache; none if it need not.

    Args:
        environment: of that interpreter, which is changed with it.
    """
    if sys.pycache_prefix != _place() and not _is_needed():
        return []
    environment.pop(_WRITES_NONE, None)
    return ["-X", f"{_OPTION}={_place()}"]


def _place() -> str:
    return str(user_folder("XDG_CACHE_HOME", ".cache") / "bytecode")


def _is_needed() -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.cached is None or sys.pycache_prefix is not None:
        return False
    beside = Path(spec.cached).parent.parent
    writes = not sys.dont_write_bytecode and os.access(beside, os.W_OK)
    return not (writes or Path(spec.cached).exists())


def leave_own_bytecode() -> None:
    """Let whoever imports from here on write none and find what it would find without."""
    sys.dont_write_bytecode = True
    if _OPTION in sys._xoptions:
        sys.pycache_prefix = None
        os.environ[_WRITES_NONE] = "1"
