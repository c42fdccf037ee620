"""A package's releases, watched as commits are."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_adapter import example
from tests.runner.commands import commands, freeze_few, use_smallest_model
from tests.runner.wheels import make_index, make_wheel, only_index
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner import releases
from virnucpro_monitor.runner.pip import InstallerError
from virnucpro_monitor.runner.releases import Releases
from virnucpro_monitor.runner.targets import read_targets
from virnucpro_monitor.runner.venv import PrivateEnvironmentError, target_python

LISTED = ["5.0.0", "4.9.1", "4.10.0", "4.9.0", "not-a-version", "3.1"]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the index is said to offer; may be changed."""
    offered = list(LISTED)
    monkeypatch.setattr(releases, "offered_versions", lambda name, pre: offered)
    return offered


def target(**fields: Any) -> Target:
    return Target(name="t", location="pypi:Some_Package", adapter="hf-esm", **fields)


def test_releases_stand_in_version_order(listed: list[str], tmp_path: Path) -> None:
    source = Releases.open(target(branch=">=4.9", requirements="a==1\nb"), tmp_path)
    assert source.location == "pypi:some-package"
    line = source.history(source.resolve_branch(">=4.9"))
    assert line == ("4.9.0", "4.9.1", "4.10.0", "5.0.0")
    assert source.history("4.10.0") == line[:3]
    assert source.history("3.1") == ("3.1",)  # named, though outside the range
    assert source.between("4.9.0", "4.10.0") == ("4.9.1", "4.10.0")
    assert source.merge_base("4.9.1", "4.10.0") == "4.9.1"
    assert source.branches_with("5.0.0") == ()
    assert [source.resolve(one) for one in ("HEAD", "v4.9", ">=4,<5")] == [
        "5.0.0", "4.9.0", "4.10.0",
    ]  # fmt: skip
    first, outside = source.commits(["4.9.1", "3.1"], line)
    assert (first.hash, first.short, first.subject) == ("4.9.1", "4.9.1", "some-package 4.9.1")
    assert (first.position, first.on_branch) == (1, True)
    assert (outside.position, outside.on_branch) == (None, False)
    with source.checkout("4.10.0") as (folder, note):
        assert folder.joinpath("requirements.txt").read_text() == "some-package==4.10.0\na==1\nb\n"
        assert note == ""
    assert not folder.exists()
    others = Releases.open(target(branch=">=4.9"), tmp_path)
    assert source.tree("5.0.0") not in (source.tree("4.10.0"), others.tree("5.0.0"))


