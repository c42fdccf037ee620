"""Every odd header that a history may hold, written as raw objects into real repositories."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.runner.tiny_target import MODEL_FILE, TinyRepository
from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.records import Commit
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.commit_objects import MAX_OBJECT_BYTES, parse_moment

SECONDS = 1_701_836_000
MOMENT = datetime(2023, 12, 6, 4, 13, 20, tzinfo=UTC)
PERSON = b"A. Author <author@example.org>"
DATED = PERSON + b" 1701836000 +0000"


def write_commit(
    tiny: TinyRepository,
    *,
    author: bytes | None = DATED,
    committer: bytes | None = DATED,
    message: bytes = b"An odd one\n",
    extra: bytes = b"",
    parents: tuple[str, ...] = (),
) -> str:
    """Store a commit of HEAD's files as raw bytes, unchecked, and return its hash."""
    lines = [f"tree {tiny.git('rev-parse', 'HEAD^{tree}')}".encode()]
    lines += [f"parent {parent}".encode() for parent in parents]
    lines += [b"author " + author] if author is not None else []
    lines += [b"committer " + committer] if committer is not None else []
    lines += [extra] if extra else []
    content = b"\n".join(lines) + b"\n\n" + message
    done = subprocess.run(
        ["git", "-C", str(tiny.folder), "hash-object", "-t", "commit", "-w", "--stdin",
         "--literally"],
        input=content, capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout.decode().strip()


def read_with_child(tiny: TinyRepository, odd: str, cache: Path) -> tuple[Commit, Commit]:
    """Read an odd root and a plain child of it, as a run reads a branch."""
    child = write_commit(tiny, parents=(odd,), message=b"A plain one\n")
    tiny.git("update-ref", "refs/heads/main", child)
    repository = Repository.open(str(tiny.folder), cache)
    history = repository.history(repository.resolve("main"))
    assert history == (odd, child)
    first, second = repository.commits(history, history)
    assert (first.hash, first.position, first.on_branch) == (odd, 0, True)
    assert (second.subject, second.author, second.parents) == ("A plain one", "A. Author", (odd,))
    assert second.authored_at == MOMENT
    with repository.checkout(odd) as (folder, _):
        assert (folder / MODEL_FILE).exists()
    return first, second


@pytest.mark.parametrize(
    ("date", "moment"),
    [
        (b"1701836000 +051800", MOMENT),
        (b"1701836000 +9959", MOMENT),
        (b"1701836000 -7530", MOMENT),
        (b"1701836000 +0530", MOMENT),
        (b"1701836000", MOMENT),
        (b"1701836000 never", MOMENT),
        (b"0 +0000", datetime(1970, 1, 1, tzinfo=UTC)),
        (b"253402300799 +1400", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"253402300800 +0000", None),  # the year 10000
        (b"99999999999999999999999999 +0000", None),
        (b"9" * 5000 + b" +0000", None),
        (b"-5 +0000", None),
        (b"yesterday +0000", None),
        ("\u0661\u0662 +0000".encode(), None),
        (b"", None),
    ],
)
def test_an_odd_date_is_unknown_or_in_utc_and_never_fatal(
    date: bytes, moment: datetime | None, tiny: TinyRepository, tmp_path: Path
) -> None:
    line = PERSON + b" " + date
    odd = write_commit(tiny, author=line, committer=line)
    commit, _ = read_with_child(tiny, odd, tmp_path / "cache")
    assert commit.authored_at == commit.committed_at == moment
    assert commit.author == "A. Author"
    assert commit.subject == "An odd one"


def test_a_zone_is_kept_where_it_is_one() -> None:
    moment = parse_moment("1701836000 -0330")
    assert moment == MOMENT
    assert moment is not None
    assert moment.utcoffset() == -timedelta(hours=3, minutes=30)


@pytest.mark.parametrize("missing", ["author", "committer"])
def test_a_missing_person_is_empty(missing: str, tiny: TinyRepository, tmp_path: Path) -> None:
    absent = None
    odd = (
        write_commit(tiny, author=absent)
        if missing == "author"
        else write_commit(tiny, committer=absent)
    )
    commit, _ = read_with_child(tiny, odd, tmp_path / "cache")
    if missing == "author":
        assert (commit.author, commit.authored_at, commit.committed_at) == ("", None, MOMENT)
    else:
        assert (commit.author, commit.authored_at) == ("A. Author", MOMENT)
        assert commit.committed_at is None


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        (b"one \x1e two \x1f three\n", "one \x1e two \x1f three"),
        (b"\n\n  first line\nsecond line\n\nbody\n", "first line second line"),
        (b"before\0after\n", "before"),
        (b"caf\xe9\n", "caf\ufffd"),
        (b"a\r\nb\n", "a b"),
        (b"\x1b[31mred\x07\n", "\x1b[31mred\x07"),
        (b"", ""),
        (b"\n\n\n", ""),
        (b"x" * 1_000_000, "x" * 1_999 + "…"),
        ("\u00e9".encode() * 500_000, "\u00e9" * 1_999 + "…"),
    ],
)
def test_a_subject_may_hold_anything(
    message: bytes, subject: str, tiny: TinyRepository, tmp_path: Path
) -> None:
    commit, _ = read_with_child(tiny, write_commit(tiny, message=message), tmp_path / "cache")
    assert commit.subject == subject


