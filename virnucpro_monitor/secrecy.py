"""Secrets: how they are masked where text is shown, and kept from programs that are not ours."""

import re
from collections.abc import Mapping

MASK = "***"

_NAMES = r"pass(?:word|wd|phrase)|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key|sslpassword"
# A password may hold an unescaped @, : or /, so all up to the last @ of the word is taken for it.
_IN_TEXT = re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@]*):\S*@", re.I)
_IN_URL = re.compile(r"(^[a-z][a-z0-9+.-]*://[^:/@]*):.*@", re.I | re.S)
_IN_QUERY = re.compile(rf"([?&][\w-]{{0,60}}(?:{_NAMES}|token|auth|credentials?))=[^\s&#]+", re.I)
_TOKEN = re.compile(r"\b(gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{10,}")
_ASSIGNED = re.compile(rf"""((?:{_NAMES})["']?)\s*=\s*(?:"[^"]*"|'[^']*'|[^\s&;'"]+)""", re.I)

_PRIVATE_NAME = re.compile(
    r"^(?:VIRNUCPRO_MONITOR_|PG[A-Z]|AWS_|AZURE_|ARM_|GOOGLE_|GCP_|GCLOUD_|CLOUDSDK_|DIGITALOCEAN_"
    r"|KUBE|VAULT_|DOCKER_|GITHUB_|GITLAB_|CI_JOB_|SSH_A|GPG_|NETRC$|DBUS_|XAUTHORITY$"
    r"|(?:MYSQL|MONGO|REDIS|DATABASE|DB)_)"
    rf"|(?:^|_)(?:{_NAMES}|pass|token|credential|auth|key|dsn|cookie|askpass)s?(?:_|$)",
    re.I,
)
_NEEDED = frozenset({"PWD", "OLDPWD"})


def masked(text: str) -> str:
    """The text with every password that can be told as one masked.

    That is `scheme://user:PASSWORD@host`, also where the password holds an unescaped @, and
    `password=…` (secret, api_key, …) in a query, a connection string or a setting, and tokens of
    GitHub and GitLab by their beginnings.
    """
    text = _TOKEN.sub(MASK, _IN_TEXT.sub(rf"\1:{MASK}@", text))
    return _ASSIGNED.sub(rf"\1={MASK}", _IN_QUERY.sub(rf"\1={MASK}", text))


def masked_url(url: str) -> str:
    """As `masked`, for text that is one URL and nothing else, whose password may hold spaces."""
    return masked(_IN_URL.sub(rf"\1:{MASK}@", url))


def public_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a foreign program may see.

    Left out are this program's own settings (the database's address among them), those of
    databases, clouds, agents and tokens by their names, and whatever holds a URL with a password.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in _NEEDED or (not _PRIVATE_NAME.search(name) and masked_url(value) == value)
    }
