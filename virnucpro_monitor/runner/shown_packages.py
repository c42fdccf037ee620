"""What lies behind an environment's own packages, told to an installer that looks at those alone.

pip asks the environment's interpreter what is installed; uv reads the folder of its packages. It
would install all over again what the environment has from us, torch above all.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_MARK = "BEHIND"  # a file of ours: an installer that replaces a package takes it away


@contextmanager
def packages_shown(own: Path, behind: Sequence[str]) -> Iterator[None]:
    """Let the packages of other folders be seen as installed in `own`, for as long as this lasts.

    Of each its metadata is copied, and no file of it: what needs another version installs that
    into `own`, and what is removed there stays where it is.

    Args:
        behind: folders in the order of their search.
    """
    shown = [
        made
        for folder in behind
        for info in sorted(Path(folder).glob("*.dist-info"))
        if (made := _show(info, own / info.name)) is not None
    ]
    try:
        yield
    finally:
        for made in shown:
            if made.joinpath(_MARK).exists():
                shutil.rmtree(made)


def _show(info: Path, copy: Path) -> Path | None:
    metadata = info / "METADATA"
    if copy.exists() or not metadata.is_file():
        return None
    copy.mkdir()
    shutil.copyfile(metadata, copy / metadata.name)
    copy.joinpath(_MARK).touch()
    files = (metadata.name, _MARK, "RECORD")
    copy.joinpath("RECORD").write_text("".join(f"{copy.name}/{name},,\n" for name in files))
    return copy