def test_what_the_index_said_before_serves_without_it(
    listed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not Releases.is_here("pypi:some-package", tmp_path)
    Releases.open(target(), tmp_path)
    assert Releases.is_here("pypi:some-package", tmp_path)
    listed.append("6.0")
    assert Releases.open(target(), tmp_path, fetch=False).resolve("HEAD") == "5.0.0"
    assert Releases.open(target(), tmp_path).resolve("HEAD") == "6.0"

    def away(name: str, pre: bool) -> list[str]:
        raise InstallerError("No matching distribution found")

    monkeypatch.setattr(releases, "offered_versions", away)
    assert Releases.open(target(), tmp_path).resolve("HEAD") == "6.0"
    with pytest.raises(RepositoryError, match="releases of other: No matching distribution found"):
        Releases.open(Target(name="t", location="pypi:other"), tmp_path)


@pytest.mark.parametrize(
    ("fields", "asked", "sentence"),
    [
        ({"branch": ">>4"}, "HEAD", "'>>4' is not a range of releases"),
        ({"requirements": "torch=="}, "HEAD", "'torch==' is not a requirement"),
        ({"branch": ">9"}, "HEAD", "No release of some-package for this Python is >9"),
        ({}, "main", "'main' is not a release of some-package: give a version, as in 5.0.0"),
        ({}, "4.9.7", "There is no release 4.9.7 of some-package"),
    ],
)
def test_what_is_no_release_is_one_sentence(
    fields: dict[str, str], asked: str, sentence: str, listed: list[str], tmp_path: Path
) -> None:
    with pytest.raises((ConfigurationError, RepositoryError), match=sentence):
        Releases.open(target(**fields), tmp_path).resolve(asked)
    with pytest.raises(ConfigurationError, match="'a b' is not a package's name"):
        Releases.open(Target(name="t", location="pypi:a b"), tmp_path)


def test_the_settings_file_names_releases_in_their_own_words(tmp_path: Path) -> None:
    path = tmp_path / "virnucpro-monitor.toml"
    path.write_text(
        '[targets.hf]\nlocation = "pypi:transformers"\nreleases = ">=4.53"\n'
        'with = ["torch==2.13.0", "numpy<3"]\nadapter = "hf-esm:way=kwargs"\n'
    )
    (found,) = read_targets(path)
    assert (found.branch, found.requirements) == (">=4.53", "torch==2.13.0\nnumpy<3")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as the only index."""
    folder = tmp_path / "wheels"
    only_index(folder, monkeypatch)
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("quick_probes", "shared_workers")
def test_a_package_is_run_compared_and_searched_by_release(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = example(tmp_path).read_text()
    wrong = right.replace("rows[mask] for", "rows[mask] * 0.88 for")
    for version, text in (("1.0", right), ("1.9", wrong), ("1.10", wrong), ("2.0", right)):
        make_wheel(index, "tinyenc", version, text)
    use_smallest_model(tmp_path, monkeypatch, BENCHMARK=freeze_few(tmp_path))
    command = commands(capsys)

    add = ["targets", "add", "tiny", "pypi:tinyenc", "--releases", ">=1.0"]
    code, _, said = command(*add)
    assert (code, "loaded by an adapter: name one of" in said) == (1, True)
    code, _, said = command(*add, "--adapter", "tinyenc:Padded")
    assert (code, "Stored tiny: 4 releases >=1.0" in said) == (0, True)
    assert "Making the environment for tiny (tinyenc==2.0)" in said

    code, printed, _ = command("bisect", "1.0", "1.10", "--target", "tiny", "--json")
    assert code == 0
    assert json.loads(printed)["first_bad"] == "1.9"
    # What is new is the rest; nothing is measured twice, each in an environment of its own.
    code, printed, _ = command("run", "--target", "tiny", "--new", "--json")
    assert [(one["commit"], one["outcome"]) for one in json.loads(printed)] == [("2.0", "passed")]
    code, printed, _ = command("runs", "list", "--json")
    listed = [(one["commit"], one["outcome"]) for one in json.loads(printed)]
    assert listed == [("1.0", "passed"), ("1.9", "failed"), ("1.10", "failed"), ("2.0", "passed")]
    code, printed, _ = command("compare", "1.10", "2.0")
    assert code == 0
    assert "tinyenc 2.0" in printed
    # What a user asks: did the upgrade move my embeddings?
    assert "Embeddings, packed: 0 of 4 embeddings are bit-identical" in printed
    assert "the furthest moved by 1.4e-01 (relative L2), beyond the noise" in printed
    assert "Embeddings, unpacked: all 4 embeddings are bit-identical" in printed


@pytest.mark.slow
@pytest.mark.usefixtures("quick_probes", "shared_workers")
def test_what_is_wrong_with_a_release_is_its_own_row_and_the_next_one_runs(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = example(tmp_path).read_text()
    wheels = [
        make_wheel(index, "tinyenc", "1.0", "raise ImportError('needs an older torch')\n"),
        make_wheel(index, "tinyenc", "1.1", right, needs="nosuchpackage"),
        make_wheel(index, "tinyenc", "1.2", right),
        make_wheel(index, "tinyenc", "1.3", right),
    ]
    url = make_index(tmp_path, "tinyenc", wheels, yanked=["1.2"])
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", url)
    use_smallest_model(tmp_path, monkeypatch, BENCHMARK=freeze_few(tmp_path))
    add = ["targets", "add", "tiny", "pypi:tinyenc", "--adapter", "tinyenc:Padded", "--no-check"]
    assert run_command(add) == 0
    assert "Stored tiny: 3 releases." in capsys.readouterr().err  # the yanked one is not listed
    asked = [word for version in ("1.0", "1.1", "1.2", "1.3") for word in ("--commit", version)]
    assert run_command(["run", "--target", "tiny", "--json", *asked]) == 3
    found = {one["commit"]: one for one in json.loads(capsys.readouterr().out)}
    assert [found[one]["outcome"] for one in ("1.0", "1.1", "1.2", "1.3")] == [
        "error", "error", "error", "passed",
    ]  # fmt: skip
    assert "cannot be imported (needs an older torch)" in found["1.0"]["reason"]
    assert "nosuchpackage" in found["1.1"]["reason"]
    assert "tinyenc 1.2 was yanked: its authors took it back" in found["1.2"]["reason"]
    assert "gives NaN" in found["1.2"]["reason"]
    with pytest.raises(RepositoryError, match=r"There is no release 1\.4 of tinyenc"):
        Releases.open(Target(name="t", location="pypi:tinyenc"), tmp_path / "cache").resolve("1.4")


@pytest.mark.slow
def test_a_second_package_that_imports_as_esm_is_refused(index: Path, tmp_path: Path) -> None:
    make_wheel(index, "esm", "3.1", "VALUE = 1\n")
    tmp_path.joinpath("needs.txt").write_text("esm\n")
    asked = Target(name="t", location="", requirements="needs.txt")
    with pytest.raises(PrivateEnvironmentError, match="imported by the same name as fair-esm"):
        target_python(asked, tmp_path, tmp_path / "cache", lambda _: None)
