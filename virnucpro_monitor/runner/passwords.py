"""Passwords in the addresses of repositories: taken out before an address goes anywhere.

What is stored, shown, logged or scheduled is the address without it. The password stays in this
process and, for a target that is stored, in a private file (mode 0600); git gets it from there. For
an address without one git asks the user's own credential helpers.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from virnucpro_monitor.disks import write_private
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.secrecy import masked_url
from virnucpro_monitor.user_folders import user_folder

_WITH_PASSWORD = re.compile(r"(?s)(https?://[^:/@]*):(.*)@(.*)", re.I)
# Tokens that GitHub and GitLab take in place of a user; any user will do beside them.
_TOKEN_ALONE = re.compile(
    r"(https?://)((?:gh[pousr]_|github_pat_|glpat-)[\w-]{10,})@(.*)", re.I | re.S
)
_ANY_USER = "token"

_remembered: dict[str, str] = {}


def password_file() -> Path:
    """Where passwords of stored targets' repositories are kept, by address."""
    return user_folder("XDG_CONFIG_HOME", ".config") / "repository_passwords.json"


def public_address(location: str) -> str:
    """The address without its password, which this process remembers.

    Raises:
        ConfigurationError: it holds a secret in another place than `user:password@` of a URL of
            https.
    """
    if found := _WITH_PASSWORD.fullmatch(location):
        public, password = f"{found[1]}@{found[3]}", unquote(found[2])
    elif found := _TOKEN_ALONE.fullmatch(location):
        public, password = f"{found[1]}{_ANY_USER}@{found[3]}", unquote(found[2])
    else:
        public, password = location, ""
    if masked_url(public) != public:
        raise ConfigurationError(
            f"{masked_url(location)} holds a secret that cannot be kept apart from it: write it as "
            "https://user:password@host/…, or leave it to a credential helper of git."
        )
    if password:
        _remembered[public] = password
    return public


def password_of(public: str) -> str | None:
    """The password that was seen with an address, or is kept for it; None where there is none."""
    return _remembered.get(public) or _kept().get(public)


def is_kept(public: str) -> bool:
    """Whether a later process will have the password, too; true where the address needs none."""
    return public not in _remembered or _kept().get(public) == _remembered[public]


def keep_password(public: str, say: Callable[[str], object]) -> None:
    """Write down the password that was seen with an address, if one was.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    if is_kept(public):
        return
    _write({**_kept(), public: _remembered[public]})
    say(f"The repository's password is kept in {password_file()}, for this user alone.")


def forget_password(public: str) -> None:
    """Raises `ConfigurationError` where the file cannot be written."""
    _remembered.pop(public, None)
    kept = _kept()
    if kept.pop(public, None) is not None:
        _write(kept)


def _kept() -> dict[str, str]:
    path = password_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The passwords of repositories cannot be read from {path}: {error}."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} does not hold the passwords of repositories: remove it.")
    return {str(address): str(password) for address, password in content.items()}


def _write(passwords: dict[str, str]) -> None:
    path = password_file()
    try:
        write_private(path, json.dumps(passwords, indent=1) + "\n")
    except OSError as error:
        raise ConfigurationError(
            f"The password cannot be written to {path}: {error.strerror}."
        ) from error
