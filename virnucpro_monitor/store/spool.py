"""Keeps finished measurements in files while their database is away.

Each report is one file, on the disk before it counts as kept; it leaves only when the database
holds it. A report that was stored while its file still lay there is not stored twice.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from virnucpro_monitor.errors import DatabaseAway, StoreError
from virnucpro_monitor.records import RunReport, from_json, to_json
from virnucpro_monitor.store.connection import describe, parse_url
from virnucpro_monitor.store.saving import Draft
from virnucpro_monitor.store.writer import Writer
from virnucpro_monitor.user_folders import user_folder

UNREADABLE = ".unreadable"
STORED_TOGETHER = 50
"""Reports of one transaction, which are in memory at once."""


def spool_folder(database_url: str) -> Path:
    """Where results wait for that database, in the user's data folder."""
    key = hashlib.sha256(describe(parse_url(database_url)).encode()).hexdigest()[:16]
    return user_folder("XDG_DATA_HOME", ".local/share") / "spool" / key


class Spool:
    """The folder of one database's waiting reports; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __len__(self) -> int:
        return len(self._files())

    def keep(self, report: RunReport) -> None:
        """Write a report down, behind those that wait already.

        Raises:
            StoreError: it could not be stored in any database, or its file cannot be written.
        """
        digest = Draft.of(report).digest
        content = json.dumps(to_json(report), allow_nan=False, default=_plain_number)
        try:
            with self._locked():
                files = self._files()
                number = int(files[-1].name.partition("-")[0]) + 1 if files else 0
                path = self._folder / f"{number:08d}-{digest[:16]}.json"
                draft = path.with_suffix(".draft")
                with draft.open("w") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(path)
                self._sync()
        except OSError as error:
            raise StoreError(
                f"The result of {report.run.commit.short} cannot be kept in {self._folder} either "
                f"({error.strerror or error}): it is lost, and its commit will be measured again."
            ) from error

    def replay(self, writer: Writer, say: Callable[[str], None]) -> int:
        """Store what waits, in its order, and return how many there were.

        What cannot be read, or not be stored in this database, is set aside and told.

        Raises:
            DatabaseAway: the database is still not there; what was not stored goes on waiting.
        """
        if not self._files():
            return 0
        with self._locked():
            files = self._files()
            return sum(
                self._store(files[start : start + STORED_TOGETHER], writer, say)
                for start in range(0, len(files), STORED_TOGETHER)
            )

    def _store(self, paths: Sequence[Path], writer: Writer, say: Callable[[str], None]) -> int:
        """Store those of `paths` that can be, and return how many."""
        waiting = [
            (path, report) for path in paths if (report := self._read(path, say)) is not None
        ]
        try:
            writer.save_runs([report for _, report in waiting], again=True)
        except StoreError:  # the database is away, or has no place for one of them
            return sum(self._store_one(path, report, writer, say) for path, report in waiting)
        for path, _ in waiting:
            path.unlink()
        self._sync()
        return len(waiting)

    def _store_one(
        self, path: Path, report: RunReport, writer: Writer, say: Callable[[str], None]
    ) -> bool:
        try:
            writer.save_run(report, again=True)
        except DatabaseAway:
            raise
        except StoreError as error:
            self._set_aside(path, str(error), say)
            return False
        path.unlink()
        self._sync()
        return True

    def _read(self, path: Path, say: Callable[[str], None]) -> RunReport | None:
        """The report in a file; None where it cannot be read, and is set aside."""
        try:
            report = from_json(RunReport, json.loads(path.read_text()))
            digest = Draft.of(report).digest
        except (ValueError, TypeError, LookupError, AttributeError, StoreError) as error:
            self._set_aside(path, str(error), say)
            return None
        if not path.name.startswith(f"{path.name[:8]}-{digest[:16]}"):
            self._set_aside(path, "its content was changed", say)
            return None
        return report

    def _set_aside(self, path: Path, why: str, say: Callable[[str], None]) -> None:
        aside = path.with_suffix(UNREADABLE)
        path.rename(aside)
        say(f"A waiting result cannot be stored ({why.rstrip('.')}): it is kept as {aside}.")

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sync(self) -> None:
        """Make a new or gone name last beyond a power cut."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _plain_number(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item()
