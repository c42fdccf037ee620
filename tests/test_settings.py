import math
import re
from pathlib import Path
from typing import Any

import pytest

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.settings import (
    OWN_VARIABLES,
    SETTINGS,
    Settings,
    load_settings,
    resource_folder,
)

ROOT = Path(__file__).parent.parent
VARIABLE = "VIRNUCPRO_MONITOR_"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(**flags: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**flags)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().dtype == "float16"
    (tmp_path / "virnucpro-monitor.toml").write_text('dtype = "bfloat16"\ndevice = "cuda:3"\n')
    assert load_settings().dtype == "bfloat16"
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DTYPE", "float32")
    assert load_settings().dtype == "float32"
    assert load_settings(dtype="float16").dtype == "float16"
    assert load_settings(dtype=None).device == "cuda:3"


def test_a_commands_own_defaults_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"device": "cpu", "dtype": "float32", "workers": 1}
    (tmp_path / "virnucpro-monitor.toml").write_text('device = "cuda:3"\n')
    monkeypatch.setenv("VIRNUCPRO_MONITOR_WORKERS", "7")
    settings = load_settings(defaults=own, model="m")
    assert (settings.device, settings.dtype, settings.workers) == ("cuda:3", "float32", 7)
    assert settings.model_fields_set == {"device", "workers", "model"}


def test_the_default_database_is_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().database_url == f"sqlite:///{tmp_path}/virnucpro-monitor/monitor.db"
    assert load_settings(db="sqlite:///x.db").database_url == "sqlite:///x.db"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("token_budget = 'many'\n", "'many' is not a token budget: use a whole number from 3"),
        ("this is not TOML", "cannot be read"),
        ("targets = ''\n", "'targets' in virnucpro-monitor.toml is not a table: write [targets."),
        ("devise = 'cpu'\n", "no setting devise in virnucpro-monitor.toml: did you mean device?"),
        ("zzzzzz = 1\n", "no setting zzzzzz in virnucpro-monitor.toml: the README lists all"),
        ("memory_limit_gb = 8\n", "memory_limit_gb in virnucpro-monitor.toml is now called "),
        ("benchmark = 3\n", "3 is not a list of benchmark sets: use names with commas between"),
        ("device = 'cuda:\u0663'\n", "is not a device: use cpu, cuda:N"),
        ("token_budget = " + 5000 * "9", "cannot be read: Exceeds the limit (4300 digits)"),
        ("a = " + 20_000 * "[" + 20_000 * "]", "cannot be read: its values are nested too deeply"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "virnucpro-monitor.toml").write_text(text, encoding="utf-8")
    assert sentence in refused()


def test_the_encodings_of_other_editors(tmp_path: Path) -> None:
    file = tmp_path / "virnucpro-monitor.toml"
    file.write_text("# \u00fc\ndevice = 'cpu'\n", encoding="utf-8-sig")
    assert load_settings().device == "cpu"
    file.write_text("device = 'cpu'\n# \u00fc\n", encoding="latin-1")
    assert "cannot be read: line 2 is not UTF-8; save it as that" in refused()


def test_a_file_may_stand_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept.toml"
    kept.write_text('db = "postgresql://u:secret@host/monitor"\n')
    (tmp_path / "virnucpro-monitor.toml").write_text('db = "sqlite:///here.db"\n')
    monkeypatch.setenv("VIRNUCPRO_MONITOR_SETTINGS", str(kept))
    assert load_settings().database_url == "postgresql://u:secret@host/monitor"
    kept.unlink()
    assert "which VIRNUCPRO_MONITOR_SETTINGS names, cannot be read" in refused()


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "virnucpro-monitor.toml").write_text('db = ["postgresql://u:secret@host/m"]\n')
    assert "secret" not in refused()


