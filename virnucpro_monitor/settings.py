"""Settings: command-line flags > environment `VIRNUCPRO_MONITOR_*` > `virnucpro-monitor.toml` >
defaults."""

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from virnucpro_monitor.errors import ConfigurationError

CONFIG_FILE = "virnucpro-monitor.toml"
SETTINGS_VARIABLE = "VIRNUCPRO_MONITOR_SETTINGS"
"""Names a settings file in the place of the one in the present folder."""
DEFAULT_MODEL = "esm2_t33_650M_UR50D"
DEFAULT_TOKEN_BUDGET = 4096


def user_folder(variable: str, fallback: str) -> Path:
    """The program's own folder under an XDG base directory (`XDG_DATA_HOME`, …)."""
    base = os.environ.get(variable) or str(Path.home() / fallback)
    return Path(base) / "virnucpro-monitor"


def default_database_url() -> str:
    return f"sqlite:///{user_folder('XDG_DATA_HOME', '.local/share') / 'monitor.db'}"


def resource_folder(name: str) -> Path:
    """Folder of `app` or `migrations`: beside the package in a checkout, inside it in a wheel."""
    bundled = Path(__file__).parent / "_bundled" / name
    return bundled if bundled.is_dir() else Path(__file__).parent.parent / name


class Settings(BaseSettings):
    """Everything that can be set without a flag."""

    model_config = SettingsConfigDict(
        env_prefix="VIRNUCPRO_MONITOR_", toml_file=CONFIG_FILE, extra="ignore", frozen=True
    )

    db: str = ""
    model: str = DEFAULT_MODEL
    weights: str = "official"  # "official", "synthetic" or a path to a .pt file
    device: str = "cuda:0"
    dtype: str = "float16"
    backend: str = "auto"
    token_budget: int = DEFAULT_TOKEN_BUDGET
    benchmark: list[str] = ["seed"]
    timeout_s: float = 1800.0
    memory_limit_gib: float | None = None
    workers: PositiveInt | None = None  # commits measured at once; None: as many as have room
    cache_dir: Path = Path()
    writable_app: bool = False  # whether the dashboard may store acknowledgements

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, toml_file=_settings_file())
        return init_settings, env_settings, file

    @property
    def database_url(self) -> str:
        return self.db or default_database_url()

    @property
    def cache_folder(self) -> Path:
        """Where checkouts, synthetic weights and oracle embeddings are kept."""
        if self.cache_dir != Path():
            return self.cache_dir
        return user_folder("XDG_CACHE_HOME", ".cache")


def load_settings(**flags: Any) -> Settings:
    """Read the settings; a flag that is None counts as not given.

    Raises:
        ConfigurationError: a value has the wrong type, or the TOML file cannot be parsed.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"Setting {name!r} is not valid ({first['msg'].lower()}): check the flag, "
            f"VIRNUCPRO_MONITOR_{name.upper()} or {CONFIG_FILE}."
        ) from error
    except ValueError as error:  # tomllib.TOMLDecodeError, pydantic_settings.SettingsError
        raise ConfigurationError(f"The settings cannot be read: {error}.") from error


def _settings_file() -> Path:
    named = os.environ.get(SETTINGS_VARIABLE)
    if not named:
        return Path(CONFIG_FILE)
    # A file that has gone must not become a run on the default database.
    if not os.access(named, os.R_OK):
        raise ConfigurationError(
            f"The settings file {named}, which {SETTINGS_VARIABLE} names, cannot be read: run "
            f"`virnucpro-monitor schedule install` again, or unset the variable."
        )
    return Path(named)


def is_terminal() -> bool:
    """Whether progress may be drawn; false under cron and in a pipe."""
    return sys.stderr.isatty()
