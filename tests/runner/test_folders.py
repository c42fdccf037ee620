"""A folder's contents, watched as commits are; and one target for each environment."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.test_adapter import example
from tests.runner.commands import commands, freeze_few, use_smallest_model
from tests.runner.wheels import make_wheel, only_index
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.folders import Folder
from virnucpro_monitor.runner.matrix import environments_of, with_environments, with_requirements
from virnucpro_monitor.runner.sources import named_adapter, open_source
from virnucpro_monitor.runner.targets import find_target
from virnucpro_monitor.runner.venv import needs_of


def look(folder: Path, cache: Path, *, fetch: bool = True) -> Folder:
    return Folder.open(Target(name="t", location=f"folder:{folder}"), cache, fetch=fetch)


def test_each_change_of_content_is_a_point_in_order_of_time_seen(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.joinpath("sub").mkdir(parents=True)
    code = folder / "sub" / "code.py"
    code.write_bytes(b"A = 1\r\n")
    folder.joinpath(".gitignore").write_text("*.bin\n")  # no git here: it hides nothing
    folder.joinpath(".gitattributes").write_text("* text=auto\n*.py ident\n")
    folder.joinpath("weights.bin").write_bytes(b"\0\1")
    first = look(folder, tmp_path / "cache").resolve("HEAD")
    code.write_bytes(b"A = 2\r\n")
    folder.joinpath("__pycache__").mkdir()
    folder.joinpath("__pycache__", "code.pyc").write_bytes(b"x")
    second = look(folder, tmp_path / "cache").resolve("HEAD")
    folder.joinpath("__pycache__", "code.pyc").write_bytes(b"y")  # no content
    code.write_bytes(b"A = 1\r\n")
    source = look(folder, tmp_path / "cache")

    # The present content is an earlier one again: a point of its own, with the same files.
    back = source.resolve("HEAD")
    assert source.history(source.resolve_branch(None)) == (first, second, back)
    assert source.tree(back) == source.tree(first) != source.tree(second)
    (again,) = source.commits([back])
    assert again.subject.startswith(f"model is back at {first[:10]}, as seen on 2")
    assert look(folder, tmp_path / "cache").history("HEAD") == (first, second, back)
    assert source.resolve(second[:6].upper()) == second
    assert source.between(first, second) == (second,)
    assert source.merge_base(second, first) == first
    old, new = source.commits([first, second], (first, second))
    assert (old.position, new.position) == (0, 1)
    assert old.committed_at is not None
    assert new.committed_at is not None
    assert old.committed_at < new.committed_at
    assert old.subject.startswith("model as seen on 2")
    assert set(source.files(second)) == {
        ".gitattributes", ".gitignore", "sub/code.py", "weights.bin",
    }  # fmt: skip
    with source.checkout(second) as (there, note):
        assert there.joinpath("sub", "code.py").read_bytes() == b"A = 2\r\n"
        assert note == ""
    # The name is the content's: another cache, another place, the same name.
    moved = folder.rename(tmp_path / "elsewhere")
    assert look(moved, tmp_path / "other").resolve("HEAD") == first
    kept = look(folder, tmp_path / "cache", fetch=False)
    assert kept.history(second) == (first, second)
    with pytest.raises(RepositoryError, match=r"There is no folder .*model: check the path"):
        look(folder, tmp_path / "cache")
    with pytest.raises(RepositoryError, match=r"'main' is no content that .* was seen with"):
        kept.resolve("main")


def test_a_repository_inside_is_refused_with_a_sentence(tmp_path: Path) -> None:
    inner = tmp_path / "model" / "inner"
    inner.mkdir(parents=True)
    inner.joinpath("a").write_text("a")
    git = ["git", "-C", str(inner), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for told in (["init", "-q"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *told], check=True)
    with pytest.raises(RepositoryError, match="holds a git repository of its own in inner"):
        look(tmp_path / "model", tmp_path / "cache")


@pytest.mark.parametrize("out", ["{here}/outside", "../../outside", "up/../model/code.py"])
def test_a_link_out_of_the_folder_is_refused_with_a_sentence(out: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.joinpath("sub").mkdir(parents=True)
    folder.joinpath("code.py").write_text("A = 1\n")
    folder.joinpath("sub", "same.py").symlink_to("../code.py")
    folder.joinpath("loop").symlink_to("loop")
    first = look(folder, tmp_path / "cache").resolve("HEAD")
    (tmp_path / "outside").mkdir()
    folder.joinpath("sub", "up").symlink_to("..")  # stays inside, but its parent does not
    folder.joinpath("sub", "x").symlink_to(out.format(here=tmp_path))
    with pytest.raises(RepositoryError, match=r"its link sub/x leads out of it, to .*: copy the"):
        look(folder, tmp_path / "cache")
    folder.joinpath("sub", "x").unlink()
    assert look(folder, tmp_path / "cache").history("HEAD")[0] == first


def test_a_matrix_is_one_target_for_each_environment() -> None:
    target = Target(name="t", location="/x", requirements="needs.txt")
    made = with_environments(
        with_requirements(target, ["a>1"]), ["torch=2.10.0, 2.14.1", "numpy=1.26.4"]
    )
    assert [one.name for one in made] == [
        "t-torch-2.10.0-numpy-1.26.4",
        "t-torch-2.14.1-numpy-1.26.4",
    ]
    assert needs_of(made[0]) == ("needs.txt", ("a>1", "torch==2.10.0", "numpy==1.26.4"))
    (single,) = with_environments(Target(name="t", location="/x"), ["torch=2.14.1"])
    builds = with_environments(target, ["torch=2.13.0+cpu,2.14.*"])
    assert [one.name for one in builds] == ["t-torch-2.13.0-cpu", "t-torch-2.14.x"]
    assert environments_of("t", builds) == builds
    assert needs_of(single) == (None, ("torch==2.14.1",))
    (release,) = with_environments(
        Target(name="t", location="pypi:x", requirements="a==1"), ["torch==2.14.1"]
    )
    assert release.requirements == "a==1\ntorch==2.14.1"
    other = Target(name="t-other", location="/y", requirements="needs.txt")
    assert environments_of("t", made) == made
    assert environments_of("t", [*made, other]) == made  # called so by hand: no matrix made it
    moved = replace(made[0], location="/y")
    assert environments_of("t", [moved, made[1]]) == ()  # what means two things means none
    once = with_environments(target, ["torch=2.10.0,2.14.1,2.10.0, 2.10"])
    assert [one.name for one in once] == ["t-torch-2.10.0", "t-torch-2.14.1"]
    with pytest.raises(ConfigurationError, match=r"cannot have torch<2\.12 and torch 2\.14\.1"):
        with_environments(with_requirements(target, ["torch<2.12"]), ["torch=2.10.0,2.14.1"])
    with pytest.raises(ConfigurationError, match="has one version of torch: name all of them"):
        with_environments(target, ["torch=2.10.0", "Torch=2.14.1"])
    for wrong in ("torch", "torch=", "=2", "torch=2.14.x.y"):
        with pytest.raises(ConfigurationError, match=r"no environments|not a requirement"):
            with_environments(target, [wrong])


def test_a_target_by_its_folder_s_location(tmp_path: Path) -> None:
    found = find_target(f"folder:{tmp_path}", [])
    assert (found.name, found.location) == (tmp_path.name, f"folder:{tmp_path}")
    for nothing in ("folder:", "folder: "):
        with pytest.raises(ConfigurationError, match="names no folder: name a folder"):
            find_target(nothing, [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepositoryError, match="empty: it is empty"):
        look(tmp_path / "empty", tmp_path / "cache")


@pytest.mark.parametrize(
    ("named", "sentence"),
    [("x = ", "is not TOML"), ("x = " + 20_000 * "[", "is not TOML"),
     ("x = " + 5_000 * "9", "is not TOML"), ("adapter = 3", "must name its adapter"),
     ("adapter = 'a.py:M:oracle=none'", "without an oracle")],
)  # fmt: skip
def test_what_a_pyproject_may_not_name(named: str, sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    folder.joinpath("pyproject.toml").write_text(f"[tool.virnucpro-monitor]\n{named}\n")
    source = open_source(Target(name="t", location=f"folder:{folder}"), tmp_path / "cache")
    with pytest.raises(ConfigurationError, match=sentence):
        named_adapter(source, source.resolve("HEAD"))


@pytest.mark.parametrize("text", ["tool = 1", "[tool]\nvirnucpro-monitor = []", "[project]"])
def test_a_pyproject_of_other_things_names_no_adapter(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    folder.joinpath("pyproject.toml").write_text(text)
    source = open_source(Target(name="t", location=f"folder:{folder}"), tmp_path / "cache")
    assert named_adapter(source, source.resolve("HEAD")) is None


@pytest.mark.slow
@pytest.mark.usefixtures("quick_probes", "shared_workers")
def test_a_folder_is_watched_in_two_environments_by_the_adapter_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only_index(tmp_path / "wheels", monkeypatch)
    make_wheel(tmp_path / "wheels", "tinydep", "1.0", "FACTOR = 1.0\n")
    make_wheel(tmp_path / "wheels", "tinydep", "2.0", "FACTOR = 0.88\n")
    folder = tmp_path / "model"
    folder.joinpath("tools").mkdir(parents=True)
    text = example(folder / "tools").read_text()
    folder.joinpath("tools", "my_adapter.py").write_text(
        "import tinydep\n" + text.replace("rows[mask] for", "rows[mask] * tinydep.FACTOR for")
    )
    folder.joinpath("pyproject.toml").write_text(
        '[tool.virnucpro-monitor]\nadapter = "tools/my_adapter.py:Padded"\n'
    )
    monkeypatch.chdir(tmp_path)
    use_smallest_model(tmp_path, monkeypatch, BENCHMARK=freeze_few(tmp_path))
    command = commands(capsys)

    code, _, said = command(
        "targets", "add", "own", "folder:model", "--matrix", "tinydep=1.0,2.0", "--no-check"
    )
    assert code == 0, said
    assert "own-tinydep-1.0 is loaded by tools/my_adapter.py:Padded, as its pyproject" in said
    assert "Stored own-tinydep-2.0: 1 content seen." in said
    code, printed, said = command("run", "--target", "own", "--json")  # both
    assert code == 2, said
    runs = json.loads(printed)
    assert [(one["target"], one["outcome"]) for one in runs] == [
        ("own-tinydep-1.0", "passed"), ("own-tinydep-2.0", "failed"),
    ]  # fmt: skip
    name = runs[0]["commit"]
    assert {one["commit"] for one in runs} == {name}
    # Did the other environment move my embeddings?
    code, printed, _ = command("compare", f"own-tinydep-1.0:{name}", f"own-tinydep-2.0:{name}")
    assert code == 0
    assert "Also differs: tinydep: 1.0 → 2.0" in printed
    assert "Not comparable" not in printed
    assert "Embeddings, unpacked: all 4 embeddings are bit-identical" in printed
    assert "Embeddings, packed: 0 of 4 embeddings are bit-identical" in printed
