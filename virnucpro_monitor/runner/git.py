"""Git as a subprocess: no prompts, no hooks, no filters, no replaced objects, no configuration but
the repository's own, and one sentence for each failure."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.secrecy import masked

QUICK_TIMEOUT_S = 120.0
NETWORK_TIMEOUT_S = 1800.0

# Whatever a configuration names (hooks, filters, signature programs) is foreign code, and what it
# sets (encodings, checks of objects, line ends) would change which history is read.
_ISOLATED = (
    "--no-replace-objects",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "core.attributesFile=/dev/null",
    "-c", "core.autocrlf=false",
    "-c", "core.quotePath=true",
    "-c", "safe.directory=*",
    "-c", "filter.lfs.smudge=",
    "-c", "filter.lfs.process=",
    "-c", "filter.lfs.required=false",
    "-c", "transfer.fsckObjects=false",  # one odd commit of long ago must not block a clone
    "-c", "fetch.fsckObjects=false",
    "-c", "fetch.recurseSubmodules=false",
    "-c", "fetch.writeCommitGraph=false",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "log.showSignature=false",
    "-c", "i18n.logOutputEncoding=UTF-8",
    "-c", "advice.detachedHead=false",
)  # fmt: skip


class GitError(RepositoryError):
    """A git command failed; `stderr` holds what it said."""

    def __init__(self, message: str, stderr: str) -> None:
        super().__init__(message)
        self.stderr = stderr


def git_environment(*, network: bool = False) -> dict[str, str]:
    """The environment for git: the caller's, without any repository or view of one chosen by it.

    Args:
        network: speak to a remote, as the user's and the machine's configuration say (credentials,
            proxies, certificates). Otherwise neither is read, and git fetches nothing by itself.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_")
        or (network and name.startswith(("GIT_SSH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")))
    }
    kept.update(
        GIT_TERMINAL_PROMPT="0",
        GIT_LFS_SKIP_SMUDGE="1",
        GIT_OPTIONAL_LOCKS="0",  # a read-only repository stays untouched
        GIT_ATTR_NOSYSTEM="1",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_GRAFT_FILE=os.devnull,
        LC_ALL="C",
    )
    if network:
        kept.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
    else:
        kept.update(
            GIT_CONFIG_GLOBAL=os.devnull,
            GIT_CONFIG_NOSYSTEM="1",
            GIT_NO_LAZY_FETCH="1",
            GIT_ALLOW_PROTOCOL="none",  # the same for versions of git that don't know the above
        )
    return kept


def git_command(*arguments: str, folder: Path | None = None) -> list[str]:
    """The command line of git in the repository `folder`, free of configuration.

    Raises:
        GitError: an argument holds a NUL character, which no command line can.
    """
    if any("\0" in argument for argument in arguments):
        raise GitError("A name given to git holds a NUL character: leave it out.", "")
    where = ["-C", str(folder)] if folder is not None else []
    return ["git", *_ISOLATED, *where, *arguments]


def run_git(
    *arguments: str,
    folder: Path | None = None,
    timeout_s: float = QUICK_TIMEOUT_S,
    network: bool = False,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run git in the repository `folder` and return its standard output.

    Bytes that are not UTF-8 come back as lone surrogates, so that different names stay different.

    Args:
        network: see `git_environment`.
        environment: variables beside those of `git_environment`.

    Raises:
        GitError: git is not installed, did not end in time, or failed.
    """
    try:
        done = subprocess.run(
            git_command(*arguments, folder=folder),
            env={**git_environment(network=network), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed: install it and try again.", "") from error
    except subprocess.TimeoutExpired as error:
        raise GitError(
            f"git {_command_of(arguments)} did not end within {timeout_s:.0f} s: check the "
            f"repository or the network.",
            "",
        ) from error
    stderr = done.stderr.decode(errors="replace").strip()
    if done.returncode != 0:
        raise GitError(explain(_command_of(arguments), stderr), stderr)
    return done.stdout.decode(errors="surrogateescape")


def _command_of(arguments: tuple[str, ...]) -> str:
    return arguments[2] if arguments[0] == "-c" else arguments[0]


def explain(command: str, stderr: str) -> str:
    """Put what git said into one sentence."""
    last = stderr.splitlines()[-1] if stderr else "it said nothing"
    for pattern, sentence in _SENTENCES:
        if re.search(pattern, stderr, re.IGNORECASE):
            return sentence
    return f"git {command} failed ({masked(last).removeprefix('fatal: ').removeprefix('error: ')})."


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
