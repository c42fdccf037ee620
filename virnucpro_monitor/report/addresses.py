"""Web addresses of a repository's pages, where it lies on a known kind of host."""

import re

_REMOTE = re.compile(
    r"(?:https?://(?:[^/@]*@)?([\w.-]+)/|(?:ssh://)?git@([\w.-]+)[:/])([\w./-]+?)(?:\.git)?/?"
)


def commit_address(location: str, commit: str) -> str | None:
    """The page of one commit of the repository at `location`: its message and its changes."""
    root = _root(location)
    if root is None:
        return None
    host, path = root
    middle = "/commit/"
    if "gitlab" in host:
        middle = "/-/commit/"
    elif "bitbucket" in host:
        middle = "/commits/"
    return f"https://{host}/{path}{middle}{commit}"


def diff_address(location: str, base: str, head: str) -> str | None:
    """The page of the difference between two commits of the repository at `location`."""
    root = _root(location)
    if root is None:
        return None
    host, path = root
    if "bitbucket" in host:  # which names the newer one first, with an escaped line break between
        return f"https://{host}/{path}/branches/compare/{head}%0D{base}"
    middle = "/-/compare/" if "gitlab" in host else "/compare/"
    return f"https://{host}/{path}{middle}{base}...{head}"


def folder_of(location: str) -> str | None:
    """The path of a repository that lies on a disk; None for one that is reached by a network."""
    if location.startswith("file://"):
        return location.removeprefix("file://")
    return location if location.startswith(("/", "~", ".")) or location[1:3] == ":\\" else None


def _root(location: str) -> tuple[str, str] | None:
    match = _REMOTE.fullmatch(location)
    return None if match is None else (match[1] or match[2], match[3])
