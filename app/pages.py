"""The pages of the dashboard: their names in addresses, titles and icons. Pure.

Each is shown by `show` of the module of its name in `app.views`.
"""

from typing import NamedTuple


class PageLook(NamedTuple):
    """How the menu and the browser's tab name a page."""

    title: str
    icon: str


FIRST = "overview"
PAGES = {
    FIRST: PageLook("Overview", ":material/monitoring:"),
    "run": PageLook("Run", ":material/fact_check:"),
    "compare": PageLook("Compare", ":material/compare_arrows:"),
    "sequence": PageLook("Sequence", ":material/genetics:"),
    "incidents": PageLook("Incidents", ":material/report:"),
    "regressions": PageLook("Regressions", ":material/trending_down:"),
    "health": PageLook("Health", ":material/monitor_heart:"),
    "benchmarks": PageLook("Benchmarks", ":material/dataset:"),
}
