"""Settings: command-line flags > environment `VIRNUCPRO_MONITOR_*` > `virnucpro-monitor.toml` >
defaults.

`Settings` is the one table of them: options, their help, the README's table and the scheduled
command are made from it.
"""

import difflib
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.setting_forms import About, NotBool, split_names, why_unreadable
from virnucpro_monitor.user_folders import user_folder

CONFIG_FILE = "virnucpro-monitor.toml"
ENV_PREFIX = "VIRNUCPRO_MONITOR_"
SETTINGS_VARIABLE = f"{ENV_PREFIX}SETTINGS"
"""Names the settings file, where it is not the one in the working folder."""
OWN_VARIABLES = frozenset({SETTINGS_VARIABLE, f"{ENV_PREFIX}GIT_PASSWORD"})
"""Variables of the prefix that are no settings: the second is for git's children alone."""
DEFAULT_MODEL = "esm2_t33_650M_UR50D"
DEFAULT_TOKEN_BUDGET = 4096
MAX_WORKERS = 1024  # each is a process with a model
MAX_TOKENS = 2**31 - 1  # cu_seqlens is int32
RENAMED = {"memory_limit_gb": "memory_limit_gib"}
TABLES = ("targets",)  # of the settings file, beside the settings themselves


def default_database_url() -> str:
    return f"sqlite:///{user_folder('XDG_DATA_HOME', '.local/share') / 'monitor.db'}"


def resource_folder(name: str) -> Path:
    """Folder of `app` or `migrations`: beside the package in a checkout, inside it in a wheel."""
    bundled = Path(__file__).parent / "_bundled" / name
    return bundled if bundled.is_dir() else Path(__file__).parent.parent / name


