"""Files for those hosts of a Dask cluster that see no folder of the start's."""

import io
import tarfile
from pathlib import Path
from typing import Any

from virnucpro_monitor.models.weight_digests import file_digest
from virnucpro_monitor.runner.cluster_calls import result_of

PIECE_BYTES = 8 * 1024**2
PIECE_S = 1800.0


def send_file(client: Any, keep_piece: Any, path: Path, address: str) -> str:
    """Send a file to one Dask worker's host, unless it has it, and return its path there.

    Raises:
        Exception: whatever that worker raises, an `OSError` for a full disk or damaged pieces.
    """
    digest = file_digest(path)

    def keep(offset: int, data: bytes) -> str:
        future = client.submit(
            keep_piece, digest, path.name, offset, data, workers=[address], pure=False
        )
        kept: str = result_of(client, address, future, PIECE_S)
        return kept

    there = keep(0, b"")
    if not there:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                if there := keep(file.tell() - len(piece), piece):
                    return there
        there = keep(path.stat().st_size, b"")
    return there


def pack_checkout(folder: Path) -> bytes:
    """A commit's files as a tar."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            if path.name != ".git":
                archive.add(path, arcname=path.name, filter=_without_owner)
    return content.getvalue()


def unpack_checkout(content: bytes, folder: Path) -> None:
    """Put a commit's files into an empty folder.

    Their names are those of a checkout, and a link that leads out of it stays one, as on any host.
    """
    # Python 3.11.4 brought filters, and later ones take the strictest where none is named.
    trusting = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, **trusting)  # type: ignore[arg-type]


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode &= 0o755
    return member