@pytest.mark.parametrize("source", ["python", "environment", "file"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("timeout_s", [math.nan, math.inf, -math.inf, -1, 0, "soon"]),
        ("memory_limit_gib", [math.nan, math.inf, -1, 0, "much"]),
        ("token_budget", [math.nan, -1, 0, 2, 2**31, 3.5]),
        ("workers", [math.nan, -1, 0, 1.5, 1025, 10**11]),
    ],
)
def test_limits_are_finite_and_in_range_wherever_they_come_from(
    source: str,
    name: str,
    values: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for value in values:
        given = {}
        if source == "python":
            given = {name: value}
        elif source == "environment":
            monkeypatch.setenv(f"{VARIABLE}{name.upper()}", str(value))
        else:
            text = f"'{value}'" if isinstance(value, str) else value
            (tmp_path / "virnucpro-monitor.toml").write_text(f"{name} = {text}\n")
        sentence = refused(**given)
        assert f"use {SETTINGS[name].about.form} (" in sentence
        place = {
            "python": f"({SETTINGS[name].about.flag})",
            "environment": f"({VARIABLE}{name.upper()})",
            "file": f"({name} in virnucpro-monitor.toml)",
        }
        assert place[source] in sentence


def test_true_is_no_number() -> None:
    assert "True is not a number of workers" in refused(workers=True)


def test_lists_are_given_by_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_BENCHMARK", "seed, proteome")
    assert load_settings().benchmark == ["seed", "proteome"]
    monkeypatch.setenv("VIRNUCPRO_MONITOR_BENCHMARK", '["seed"]')
    assert "use names with commas between, as in seed,proteome" in refused()
    monkeypatch.setenv("VIRNUCPRO_MONITOR_BENCHMARK", "")
    assert load_settings().benchmark == ["reach"]
    (tmp_path / "virnucpro-monitor.toml").write_text('benchmark = ["a", "b"]\n')
    assert load_settings().benchmark == ["a", "b"]


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        ("DEVCE", "VIRNUCPRO_MONITOR_DEVCE of the environment: did you mean VIRNUCPRO_MONITOR_DEV"),
        ("MEMORY_LIMIT_GB", "is now called VIRNUCPRO_MONITOR_MEMORY_LIMIT_GIB: rename it."),
        ("ZZZZZZ", "There is no setting VIRNUCPRO_MONITOR_ZZZZZZ of the environment"),
    ],
)
def test_a_misspelt_variable_is_refused(
    variable: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{VARIABLE}{variable}", "1")
    assert sentence in refused()


def test_an_unknown_name_from_python_is_refused() -> None:
    assert refused(devise="cpu") == "There is no setting devise: did you mean device?"


def test_every_variable_that_the_program_names_is_known() -> None:
    named: set[str] = set()
    for folder in ("virnucpro_monitor", "app", "migrations"):
        for path in (ROOT / folder).rglob("*.py"):
            named |= set(re.findall(rf"{VARIABLE}([A-Z_]*[A-Z])", path.read_text()))
    own = {name.removeprefix(VARIABLE) for name in OWN_VARIABLES}
    assert named <= own | {name.upper() for name in SETTINGS}


def test_the_readme_has_the_table() -> None:
    """Each row as the settings give it; `-` stands where there is no flag."""
    rows = [
        f"| `{one.name}` | {f'`{one.about.flag}`' if one.about.flag else '-'} | `{one.variable}` "
        f"| {one.about.form} | {one.default_text} | {one.about.help} |"
        for one in SETTINGS.values()
    ]
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(rows) in readme, "\n".join(rows)
    assert set(SETTINGS) == set(Settings.model_fields)


def test_the_resource_folders_are_there() -> None:
    assert (resource_folder("app")).is_dir()
    assert (resource_folder("migrations")).is_dir()


def test_a_set_that_is_named_twice_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_BENCHMARK", "seed, reach,seed")
    assert load_settings().benchmark == ["seed", "reach"]
    assert load_settings(benchmark=["seed", "seed"]).benchmark == ["seed"]
