"""A model of Hugging Face's hub as an oracle: one revision, whose files stay what they were.

The revision stands in the oracle's name, and so in the key of each run. What its files were when
they were first read is noted, by SHA-256: an oracle of other files is refused.
"""

import json
from collections.abc import Callable
from pathlib import Path

from virnucpro_monitor.disks import sha256_of, writing
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.models.weight_digests import files_of, listing_of, replacing
from virnucpro_monitor.records import content_digest
from virnucpro_monitor.runner.oracle_names import OracleName


def pinned_folder(
    named: OracleName, cache_folder: Path, fetch: Callable[[], Path]
) -> tuple[Path, str]:
    """The folder of a hub model's files, and the digest of all that they are.

    Args:
        fetch: gives the folder, once the hub's own cache has the revision whole.

    Raises:
        ConfigurationError: a file is not what it was when the oracle was first used.
        DiskError: what the files are cannot be noted.
    """
    note = cache_folder / "oracle" / "hub" / f"{content_digest([named.place, named.revision])}.json"
    known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    folder = Path(known.get("folder", ""))
    if not known or not folder.is_dir() or _listing(folder) != known["listing"]:
        folder = fetch()
        files = {str(path.relative_to(folder)): sha256_of(path) for path in files_of(folder)}
        before = known.get("files", files)
        other = sorted(one for one in before.keys() | files if before.get(one) != files.get(one))
        if other:
            raise ConfigurationError(
                f"The oracle {named.text} has changed: {other[0]} is not the file that it was when "
                f"it was first used. Put it back, or delete {note} to measure against what is "
                f"there now."
            )
        known = {"folder": str(folder), "listing": _listing(folder), "files": files}
        with writing("What the oracle's files are", note):
            note.parent.mkdir(parents=True, exist_ok=True)
            with replacing(note) as fresh:
                fresh.write_text(json.dumps(known), encoding="utf-8")
    return folder, content_digest([known["files"]])


def _listing(folder: Path) -> str:
    return listing_of(folder, files_of(folder))
