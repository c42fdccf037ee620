"""Benchmark sets: named, versioned, frozen by the SHA-256 of their content.

A set is one folder, `<name>/<version>.fasta` in canonical FASTA with `<version>.json` (digest and
description) beside it. The digest is that of the canonical FASTA file itself, so that `sha256sum`
on it shows the same. Released sets ship in the package; a user's own live in the data folder.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from virnucpro_monitor.data.fasta import format_fasta, parse_fasta, read_fasta
from virnucpro_monitor.data.limits import MAX_RESIDUES
from virnucpro_monitor.errors import BenchmarkError
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence
from virnucpro_monitor.user_folders import user_folder

RELEASED_FOLDER = Path(__file__).parent / "benchmark_sets"

_NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def truncate(residues: str) -> tuple[str, bool]:
    """Keep the N-terminal `MAX_RESIDUES` residues; also returns whether any were cut off."""
    return residues[:MAX_RESIDUES], len(residues) > MAX_RESIDUES


def benchmark_digest(sequences: Iterable[ProteinSequence]) -> str:
    """SHA-256 (hex) of the set's canonical FASTA: ids, residues and their order."""
    return hashlib.sha256(format_fasta(sequences).encode()).hexdigest()


def user_benchmark_folder() -> Path:
    """Where `benchmark add` freezes a user's own sets."""
    return user_folder("XDG_DATA_HOME", ".local/share") / "benchmark_sets"


def load_benchmark(name: str, *, folder: Path | None = None) -> BenchmarkSet:
    """Load a set by `name` (its latest version) or `name@version`.

    Args:
        folder: the user's own sets; `user_benchmark_folder()` if not given.

    Raises:
        BenchmarkError: there is no such set or version, or its file no longer has its digest.
    """
    wanted, _, version_text = name.partition("@")
    root = _find_root(wanted, folder)
    versions = _find_versions(root, wanted) if root else []
    if root is None or not versions:
        known = ", ".join(sorted({item.name for item in list_benchmarks(folder)}))
        raise BenchmarkError(
            f"There is no benchmark set {wanted!r}; known are {known} "
            f"(`benchmark add FILE --name NAME` freezes another)."
        )
    if not version_text:
        return _load_version(root, wanted, versions[-1])
    if version_text not in map(str, versions):
        listed = ", ".join(map(str, versions))
        raise BenchmarkError(
            f"Benchmark set {wanted!r} has no version {version_text!r}; it has {listed}."
        )
    return _load_version(root, wanted, int(version_text))


def list_benchmarks(folder: Path | None = None) -> tuple[BenchmarkSet, ...]:
    """All versions of all sets, the released ones first, then by name and version.

    Raises:
        BenchmarkError: a set's file no longer has its digest.
    """
    return tuple(
        _load_version(root, name, version)
        for root in (RELEASED_FOLDER, folder or user_benchmark_folder())
        for name in _find_names(root)
        for version in _find_versions(root, name)
    )


def add_benchmark(
    path: str | Path,
    name: str,
    folder: Path | None = None,
    description: str = "",
    say: Callable[[str], object] | None = None,
) -> BenchmarkSet:
    """Freeze a FASTA file as a set of the user's.

    A content that the set already has in some version is that version again, and nothing is
    written; any other content becomes the next version.

    Args:
        say: receives a sentence for each thing in the file that is not taken as it stands.

    Raises:
        BenchmarkError: the file is not valid FASTA, the name is not usable or is a released set's,
            or the folder cannot be written.
    """
    if not _NAME_PATTERN.fullmatch(name):
        raise BenchmarkError(
            f"{name!r} cannot name a benchmark set; use up to 64 lower-case letters, digits, "
            f"'.', '_' and '-', beginning with a letter or digit."
        )
    if name in _find_names(RELEASED_FOLDER):
        raise BenchmarkError(
            f"{name!r} is a set released with this program and never changes; choose another name."
        )
    sequences = read_fasta(path, say) if say else read_fasta(path)
    digest = benchmark_digest(sequences)
    root = folder or user_benchmark_folder()
    versions = _find_versions(root, name)
    for version in versions:
        existing = _load_version(root, name, version)
        if existing.digest == digest:
            return existing
    try:
        version = _freeze(root / name, sequences, digest, description)
    except OSError as error:
        raise BenchmarkError(
            f"Benchmark set {name!r} cannot be written to {root}: {error.strerror or error}."
        ) from error
    return _load_version(root, name, version)


def _freeze(
    folder: Path, sequences: tuple[ProteinSequence, ...], digest: str, description: str
) -> int:
    """Write the next version whole or not at all; two writers at once get two versions."""
    folder.mkdir(parents=True, exist_ok=True)
    version = max((int(path.stem) for path in _numbered(folder, ".fasta")), default=0) + 1
    while True:
        fasta = folder / f"{version}.fasta"
        try:
            with fasta.open("x", encoding="utf-8", newline="\n") as file:
                file.write(format_fasta(sequences))
            break
        except FileExistsError:
            version += 1
    # A set is listed by its JSON file, which therefore appears last and at once.
    entry = json.dumps({"sha256": digest, "description": description}, indent=2) + "\n"
    unfinished = folder / f".{version}.json"
    unfinished.write_text(entry, encoding="utf-8", newline="\n")
    unfinished.replace(folder / f"{version}.json")
    return version


def _load_version(root: Path, name: str, version: int) -> BenchmarkSet:
    fasta = root / name / f"{version}.fasta"
    try:
        entry = json.loads(fasta.with_suffix(".json").read_text(encoding="utf-8"))
        digest, description = str(entry["sha256"]), str(entry["description"])
        content = fasta.read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"Benchmark set {name}@{version} in {root} is damaged ({error}); restore its files."
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise BenchmarkError(
            f"{fasta} was changed after it was frozen; restore it, and add the changed sequences "
            f"as a new version with `benchmark add`."
        )
    return BenchmarkSet(
        name=name,
        version=version,
        digest=digest,
        description=description,
        sequences=parse_fasta(content.decode(), source=fasta.name),
    )


def _find_root(name: str, folder: Path | None) -> Path | None:
    roots = (RELEASED_FOLDER, folder or user_benchmark_folder())
    return next((root for root in roots if name in _find_names(root)), None)


def _find_names(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(
        path.name
        for path in root.iterdir()
        if _NAME_PATTERN.fullmatch(path.name) and any(_numbered(path, ".json"))
    )


def _find_versions(root: Path, name: str) -> list[int]:
    return sorted(int(path.stem) for path in _numbered(root / name, ".json"))


def _numbered(folder: Path, suffix: str) -> Iterator[Path]:
    """Files of a set's folder that are named by a version number."""
    if folder.is_dir():
        for path in folder.iterdir():
            if path.suffix == suffix and re.fullmatch(r"[1-9][0-9]*", path.stem):
                yield path
