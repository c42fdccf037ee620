"""The second demo: a public package's releases, validated from wheels that are kept.

Wheels are fetched once into a folder of the cache, and everything is installed from there: later
starts, and other machines that are given the folder, need no index.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.monitor.running import Listener, RunOptions, RunOutcome, run_and_store
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.pip import InstallerError, download
from virnucpro_monitor.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDemo:
    """Releases of a package, and how they are loaded.

    Attributes:
        targets: by name, the adapter and the releases that it is shown with.
    """

    package: str
    targets: dict[str, tuple[str, tuple[str, ...]]]

    @property
    def releases(self) -> tuple[str, ...]:
        """All of them, as they are first named."""
        return tuple(dict.fromkeys(one for _, named in self.targets.values() for one in named))


# A padded batch lost the rescale of <mask> with 4.56 and got it back with 5.3; packed by arguments,
# sdpa takes a pack for one sequence to this day.
TRANSFORMERS = ReleaseDemo(
    package="transformers",
    targets={
        "transformers-padded": (
            "hf-esm",
            ("4.53.3", "4.55.4", "4.56.2", "4.57.6", "5.1.0", "5.2.0", "5.3.0", "5.24.0"),
        ),
        "transformers-packed": ("hf-esm:way=kwargs,attention=sdpa", ("5.2.0", "5.24.0")),
    },
)


def wheel_folder(settings: Settings) -> Path:
    """Where the wheels are kept."""
    return settings.cache_folder / "demo" / "wheels"


def run_releases(
    settings: Settings, demo: ReleaseDemo, listener: Listener
) -> dict[str, RunOutcome]:
    """Fetch what is not kept, and validate each target's releases; outcomes by target.

    Raises:
        ConfigurationError: wheels are neither kept nor to be had.
        MonitorError: as `run_and_store` says.
    """
    folder = wheel_folder(settings)
    _fetch(folder, demo, listener.on_message)
    with _only_from(folder):
        return {
            name: run_and_store(
                settings,
                Target(name=name, location=f"pypi:{demo.package}", adapter=adapter),
                RunOptions(revisions=releases),
                listener,
            )
            for name, (adapter, releases) in demo.targets.items()
        }


def _fetch(folder: Path, demo: ReleaseDemo, say: Callable[[str], None]) -> None:
    for release in demo.releases:
        kept = folder / f".{demo.package}-{release}"
        if kept.exists():
            continue
        say(f"Fetching {demo.package} {release} into {folder}.")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            download(f"{demo.package}=={release}", folder)
        except InstallerError as error:
            raise ConfigurationError(
                f"The wheels of {demo.package} {release} are not in {folder} and cannot be fetched "
                f"({error}): start this demo once with a network, or copy that folder from a "
                f"machine that has it."
            ) from error
        kept.touch()


@contextmanager
def _only_from(folder: Path) -> Iterator[None]:
    """Let installers, and whatever they start, know no index but a folder of wheels."""
    ours = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    ours |= {"UV_NO_INDEX": "1", "UV_FIND_LINKS": str(folder), "UV_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
