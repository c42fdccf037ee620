from pathlib import Path

import pytest

from tests.runner.tiny_target import TinyRepository
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.builtin import builtin_commit, builtin_digest
from virnucpro_monitor.runner.targets import find_target, name_from_location, read_targets

CONFIGURATION = """
model = "esm2_t6_8M_UR50D"

[targets.pack]
location = "../pack"
package = "pack"
paths = ["pack", "setup.py"]
branch = "main"

[targets.remote]
location = "https://example.org/remote.git"
adapter = "my_module:make"
requirements = "needs.txt"
"""


def test_tables_of_the_settings_file_are_targets(tmp_path: Path) -> None:
    path = tmp_path / "here" / "virnucpro-monitor.toml"
    path.parent.mkdir()
    path.write_text(CONFIGURATION)
    pack, remote = read_targets(path)
    assert pack == Target(
        name="pack",
        location=str(tmp_path / "pack"),
        package="pack",
        paths=("pack", "setup.py"),
        branch="main",
    )
    assert remote.location == "https://example.org/remote.git"
    assert (remote.adapter, remote.requirements) == ("my_module:make", "needs.txt")
    assert read_targets(tmp_path / "none.toml") == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[targets.a]\n", "lacks 'location'"),
        (
            "[targets.a]\nlocation = 'x'\nurl = 'y'\n",
            "unknown key 'url': it takes adapter, branch, loc",
        ),
        ("[targets.a]\nlocation = 'x'\nreleases = '>1'\n", "'releases' belongs to a package"),
        ("[targets.a]\nlocatoin = 'x'\n", r"'locatoin': did you mean location\?"),
        ("[targets.a]\nlocation = 3\n", "'location' must be a string"),
        ("[targets.a]\nlocation = 'x'\npaths = 'y'\n", "'paths' must be a list"),
        ("[targets.'a b']\nlocation = 'x'\n", "not a target name"),
        ("[targets]\na = 1\n", "must be a table"),
        ("[targets\n", "cannot be read"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "virnucpro-monitor.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=sentence):
        read_targets(path)


def test_a_target_is_found_by_name_and_by_place(
    tiny: TinyRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stored = Target(name="watched", location=str(tiny.folder), package="tinytarget")
    assert find_target("watched", [stored]) == stored
    assert find_target("tiny", [stored]) == stored  # the path beside us
    assert find_target(str(tiny.folder), []) == Target(name="tiny", location=str(tiny.folder))
    assert find_target("watched", [stored], package="other").package == "other"
    assert find_target(None, [stored]).adapter == "builtin"
    with pytest.raises(ConfigurationError, match=r"no target 'gone' \(known: watched\)"):
        find_target("gone", [stored])
    elsewhere = Target(name="tiny", location="/elsewhere")
    with pytest.raises(ConfigurationError, match="'tiny' is taken"):
        find_target(str(tiny.folder), [elsewhere])


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("/srv/git/pack.git", "pack"),
        ("https://example.org/a/pack.git/", "pack"),
        ("git@example.org:pack.git", "pack"),
        ("/srv/my repo (old)", "my-repo-old"),
        ("/", "repository"),
    ],
)
def test_names_come_from_the_last_part(location: str, name: str) -> None:
    assert name_from_location(location) == name


def test_the_builtin_commit_says_what_it_stands_for(tmp_path: Path) -> None:
    commit = builtin_commit(tmp_path)
    if commit.subject.startswith("Content digest"):
        assert commit.hash == builtin_digest()[:40]
    else:
        assert len(commit.hash) == 40
        assert commit.position is not None
    assert builtin_digest() == builtin_digest()