class Settings(BaseSettings):
    """Everything that can be set without a flag."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    db: Annotated[
        str,
        About(
            "Database",
            "sqlite:///FILE or postgresql://…",
            "database URL",
            "--db",
            "URL",
            "an SQLite file in the user's data folder",
        ),
    ] = ""
    benchmark: Annotated[
        list[str],
        NoDecode,
        BeforeValidator(split_names),
        Field(min_length=1),
        About(
            "Benchmark sets that are run",
            "names with commas between, as in seed,proteome; in the file also a list",
            "list of benchmark sets",
            "--benchmark",
            "NAME",
            flag_form="one name; may be given several times",
        ),
    ] = ["reach"]
    model: Annotated[
        str,
        About(
            "Size of ESM-2",
            "an official name, as weights list shows them",
            "model",
            "--model",
            "NAME",
        ),
    ] = DEFAULT_MODEL
    weights: Annotated[
        str,
        About(
            "Weights that the model runs with",
            "official, synthetic, or a path: .pt, safetensors, Hugging Face folder",
            "source of weights",
            "--weights",
            "SOURCE",
        ),
    ] = "official"
    device: Annotated[
        str,
        Field(pattern=r"^(cpu|cuda(:[0-9]{1,3}(,[0-9]{1,3})*)?)$"),
        About(
            "Where the model runs",
            "cpu, cuda:N, several cards as cuda:0,2, or cuda for all",
            "device",
            "--device",
            "DEVICE",
        ),
    ] = "cuda:0"
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        About(
            "What the model computes in",
            "one of float32, float16, bfloat16",
            "dtype",
            "--dtype",
            "DTYPE",
        ),
    ] = "float16"
    backend: Annotated[
        Literal["auto", "triton", "flash-attn", "torch-varlen", "sdpa"],
        About(
            "Attention of the built-in target",
            "one of auto, triton, flash-attn, torch-varlen, sdpa",
            "backend",
            "--backend",
            "NAME",
        ),
    ] = "auto"
    token_budget: Annotated[
        int,
        NotBool,
        Field(ge=3, le=MAX_TOKENS),
        About(
            "Tokens in one pack",
            f"a whole number from 3 to {MAX_TOKENS}",
            "token budget",
            "--token-budget",
            "N",
        ),
    ] = DEFAULT_TOKEN_BUDGET
    protocol: Annotated[
        str,
        About(
            "Protocol that judges",
            "a released version, or a .json file of one's own",
            "protocol",
            "--protocol",
            "VERSION",
            "the latest",
        ),
    ] = ""
    timeout_s: Annotated[
        float,
        NotBool,
        Field(ge=1, allow_inf_nan=False),
        About(
            "Time limit of one commit",
            "a number of seconds, at least 1",
            "time limit",
            "--timeout",
            "TIME",
            flag_form="90s, 30m or 2h; a number alone is seconds",
        ),
    ] = 1800.0
    memory_limit_gib: Annotated[
        Annotated[float, NotBool, Field(ge=0.1, allow_inf_nan=False)] | None,
        About(
            "Memory limit of one commit",
            "a number of GiB, at least 0.1",
            "memory limit",
            "--memory-limit",
            "GIB",
            "none",
        ),
    ] = None
    workers: Annotated[
        Annotated[int, NotBool, Field(ge=1, le=MAX_WORKERS)] | None,
        About(
            "Commits measured at once",
            f"a whole number from 1 to {MAX_WORKERS}",
            "number of workers",
            "--workers",
            "N",
            "as many as cores and GPU memory allow",
        ),
    ] = None
    network: Annotated[
        bool,
        About(
            "Whether a commit may use the network while measured", "true or false", "truth value"
        ),
    ] = False
    confine: Annotated[
        bool,
        About(
            "Whether a commit's process is kept from other files, processes and the network",
            "true or false",
            "truth value",
        ),
    ] = True
    engine: Annotated[
        Literal["local", "dask"],
        About(
            "What commits are measured by",
            "local for this host, dask for a Dask cluster",
            "engine",
            "--engine",
            "NAME",
        ),
    ] = "local"
    scheduler: Annotated[
        str,
        About(
            "Dask scheduler of the cluster",
            "an address as tcp://HOST:8786",
            "address",
            "--scheduler",
            "ADDRESS",
            "none",
        ),
    ] = ""
    cache_dir: Annotated[
        Path,
        About(
            "Where checkouts, synthetic weights and oracle embeddings are kept",
            "a folder",
            "folder",
            default="the user's cache folder",
        ),
    ] = Path()
    alerts_file: Annotated[
        Path,
        About(
            "File with the channels that alerts go to, which `alerts init` writes",
            "a file, mode 0600",
            "file",
            default="alerts.toml in the user's configuration folder",
        ),
    ] = Path()
    metrics_file: Annotated[
        Path,
        About("Prometheus' file, written by each start", "a .prom file", "file", default="none"),
    ] = Path()
    keep_embeddings: Annotated[
        bool,
        About("Whether runs keep pooled embeddings for compare", "true or false", "truth value"),
    ] = True
    writable_app: Annotated[
        bool,
        About(
            "Whether readers of the dashboard may acknowledge incidents",
            "true or false",
            "truth value",
        ),
    ] = False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        in_file = {
            name: value for name, value in read_settings_file().items() if name not in TABLES
        }
        return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)

    @property
    def database_url(self) -> str:
        return self.db or default_database_url()

    @property
    def cache_folder(self) -> Path:
        """Where checkouts, synthetic weights and oracle embeddings are kept."""
        if self.cache_dir != Path():
            return self.cache_dir
        return user_folder("XDG_CACHE_HOME", ".cache")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    name: str
    about: About
    default: Any

    @property
    def variable(self) -> str:
        return f"{ENV_PREFIX}{self.name.upper()}"

    @property
    def default_text(self) -> str:
        """The default for a person."""
        if self.about.default:
            return self.about.default
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, list):
            return ",".join(self.default)
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


SETTINGS: Mapping[str, Setting] = {
    name: Setting(
        name, next(one for one in field.metadata if isinstance(one, About)), field.default
    )
    for name, field in Settings.model_fields.items()
}


RUN_SETTINGS = (
    "benchmark",
    "model",
    "weights",
    "device",
    "dtype",
    "backend",
    "token_budget",
    "protocol",
    "timeout_s",
    "memory_limit_gib",
    "workers",
    "engine",
    "scheduler",
    "db",
)
"""What `run` takes, and with it whatever starts a run."""


def load_settings(*, defaults: Mapping[str, Any] | None = None, **flags: Any) -> Settings:
    """Read the settings; a flag that is None counts as not given.

    Args:
        defaults: a command's own, for what nobody has set; `model_fields_set` leaves them out.

    Raises:
        ConfigurationError: an unknown name, a value of the wrong type or out of its range, or a
            settings file that cannot be read.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given:
        _check_name(name, SETTINGS, "")
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable not in OWN_VARIABLES:
            name = variable.removeprefix(ENV_PREFIX).lower()
            _check_name(name, SETTINGS, " of the environment", spelt=_variable)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            _sentence(SETTINGS[str(first["loc"][0])], first["input"], given)
        ) from error
    own = {
        name: value
        for name, value in (defaults or {}).items()
        if name not in settings.model_fields_set
    }
    return Settings.model_construct(settings.model_fields_set, **{**dict(settings), **own})


