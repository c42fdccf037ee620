"""Web addresses of a repository's pages, where it lies on a known kind of host."""

import re

_REMOTE = re.compile(
    r"(?:https?://(?:[^/@]*@)?([\w.-]+)/|(?:ssh://)?git@([\w.-]+)[:/])([\w./-]+?)(?:\.git)?/?"
)


def diff_address(location: str, base: str, head: str) -> str | None:
    """The page of the difference between two commits of the repository at `location`."""
    root = _root(location)
    if root is None:
        return None
    host, path = root
    middle = "/-/compare/" if "gitlab" in host else "/compare/"
    return f"https://{host}/{path}{middle}{base}...{head}"


def _root(location: str) -> tuple[str, str] | None:
    match = _REMOTE.fullmatch(location)
    return None if match is None else (match[1] or match[2], match[3])
