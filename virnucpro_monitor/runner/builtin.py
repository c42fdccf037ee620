"""The built-in target: this package's own packed ESM-2, as it is installed."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import virnucpro_monitor
from virnucpro_monitor import __version__
from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.records import Commit, Target, short_hash
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.git import run_git

BUILTIN = "builtin"
_PACKAGE = Path(virnucpro_monitor.__file__).parent
_MEASURED = ("models", "data")  # the rooms whose code is under test


def builtin_target() -> Target:
    return Target(
        name=BUILTIN,
        location=str(_PACKAGE.parent),
        adapter="builtin",
        package=_PACKAGE.name,
        paths=tuple(f"{_PACKAGE.name}/{room}" for room in _MEASURED),
    )


def source_digest(*rooms: str) -> str:
    """SHA-256 of this package's code as it lies on disk: of these rooms, or of all of it."""
    digest = hashlib.sha256()
    for room in rooms or ("",):
        for path in sorted((_PACKAGE / room).rglob("*.py")):
            if "_bundled" not in path.parts:  # of an installed wheel alone
                digest.update(f"{path.relative_to(_PACKAGE)}\0".encode())
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def builtin_digest() -> str:
    """SHA-256 of the code under test, as it lies on disk."""
    return source_digest(*_MEASURED)


def builtin_commit(cache_folder: Path) -> Commit:
    """The commit that the built-in target stands for.

    In a clean checkout that is HEAD. Elsewhere (uncommitted changes, an installed wheel) it is the
    content digest in a commit's place, and the subject says so.
    """
    root = _PACKAGE.parent
    why = f"virnucpro_monitor {__version__}, installed without its repository"
    if (root / ".git").exists():
        try:
            changed = run_git("status", "--porcelain", "--", _PACKAGE.name, folder=root)
            repository = Repository.open(str(root), cache_folder)
            head = repository.resolve("HEAD")
        except RepositoryError:
            changed, head = "", ""
        if head and not changed.strip():
            return repository.commits([head], repository.history(head))[0]
        if head:
            why = f"uncommitted changes on {short_hash(head)}"
    now = datetime.now(UTC)
    return Commit(
        hash=builtin_digest()[:40],
        subject=f"Content digest of {why}",
        committed_at=now,
    )
