"""What of this user's a commit's process has no business reading: results, and secrets."""

from pathlib import Path

from virnucpro_monitor.disks import path_from
from virnucpro_monitor.host.alert_file import alert_path
from virnucpro_monitor.settings import Settings, settings_file
from virnucpro_monitor.user_folders import user_folder

# Where other programs keep passwords and keys, below the user's home.
_SECRETS = (
    ".aws", ".azure", ".config/gcloud", ".config/git/credentials", ".docker", ".git-credentials",
    ".gnupg", ".kube", ".netrc", ".pgpass", ".ssh",
)  # fmt: skip
_BESIDE_SQLITE = ("", "-wal", "-shm", "-journal")


def secret_places(settings: Settings) -> tuple[Path, ...]:
    """Files and folders that a target may not read, whether they are there or not."""
    home = Path.home()
    places = [home / one for one in _SECRETS]
    places += [
        user_folder("XDG_CONFIG_HOME", ".config"),  # alerts' addresses, schedules' passwords
        user_folder("XDG_DATA_HOME", ".local/share") / "spool",
        alert_path(settings),
        settings_file(),
    ]
    if settings.database_url.startswith("sqlite"):
        database = path_from(settings.database_url.partition(":///")[2]).resolve()
        places += [database.with_name(f"{database.name}{end}") for end in _BESIDE_SQLITE]
    return tuple(dict.fromkeys(one.expanduser().absolute() for one in places))
