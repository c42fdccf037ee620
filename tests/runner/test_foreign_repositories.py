"""Names, replacements and configuration of somebody else's repository change nothing."""

import os
import stat
from pathlib import Path

import pytest

from tests.runner.test_commit_objects import write_commit
from tests.runner.tiny_target import MODEL_FILE, TinyRepository
from virnucpro_monitor.errors import AmbiguousRevision, RepositoryError
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.code_digest import code_digest
from virnucpro_monitor.runner.selection import branch_history, select_revisions


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for programs that leave a note when they run."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


def tattler(folder: Path, name: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\ntouch {folder}/{name}.ran\ncat\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def ran(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.ran"))


@pytest.mark.parametrize("kind", ["branch", "tag"])
def test_a_name_like_a_short_hash_changes_nothing(
    kind: str, tiny: TinyRepository, tmp_path: Path
) -> None:
    first = tiny.git("rev-parse", "HEAD")
    second = tiny.commit({"a": "b"})
    tiny.git(kind, first[:8], second)
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    said: list[str] = []
    assert repository.resolve(first[:8], said.append) == first
    reference = f"refs/{'heads' if kind == 'branch' else 'tags'}/{first[:8]}"
    assert said == [
        f"'{first[:8]}' is read as the commit {first[:10]}; the {kind} of that name, at "
        f"{second[:10]}, is {reference}."
    ]
    assert repository.resolve(reference) == second
    tiny.git(kind, second[:8], first)
    assert repository.resolve(f"{second[:8]}^") == first
    target = Target(name="tiny", location=str(tiny.folder))
    selection = select_revisions(repository, target, [f"{first[:8]}..{second[:8]}"])
    assert [commit.hash for commit in selection.commits] == [second]
    assert "is read as the commit" in selection.note


def test_a_full_hash_is_never_a_name(tiny: TinyRepository, tmp_path: Path) -> None:
    first = tiny.git("rev-parse", "HEAD")
    second = tiny.commit({"a": "b"})
    tiny.git("update-ref", f"refs/heads/{first}", second)
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    assert repository.resolve(first) == first


def test_a_name_of_hexadecimal_digits_that_no_commit_has_is_a_name(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    head = tiny.git("rev-parse", "HEAD")
    tree = tiny.git("rev-parse", "HEAD^{tree}")
    tiny.git("tag", tree[:8])  # another object begins so, but no commit does
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    assert repository.resolve(tree[:8]) == head


def test_the_watched_branch_is_a_branch_whatever_else_has_its_name(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    first = tiny.git("rev-parse", "HEAD")
    second = tiny.commit({"a": "b"})
    tiny.git("branch", first[:7], second)
    tiny.git("tag", "main", first)
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    for branch in ("main", first[:7]):
        target = Target(name="tiny", location=str(tiny.folder), branch=branch)
        assert branch_history(repository, target) == (first, second)


@pytest.mark.parametrize(
    "revision", ["^HEAD", "", "-x", "--all", "a\0b", "HEAD\nHEAD", "HEAD^@", "HEAD^!", "x" * 5000]
)
def test_what_names_no_single_commit_is_one_sentence(
    revision: str, tiny: TinyRepository, tmp_path: Path
) -> None:
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    target = Target(name="tiny", location=str(tiny.folder))
    with pytest.raises(RepositoryError, match=r"not a revision|not known|too long") as caught:
        repository.resolve(revision)
    assert "\n" not in str(caught.value)
    with pytest.raises(RepositoryError) as caught:
        select_revisions(repository, target, [f"HEAD..{revision or '^HEAD'}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", ["replace", "graft"])
def test_replacements_are_seen_nowhere(way: str, tiny: TinyRepository, tmp_path: Path) -> None:
    root = tiny.git("rev-parse", "HEAD")
    middle = tiny.commit({MODEL_FILE: "middle = True\n"}, "Middle")
    tip = tiny.commit({MODEL_FILE: "tip = True\n"}, "Tip")
    target = Target(name="tiny", location=str(tiny.folder), paths=("tinytarget",))
    plain = Repository.open(str(tiny.folder), tmp_path / "before")
    digests = {name: code_digest(plain, target, name) for name in (root, middle, tip)}
    if way == "replace":
        tiny.git("replace", middle, root)
        tiny.git("replace", tip, write_commit(tiny, message=b"Forged\n", parents=(root,)))
    else:
        (tiny.folder / ".git" / "info" / "grafts").write_text(f"{tip} {root}\n")
    locations = [str(tiny.folder)]
    if way == "replace":  # git cannot serve a grafted repository: the clone lacks objects
        locations.append(tiny.folder.as_uri())
    for location in locations:
        repository = Repository.open(location, tmp_path / "cache")
        assert repository.history(repository.resolve("main")) == (root, middle, tip)
        assert repository.between(root, tip) == (middle, tip)
        assert repository.merge_base(tip, middle) == middle
        assert [one.subject for one in repository.commits([middle, tip])] == ["Middle", "Tip"]
        assert {name: code_digest(repository, target, name) for name in digests} == digests
        for name, text in ((middle, "middle = True\n"), (tip, "tip = True\n")):
            with repository.checkout(name) as (folder, _):
                assert (folder / MODEL_FILE).read_text() == text


def test_programs_of_any_configuration_do_not_run(
    tiny: TinyRepository, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n aaaa\n -----END PGP SIGNATURE-----"
    attributes = "*.py filter=foreign diff=foreign\n*.txt filter=theirs ident\n"
    tiny.commit({".gitattributes": attributes, "a.txt": "$Id$\n", "b.py": "b = 1\n"})
    signed = write_commit(tiny, extra=signature, message=b"Signed\n")
    tiny.git("update-ref", "refs/heads/main", signed)
    settings = [
        ("log.showSignature", "true"),
        ("gpg.program", tattler(programs, "gpg")),
        ("core.fsmonitor", tattler(programs, "fsmonitor")),
        ("core.sshCommand", tattler(programs, "ssh")),
        ("core.pager", tattler(programs, "pager")),
        ("core.hooksPath", str(programs / "hooks")),
        ("filter.foreign.smudge", tattler(programs, "smudge")),
        ("filter.foreign.clean", tattler(programs, "clean")),
        ("filter.foreign.required", "true"),
        ("filter.theirs.process", tattler(programs, "process")),
        ("filter.theirs.required", "true"),
        ("diff.foreign.textconv", tattler(programs, "textconv")),
        ("diff.external", tattler(programs, "external")),
        ("i18n.commitEncoding", "UTF-16"),
        ("i18n.logOutputEncoding", "UTF-16"),
        ("core.abbrev", "4"),
        ("log.date", "format:never"),
        ("transfer.fsckObjects", "true"),
        ("core.autocrlf", "true"),
    ]
    (programs / "hooks").mkdir()
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        tattler(programs / "hooks", hook)
    users = tmp_path / "gitconfig"
    for name, value in settings:
        tiny.git("config", name, value)
        tiny.git("config", "--file", str(users), name, value)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(users))
    for location in (str(tiny.folder), tiny.folder.as_uri()):
        repository = Repository.open(location, tmp_path / "cache")
        history = repository.history(repository.resolve("main"))
        assert [one.subject for one in repository.commits(history)] == ["Signed"]
        repository.branches_with(signed)
        repository.files(signed)
        with repository.checkout(signed) as (folder, note):
            assert (folder / "a.txt").read_text() == "$Id$\n"
            assert (folder / "b.py").read_bytes() == b"b = 1\n"
            assert note == ""
    assert ran(programs) == []
    assert ran(programs / "hooks") == []


def test_an_odd_commit_does_not_keep_a_repository_from_being_cloned(
    tiny: TinyRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = write_commit(tiny, author=b"A <a> 1701836000 +051800")
    child = write_commit(tiny, parents=(odd,))
    tiny.git("update-ref", "refs/heads/main", child)
    users = tmp_path / "gitconfig"
    users.write_text("[transfer]\n\tfsckObjects = true\n[fetch]\n\tfsckObjects = true\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(users))
    repository = Repository.open(tiny.folder.as_uri(), tmp_path / "cache")
    assert repository.history(repository.resolve("main")) == (odd, child)


def test_a_working_tree_encoding_changes_no_byte(tiny: TinyRepository, tmp_path: Path) -> None:
    text = "*.txt working-tree-encoding=no-such-encoding\n*.bat text eol=crlf\n"
    tiny.git("config", "core.autocrlf", "false")
    tiny.commit({"a.txt": "caf\u00e9\n", "b.bat": "echo\n"})
    (tiny.folder / "attributes").write_text(text)
    blob = tiny.git("hash-object", "-w", "--no-filters", "attributes")
    tiny.git("update-index", "--add", "--cacheinfo", f"100644,{blob},.gitattributes")
    tiny.git("commit", "--quiet", "-m", "Name an encoding that nobody has")
    head = tiny.git("rev-parse", "HEAD")
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    with repository.checkout(head) as (folder, _):
        assert (folder / "a.txt").read_text() == "caf\u00e9\n"
        assert (folder / "b.bat").read_bytes() == b"echo\n"


def test_paths_that_are_not_utf8_stay_different(tiny: TinyRepository, tmp_path: Path) -> None:
    for name in (b"\xff.py", b"\xfe.py", "\ufffd.py".encode()):
        Path(os.fsdecode(os.fsencode(tiny.folder) + b"/" + name)).write_text("x")
    head = tiny.commit()
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    names = {name for name in repository.files(head) if name.endswith(".py") and "/" not in name}
    assert names == {"\\xff.py", "\\xfe.py", "\ufffd.py"}
    target = Target(name="tiny", location=str(tiny.folder), paths=("*.py",))
    assert len(code_digest(repository, target, head)) == 64


@pytest.mark.parametrize("name", ['a "quoted" one', "#hash", "back\\slash", "line\nbreak", "\xe9"])
def test_a_repository_may_lie_anywhere(name: str, tiny: TinyRepository, tmp_path: Path) -> None:
    place = tmp_path / name
    tiny.folder.rename(place)
    repository = Repository.open(str(place), tmp_path / "cache")
    with repository.checkout(repository.resolve("HEAD")) as (folder, _):
        assert (folder / MODEL_FILE).exists()


def test_a_short_hash_of_two_commits_stays_ambiguous_beside_a_name(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    seen: dict[str, str] = {}
    for number in range(3000):
        one = write_commit(tiny, message=f"{number}\n".encode())
        if one[:4] in seen:
            break
        seen[one[:4]] = one
    tiny.git("branch", one[:4])
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    with pytest.raises(AmbiguousRevision, match="give more digits"):
        repository.resolve(one[:4])
    assert repository.resolve(f"refs/heads/{one[:4]}") == tiny.git("rev-parse", "main")
