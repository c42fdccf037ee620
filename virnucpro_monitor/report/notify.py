"""Brings a message to a service by Apprise, and says in one sentence what went wrong."""

import logging
import re
import threading
import warnings
from typing import Any
from urllib.parse import unquote_plus

from virnucpro_monitor.secrecy import MASK, masked

TIMEOUT_S = 20.0
_UNKNOWN_ADDRESS = "its address has no form that Apprise knows"
_MIN_SECRET = 4
_loading = threading.Lock()


def send_message(url: str, title: str, body: str, *, timeout_s: float = TIMEOUT_S) -> str:
    """Send one message, and return why it was not taken; empty where it was.

    The text is handed over as plain text: each service's own plugin escapes what it would read as
    its markup, so that `<mask>` arrives as it is.

    Args:
        url: an address of Apprise's form; no part of it is in what is returned.
    """
    apprise = _load_apprise()
    service = apprise.Apprise()
    try:
        known = service.add(url)
    except Exception:  # a plugin's own parser on an address that is none
        known = False
    if not known:
        return _UNKNOWN_ADDRESS
    result: Any = service.notify(
        title=title, body=body, body_format=apprise.NotifyFormat.TEXT, timeout=timeout_s
    )
    # It equals neither True nor False nor None: only its truth tells.
    if result:
        return ""
    said = [str(entry.message) for entry in result.logs() if entry.message]
    return scrubbed(said[-1], url) if said else "the service refused it"


def _load_apprise() -> Any:
    """Apprise with all its services, which are loaded when the first address is read."""
    with _loading, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # services that nobody asked for load old modules
        import apprise

        apprise.Apprise().add("json://localhost")
        logger = logging.getLogger("apprise")
        logger.propagate = False  # its warnings name users and hosts
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        return apprise


def scrubbed(text: str, url: str) -> str:
    """A service's own words without anything that only the address holds."""
    shown = masked(text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        shown = shown.replace(secret, MASK)
    return " ".join(shown.split())[:300].rstrip(".")


def _secrets(url: str) -> set[str]:
    """User, password, path and parameters of an address, as they stand there and unquoted."""
    _, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    login, at, place = place.rpartition("@")
    parts = [*(login.split(":") if at else ()), *place.split("/")[1:]]
    parts += [pair.partition("=")[2] for pair in re.split("[&;]", query)]
    found = {text for part in parts for text in (part, unquote_plus(part))}
    return {text for text in found if len(text) >= _MIN_SECRET}