@pytest.mark.parametrize(
    ("author", "name"),
    [
        (b"A \x1e B \x1f C <a@b> 1701836000 +0000", "A \x1e B \x1f C"),
        (b"<a@b> 1701836000 +0000", ""),
        (b"A > B <a@b> 1701836000 +0000", "A > B"),
        (b"A <a>b> 1701836000 +0000", "A"),
        (b"N\xe9 <a@b> 1701836000 +0000", "N\ufffd"),
        (b"n" * 5000 + b" <a@b> 1701836000 +0000", "n" * 499 + "…"),
    ],
)
def test_an_author_may_hold_anything(
    author: bytes, name: str, tiny: TinyRepository, tmp_path: Path
) -> None:
    commit, _ = read_with_child(tiny, write_commit(tiny, author=author), tmp_path / "cache")
    assert (commit.author, commit.authored_at) == (name, MOMENT)


@pytest.mark.parametrize(
    ("encoding", "message", "subject"),
    [
        (b"ISO-8859-1", b"caf\xe9\n", "café"),
        (b"UTF-16", "caf\u00e9".encode("utf-16-le"), "c"),  # a NUL ends a message, as in git
        (b"no-such-encoding", b"caf\xc3\xa9\n", "café"),
        (b"rot13", b"text\n", "text"),
        (b"\xff\xfe", b"text\n", "text"),
    ],
)
def test_the_commits_own_encoding_is_used_where_there_is_such(
    encoding: bytes, message: bytes, subject: str, tiny: TinyRepository, tmp_path: Path
) -> None:
    odd = write_commit(tiny, extra=b"encoding " + encoding, message=message)
    commit, _ = read_with_child(tiny, odd, tmp_path / "cache")
    assert commit.subject == subject


def test_a_signature_is_not_taken_for_headers(tiny: TinyRepository, tmp_path: Path) -> None:
    signature = b"gpgsig -----BEGIN PGP SIGNATURE-----\n author Nobody <x> 1 +0000\n parent 00"
    odd = write_commit(tiny, extra=signature)
    commit, _ = read_with_child(tiny, odd, tmp_path / "cache")
    assert (commit.author, commit.parents) == ("A. Author", ())


def test_a_huge_message_is_not_held_in_memory(tiny: TinyRepository, tmp_path: Path) -> None:
    odd = write_commit(tiny, message=b"short\n\n" + b"x" * (8 * MAX_OBJECT_BYTES))
    commit, _ = read_with_child(tiny, odd, tmp_path / "cache")
    assert commit.subject == "short"


def _object_path(tiny: TinyRepository, name: str) -> Path:
    path = tiny.folder / ".git" / "objects" / name[:2] / name[2:]
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("damage", ["corrupt", "empty", "gone"])
def test_a_damaged_commit_is_where_the_history_begins(
    damage: str, tiny: TinyRepository, tmp_path: Path
) -> None:
    before = tiny.git("rev-parse", "HEAD")
    damaged = tiny.commit({"a": "1"})
    later = [tiny.commit({"a": "2"}), tiny.commit({"a": "3"}, "The last")]
    path = _object_path(tiny, damaged)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"not zlib at all")
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    history = repository.history(repository.resolve("main"))
    assert history == (damaged, *later)
    first, _, last = repository.commits(history, history)
    assert first == Commit(hash=damaged, position=0, on_branch=True)
    assert last.subject == "The last"
    with repository.checkout(later[-1]) as (folder, _):
        assert (folder / "a").read_text() == "3"
    # Whatever lies before a damaged commit is read as ever when it is named.
    assert [one.subject for one in repository.commits([before, damaged, later[0]])] == [
        "Add packed inference", "", "Commit 2"
    ]  # fmt: skip


def test_what_is_no_commit_reads_as_nothing(tiny: TinyRepository, tmp_path: Path) -> None:
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    tree = tiny.git("rev-parse", "HEAD^{tree}")
    absent = "0" * 40
    assert repository.commits([tree, absent]) == (Commit(hash=tree), Commit(hash=absent))


@pytest.mark.parametrize("damage", ["corrupt", "gone"])
def test_a_damaged_tip_is_told_from_an_unknown_name(
    damage: str, tiny: TinyRepository, tmp_path: Path
) -> None:
    head = tiny.git("rev-parse", "HEAD")
    path = _object_path(tiny, head)
    path.unlink() if damage == "gone" else path.write_bytes(b"not zlib at all")
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    for name in ("HEAD", "main"):
        with pytest.raises(RepositoryError, match=f"{head}.*(is corrupt|is missing or damaged)"):
            repository.resolve(name)
    with pytest.raises(RepositoryError, match="is not known"):
        repository.resolve("other")
