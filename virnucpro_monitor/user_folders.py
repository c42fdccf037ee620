"""Where the program keeps what is a user's own."""

import os
from pathlib import Path


def user_folder(variable: str, fallback: str) -> Path:
    """The program's own folder under an XDG base directory (`XDG_DATA_HOME`, …)."""
    base = os.environ.get(variable) or str(Path.home() / fallback)
    return Path(base) / "virnucpro-monitor"
