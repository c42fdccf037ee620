from pathlib import Path

import pytest

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.settings import load_settings, resource_folder


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_flags_win_over_environment_over_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().dtype == "float16"
    (tmp_path / "virnucpro-monitor.toml").write_text('dtype = "bfloat16"\ndevice = "cuda:3"\n')
    assert load_settings().dtype == "bfloat16"
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DTYPE", "float32")
    assert load_settings().dtype == "float32"
    assert load_settings(dtype="float64").dtype == "float64"
    assert load_settings(dtype=None).device == "cuda:3"


def test_the_default_database_is_in_the_users_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert load_settings().database_url == f"sqlite:///{tmp_path}/virnucpro-monitor/monitor.db"
    assert load_settings(db="sqlite:///x.db").database_url == "sqlite:///x.db"


@pytest.mark.parametrize("text", ["token_budget = 'many'\n", "this is not TOML"])
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "virnucpro-monitor.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_a_bad_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRNUCPRO_MONITOR_TIMEOUT_S", "soon")
    with pytest.raises(ConfigurationError, match="VIRNUCPRO_MONITOR_TIMEOUT_S"):
        load_settings()


def test_the_resource_folders_are_there() -> None:
    assert (resource_folder("app")).is_dir()
    assert (resource_folder("migrations")).is_dir()
