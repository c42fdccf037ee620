"""Views that a reader keeps under a name. They stand in a cookie of the reader's own browser.

An address holds the whole state of a view, so that a name and an address are all there is to keep;
nothing of it is stored here. Pure: text in, text out.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

from app.pages import FIRST, PAGES

COOKIE = "virnucpro-views"
KEPT_S = 400 * 86_400  # as long as browsers allow
MAX_VIEWS = 20
MAX_NAME = 60
MAX_ADDRESS = 600
MAX_COOKIE = 3_800  # a browser drops more than 4,096 without a word
_PATHS = frozenset("" if name == FIRST else name for name in PAGES)


def read_views(cookie: str) -> dict[str, str]:
    """Address by name, in the order in which they were kept; whatever is none is left out."""
    views = {}
    for name, address in parse_qsl(cookie[: 2 * MAX_COOKIE]):
        clean = clean_address(address)
        if clean is not None and clean_name(name):
            views[clean_name(name)] = clean
    return views


def write_views(views: Mapping[str, str]) -> str:
    """The cookie for these views; the oldest are dropped where there are too many."""
    kept = list(views.items())[-MAX_VIEWS:]
    while len(text := urlencode(kept, quote_via=quote)) > MAX_COOKIE:
        del kept[0]
    return text


def clean_name(name: str) -> str:
    return " ".join(name.split())[:MAX_NAME].strip()


def clean_address(address: str) -> str | None:
    """`address` if it names a page of this app and its parameters, relative; else None."""
    page, _, query = address.removeprefix("./").partition("?")
    if page not in _PATHS or len(address) > MAX_ADDRESS:
        return None
    parameters = urlencode(parse_qsl(query), quote_via=quote)
    path = page or "./"
    return f"{path}?{parameters}" if parameters else path
