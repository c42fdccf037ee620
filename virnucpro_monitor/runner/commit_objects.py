"""Commits read as git stores them: raw objects, whose odd headers cost a field and never a run.

Nothing here goes through git's formatting, which obeys the user's configuration, separates fields
by characters that a commit may hold, and prints dates that no calendar has.
"""

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import IO

from virnucpro_monitor.records import Commit
from virnucpro_monitor.runner.git import QUICK_TIMEOUT_S, GitError, git_command, git_environment

MAX_OBJECT_BYTES = 2**20  # of one commit; what lies behind is message, of which one line is kept
MAX_SUBJECT_CHARACTERS = 2_000
MAX_NAME_CHARACTERS = 500
# Python knows more "encodings" than there are character sets: escapes, punycode, rot13, …
_CHARACTER_SET = re.compile(
    r"(utf|ucs|iso|latin|l\d|cp|ibm|windows|ms|koi8|euc|shift|s_?jis|big5|gb|hz|mac|johab|tis|ptcp"
    r"|(us-)?ascii)",
    re.IGNORECASE,
)


def read_commits(
    hashes: Sequence[str], folder: Path, positions: Mapping[str, int]
) -> tuple[Commit, ...]:
    """Read commits, in the order given.

    One that is missing, corrupt or no commit comes back with nothing but its hash and position.

    Args:
        folder: the repository.
        positions: place of each commit in the watched history; empty where none is known.

    Raises:
        GitError: git cannot be started, or hangs.
    """
    read = {}
    for name, content in read_objects(hashes, folder):
        position = positions.get(name)
        on_branch = position is not None or not positions
        read[name] = parse_commit(name, content or b"", position, on_branch)
    return tuple(read[name] for name in hashes)


def read_objects(hashes: Sequence[str], folder: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield (hash, the first `MAX_OBJECT_BYTES` of that commit) for each hash in turn.

    The second is None where the object is missing, corrupt or no commit.

    Raises:
        GitError: git cannot be started, or hangs.
    """
    waiting = list(dict.fromkeys(hashes))
    while waiting:
        count = 0
        for found in _read_batch(waiting, folder):
            count += 1
            yield found
        if count < len(waiting):  # git gives up at a corrupt object: that one is passed over
            yield waiting[count], None
            count += 1
        waiting = waiting[count:]


def _read_batch(hashes: Sequence[str], folder: Path) -> Iterator[tuple[str, bytes | None]]:
    """As `read_objects`, but ends early where git does."""
    with tempfile.TemporaryFile() as names:
        names.write("".join(f"{name}\n" for name in hashes).encode())
        names.seek(0)
        try:
            process = subprocess.Popen(
                git_command("cat-file", "--batch", folder=folder),
                env=git_environment(),
                stdin=names,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise GitError("git is not installed: install it and try again.", "") from error
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            process.kill()

        watch = threading.Timer(QUICK_TIMEOUT_S, give_up)
        watch.daemon = True
        watch.start()
        assert process.stdout is not None
        try:
            for name in hashes:
                found = _read_one(process.stdout)
                if found is None:
                    break
                kind, content = found
                yield name, content if kind == b"commit" else None
        finally:
            watch.cancel()
            process.kill()
            process.stdout.close()
            process.wait()
    if hung.is_set():
        raise GitError(
            f"git cat-file did not end within {QUICK_TIMEOUT_S:.0f} s: check the repository.", ""
        )


def _read_one(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """(kind, beginning of the content) of the next object; None where the stream ends."""
    fields = stream.readline().split()
    if len(fields) == 2:  # "<hash> missing"
        return b"missing", b""
    if len(fields) != 3:
        return None
    size = int(fields[2])
    content = stream.read(min(size, MAX_OBJECT_BYTES))
    left = size - len(content) + 1  # a line break ends each object
    while left > 0:
        chunk = stream.read(min(left, MAX_OBJECT_BYTES))
        if not chunk:
            return None
        left -= len(chunk)
    return fields[1], content


def parse_commit(name: str, content: bytes, position: int | None, on_branch: bool) -> Commit:
    """A commit from its raw object; whatever cannot be read stays empty or None."""
    header, _, message = content.partition(b"\n\n")
    parents: list[str] = []
    single: dict[bytes, bytes] = {}
    for line in header.split(b"\n"):
        key, _, value = line.partition(b" ")  # a continuation's key is empty
        if key == b"parent":
            parents.append(value.decode("ascii", errors="replace"))
        elif key in (b"author", b"committer", b"encoding"):
            single.setdefault(key, value)
    encoding = single.get(b"encoding", b"utf-8").decode("ascii", errors="replace").strip()
    author, authored_at = _parse_person(single.get(b"author", b""))
    _, committed_at = _parse_person(single.get(b"committer", b""))
    return Commit(
        hash=name,
        parents=tuple(parents),
        subject=_shortened(_decoded(_subject(message), encoding), MAX_SUBJECT_CHARACTERS),
        author=_shortened(_decoded(author, encoding), MAX_NAME_CHARACTERS),
        authored_at=authored_at,
        committed_at=committed_at,
        position=position,
        on_branch=on_branch,
    )


def first_parent(content: bytes) -> str | None:
    """The first parent that a raw commit names; None for a root."""
    parents = parse_commit("", content, None, False).parents
    return parents[0] if parents else None


def _subject(message: bytes) -> bytes:
    """The first paragraph on one line, as git shows it; a NUL ends the message."""
    lines = message.partition(b"\0")[0].strip().split(b"\n")
    paragraph = []
    for line in lines:
        if not line.strip():
            break
        paragraph.append(line.strip())
    return b" ".join(paragraph)


def _parse_person(line: bytes) -> tuple[bytes, datetime | None]:
    """(name, moment) of "Name <address> seconds zone"."""
    name = line.partition(b"<")[0].strip()
    return name, parse_moment(line.rpartition(b">")[2].decode("ascii", errors="replace"))


def parse_moment(text: str) -> datetime | None:
    """The moment of "seconds zone" as git stores it; None where no calendar has it.

    A zone of a day or more (+051800 is found in real histories) gives way to UTC: the seconds name
    the moment by themselves.
    """
    fields = text.split()
    try:
        if not fields[0].isascii() or not fields[0].isdigit():  # before 1970 git knows no moment
            return None
        moment = datetime.fromtimestamp(int(fields[0]), UTC)
    except (IndexError, ValueError, OverflowError, OSError):
        return None
    with suppress(IndexError, ValueError, OverflowError):
        zone = int(fields[1])
        hours, minutes = divmod(abs(zone), 100)
        offset = timedelta(hours=hours, minutes=minutes) * (1 if zone >= 0 else -1)
        return moment.astimezone(timezone(offset))
    return moment


def _decoded(text: bytes, encoding: str) -> str:
    """The text in the encoding that the commit names, or as UTF-8 where there is no such."""
    start = text[: 4 * MAX_SUBJECT_CHARACTERS]
    if _CHARACTER_SET.match(encoding):
        with suppress(LookupError, ValueError):
            return start.decode(encoding)
    return start.decode(errors="replace")


def _shortened(text: str, limit: int) -> str:
    printable = text.replace("\0", "").encode(errors="replace").decode()  # no lone surrogates
    return printable if len(printable) <= limit else f"{printable[: limit - 1]}…"
