"""What this host has seen in the chains of a database, noted where the database's writers are not.

Who can write a database can change a run, take every digest after it again, and leave chains that
hold. The runner therefore notes each link that it sees, beside the spool in the user's data folder;
a later check finds each link that has changed or gone since. It cannot tell who added a run.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from virnucpro_monitor.records import content_digest
from virnucpro_monitor.store.chain import LINKS
from virnucpro_monitor.store.connection import describe, parse_url
from virnucpro_monitor.store.models import TargetRow
from virnucpro_monitor.user_folders import user_folder

_ALL = "*"


def anchor_file(database_url: str) -> Path:
    """Where links of that database are noted: a line each, or a line that takes some back."""
    key = content_digest(describe(parse_url(database_url)))[:16]
    return user_folder("XDG_DATA_HOME", ".local/share") / "anchors" / f"{key}.jsonl"


class Anchors:
    """The notes on one database. Several processes may add to them."""

    def __init__(self, database_url: str) -> None:
        self.path = anchor_file(database_url)
        self._last: int | None = None

    def note(self, connection: Connection) -> None:
        """Note the links that are new since the last note.

        Raises:
            OSError: they cannot be written down.
        """
        if self._last is None:
            self._last = max((run_id for run_id, _, _ in self._noted()), default=-1)
        query = (
            select(LINKS.c.run_id, TargetRow.name, LINKS.c.chain)
            .join(TargetRow, TargetRow.id == LINKS.c.target_id)
            .where(LINKS.c.run_id > self._last)
            .order_by(LINKS.c.run_id)
        )
        new: list[list[Any]] = [list(row) for row in connection.execute(query)]
        self._append(new)
        self._last = new[-1][0] if new else self._last

    def forget(self, target: str = _ALL) -> None:
        """Take back what was noted of a target that is deleted, or of a database made anew.

        Raises:
            OSError: it cannot be written down.
        """
        if self.path.exists():
            self._append([[target]])

    def compare(self, connection: Connection) -> tuple[int, Iterator[str]]:
        """How many links are noted, and a sentence for each that is not there as it was."""
        noted = self._noted()
        return len(noted), self._differences(connection, noted)

    def _differences(
        self, connection: Connection, noted: list[tuple[int, str, str]]
    ) -> Iterator[str]:
        query = select(LINKS.c.run_id, LINKS.c.chain)
        there = {row.run_id: row.chain for row in connection.execute(query)}
        rewritten = set()
        for run_id, target, chain in noted:
            if run_id not in there or (there[run_id] != chain and target not in rewritten):
                what = "has gone" if run_id not in there else "was rewritten"
                rewritten.add(target)  # all that follow it in the chain have changed, too
                yield (
                    f"Run {run_id} of target {target} {what} since this host saw it stored. Where "
                    f"a power cut or a restored backup explains that, remove {self.path}."
                )

    def _noted(self) -> list[tuple[int, str, str]]:
        noted: dict[int, tuple[int, str, str]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                words = _words(line)
                if len(words) == 3:
                    noted[words[0]] = (words[0], words[1], words[2])
                elif len(words) == 1:
                    noted = {
                        key: one for key, one in noted.items() if words[0] not in (_ALL, one[1])
                    }
        return list(noted.values())

    def _append(self, lines: list[list[Any]]) -> None:
        if not lines:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.open("a+b") as file:
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a cut line would swallow the first one here
                    text = f"\n{text}"
            file.write(text.encode())


def _words(line: str) -> list[Any]:
    """A line's words; none where a kill or a full disk has cut it."""
    try:
        words = json.loads(line)
    except ValueError:
        return []
    return words if isinstance(words, list) else []
