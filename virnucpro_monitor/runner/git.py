"""Git as a subprocess: no prompts, no hooks, no filters, and one sentence for each failure."""

import os
import re
import subprocess
from pathlib import Path

from virnucpro_monitor.errors import RepositoryError

QUICK_TIMEOUT_S = 120.0
NETWORK_TIMEOUT_S = 1800.0

# Filters of large-file extensions would download or fail; hooks would run foreign code.
_ISOLATED = (
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "safe.directory=*",
    "-c", "filter.lfs.smudge=",
    "-c", "filter.lfs.process=",
    "-c", "filter.lfs.required=false",
    "-c", "gc.auto=0",
    "-c", "advice.detachedHead=false",
)  # fmt: skip


class GitError(RepositoryError):
    """A git command failed; `stderr` holds what it said."""

    def __init__(self, message: str, stderr: str) -> None:
        super().__init__(message)
        self.stderr = stderr


def git_environment() -> dict[str, str]:
    """The environment for git: the caller's, without any repository chosen by it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(("GIT_SSH", "GIT_CONFIG_GLOBAL"))
    }
    kept.update(
        GIT_TERMINAL_PROMPT="0",
        GIT_LFS_SKIP_SMUDGE="1",
        GIT_OPTIONAL_LOCKS="0",  # a read-only repository stays untouched
        LC_ALL="C",
    )
    kept.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    return kept


def run_git(*arguments: str, folder: Path | None = None, timeout_s: float = QUICK_TIMEOUT_S) -> str:
    """Run git in the repository `folder` and return its standard output.

    Raises:
        GitError: git is not installed, did not end in time, or failed.
    """
    where = ["-C", str(folder)] if folder is not None else []
    try:
        done = subprocess.run(
            ["git", *_ISOLATED, *where, *arguments],
            env=git_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed: install it and try again.", "") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(
            f"git {arguments[0]} did not end within {timeout_s:.0f} s: check the repository or "
            f"the network.",
            "",
        ) from error
    stderr = done.stderr.decode(errors="replace").strip()
    if done.returncode != 0:
        raise GitError(explain(arguments[0], stderr), stderr)
    return done.stdout.decode(errors="replace")


def explain(command: str, stderr: str) -> str:
    """Put what git said into one sentence."""
    last = stderr.splitlines()[-1] if stderr else "it said nothing"
    for pattern, sentence in _SENTENCES:
        if re.search(pattern, stderr, re.IGNORECASE):
            return sentence
    return f"git {command} failed ({last.removeprefix('fatal: ').removeprefix('error: ')})."


_SENTENCES = (
    (
        r"could not read Username|Authentication failed|Permission denied \(publickey"
        r"|terminal prompts disabled|HTTP 40[13]",
        "The repository asks for credentials: set up a git credential helper or an SSH key for "
        "the user that runs this.",
    ),
    (
        r"Could not resolve host|Connection (refused|timed out|reset)|unable to access"
        r"|Could not connect|Network is unreachable|not appear to be a git repository"
        r"|repository '.*' (does not exist|not found)",
        "The repository cannot be reached: check its address and the network.",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full: free some space, or point VIRNUCPRO_MONITOR_CACHE_DIR elsewhere.",
    ),
    (r"not a git repository", "This is not a git repository."),
)
