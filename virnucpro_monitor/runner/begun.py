"""Remember which commits were begun, so that one that takes the runner down is not tried for ever.

A mark is made before a commit is measured and goes when that has ended, however it ended. It stays
only where the runner's own process was ended without a word: killed, or with its machine.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from virnucpro_monitor.records import content_digest, to_json
from virnucpro_monitor.runner.plan import RunPlan

# So many ends in a row are the commit's doing; a few may be a machine that is started again and
# again, whose history must come out as if nothing had happened.
MAX_TIMES = 10


class Begun:
    """Marks of one target under one request, on this host.

    Args:
        folder: of the marks, one small file for each commit: the runners that began it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, plan: RunPlan) -> "Begun":
        request = replace(plan.request, device=plan.request.device.partition(":")[0])
        key = content_digest([plan.target.name, plan.target.location, to_json(request)])
        return cls(plan.cache_folder / "begun" / key[:16])

    def times(self, commit: str) -> int:
        """How often this commit was begun by a runner that did not live to its end."""
        return sum(not _is_alive(runner) for runner in self._runners(commit))

    @contextmanager
    def marking(self, commit: str) -> Iterator[None]:
        """Hold a mark while a commit is measured.

        Raises:
            OSError: the mark cannot be written.
        """
        runners = {*self._runners(commit), _name_of(os.getpid())}
        path = self._folder / commit
        partial = self._folder / f".{commit}.{os.getpid()}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as file:
            json.dump(sorted(runners), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _runners(self, commit: str) -> list[str]:
        with suppress(OSError, ValueError):
            content = json.loads((self._folder / commit).read_text(encoding="utf-8"))
            if isinstance(content, list):
                return [str(name) for name in content]
        return []


def _name_of(pid: int) -> str:
    """A process, told from a later one of the same number by the moment it began (Linux)."""
    with suppress(OSError, IndexError):
        # The command name stands in brackets and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{pid} {fields[19]}"
    return f"{pid}"


def _is_alive(runner: str) -> bool:
    pid = runner.partition(" ")[0]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        pass
    except (ProcessLookupError, OverflowError):
        return False
    return _name_of(int(pid)) == runner
