"""Views that a reader keeps in the browser, and what may not get into them."""

from http.cookies import SimpleCookie
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from app.saved import COOKIE, MAX_COOKIE, MAX_VIEWS, clean_address, read_views, write_views
from app.served import drop_view, keep_view


def ask(path: str, cookie: str = "", site: str = "same-origin", **parameters: str) -> Request:
    headers = [(b"sec-fetch-site", site.encode())]
    if cookie:
        headers.append((b"cookie", f"{COOKIE}={cookie}".encode()))
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": urlencode(parameters).encode(),
            "headers": headers,
        }
    )


def cookie_of(header: str) -> str:
    return SimpleCookie(header)[COOKIE].value


def test_a_view_is_kept_under_its_name_and_dropped_again() -> None:
    view = "run?run=3&only=failing"
    kept = keep_view(ask("/keep-view", called=" My  run; =1& ", view=view))
    assert (kept.status_code, kept.headers["location"]) == (303, view)
    cookie = cookie_of(kept.headers["set-cookie"])
    assert read_views(cookie) == {"My run; =1&": view}
    more = keep_view(ask("/keep-view", cookie, called="All", view="incidents?state=all"))
    cookie = cookie_of(more.headers["set-cookie"])
    assert list(read_views(cookie)) == ["My run; =1&", "All"]
    dropped = drop_view(ask("/drop-view", cookie, called="All", view="health"))
    assert dropped.headers["location"] == "health"
    assert list(read_views(cookie_of(dropped.headers["set-cookie"]))) == ["My run; =1&"]


@pytest.mark.parametrize(
    "view",
    [
        "https://example.org/",
        "//example.org",
        "javascript:alert(1)",
        "../admin",
        "run/../../x",
        "metrics",
        "run?x=" + "y" * 2_000,
    ],
)
def test_an_address_that_is_none_of_the_dashboards_is_refused(view: str) -> None:
    assert clean_address(view) is None
    assert keep_view(ask("/keep-view", called="x", view=view)).status_code == 400
    assert read_views(urlencode([("x", view)])) == {}


def test_another_site_cannot_change_what_is_kept() -> None:
    asked = ask("/keep-view", site="cross-site", called="x", view="health")
    assert keep_view(asked).status_code == 403


def test_the_cookie_stays_small_enough_for_a_browser() -> None:
    views = {f"view {number}": f"sequence?sequence={'s' * 400}" for number in range(30)}
    text = write_views(views)
    assert len(text) <= MAX_COOKIE
    kept = list(read_views(text))
    assert 0 < len(kept) <= MAX_VIEWS
    assert kept == list(views)[-len(kept) :]
