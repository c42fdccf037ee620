"""`import esm` may give another package than fair-esm."""

import sys
from pathlib import Path

import pytest

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.models.fair_esm import check_fair_esm


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that Python finds packages in."""
    for name in [one for one in sys.modules if one.partition(".")[0] == "esm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_the_installed_one_is_fair_esm() -> None:
    check_fair_esm()


def test_another_package_of_that_name_is_named_with_what_to_do(only: Path) -> None:
    """As `pip install esm` leaves it: Biohub's files over fair-esm's."""
    (only / "esm" / "models").mkdir(parents=True)
    (only / "esm" / "__init__.py").touch()
    (only / "esm-3.2.1.dist-info").mkdir()
    (only / "esm-3.2.1.dist-info" / "METADATA").write_text("Name: esm\nVersion: 3.2.1\n")
    with pytest.raises(ConfigurationError, match=r"esm 3\.2\.1 .* has written over it: pip un"):
        check_fair_esm()


def test_without_any_the_sentence_says_what_to_install(only: Path) -> None:
    with pytest.raises(ConfigurationError, match="fair-esm is not installed: pip install"):
        check_fair_esm()