def settings_file() -> Path:
    """The file that holds settings: the one `VIRNUCPRO_MONITOR_SETTINGS` names, or the folder's."""
    return Path(os.environ.get(SETTINGS_VARIABLE) or CONFIG_FILE)


def read_settings_file(path: Path | None = None) -> dict[str, Any]:
    """Settings and tables of the settings file; nothing where the folder has none.

    Args:
        path: of another file than the one that counts here.

    Raises:
        ConfigurationError: it cannot be read, is not TOML, or has an unknown name.
    """
    path = path or settings_file()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        if os.environ.get(SETTINGS_VARIABLE):
            # A file that has gone must not become a run on the default database.
            raise ConfigurationError(
                f"The settings file {path}, which {SETTINGS_VARIABLE} names, cannot be read: run "
                f"`virnucpro-monitor schedule install` again, or unset the variable."
            ) from error
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"The settings file {path} cannot be read: {why_unreadable(error)}."
        ) from error
    for name in found:
        _check_name(name, [*SETTINGS, *TABLES], f" in {path}")
    for name in TABLES:
        if not isinstance(found.get(name, {}), dict):
            raise ConfigurationError(
                f"{name!r} in {path} is not a table: write [{name}.NAME] with its keys below."
            )
    return found


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper()}"


def _check_name(name: str, known: Iterable[str], place: str, *, spelt: Any = str) -> None:
    """Refuse a name that is no setting, with the one that was probably meant."""
    if name in known:
        return
    if name in RENAMED:
        raise ConfigurationError(
            f"The setting {spelt(name)}{place} is now called {spelt(RENAMED[name])}: rename it."
        )
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    advice = f"did you mean {spelt(near[0])}?" if near else "the README lists all settings."
    raise ConfigurationError(f"There is no setting {spelt(name)}{place}: {advice}")


def _sentence(setting: Setting, value: object, given: Mapping[str, Any]) -> str:
    """What is wrong with a value, where it stands, and what to write instead."""
    if setting.name in given:
        place = setting.about.flag or setting.name
    elif os.environ.get(setting.variable):
        place = setting.variable
    else:
        place = f"{setting.name} in {settings_file()}"
    shown = "This" if setting.name == "db" else repr(value)  # a URL may hold a password
    return f"{shown} is not a {setting.about.noun}: use {setting.about.form} ({place})."


def is_terminal() -> bool:
    """Whether progress may be drawn; false under cron and in a pipe."""
    return sys.stderr.isatty()
