"""The dashboard: `virnucpro-monitor dashboard` runs this file with Streamlit."""

from pathlib import Path

import streamlit as st

from app import data, login, menu, shell
from app.problems import shown_problems
from app.views import (
    benchmarks,
    compare,
    health,
    incidents,
    overview,
    regressions,
    run,
    sequence,
)

st.set_page_config(page_icon=str(Path(__file__).parent / "icon.svg"), layout="wide")
shell.put_style()

PAGES = {
    "overview": (overview.show, "Overview", ":material/monitoring:"),
    "run": (run.show, "Run", ":material/fact_check:"),
    "compare": (compare.show, "Compare", ":material/compare_arrows:"),
    "sequence": (sequence.show, "Sequence", ":material/genetics:"),
    "incidents": (incidents.show, "Incidents", ":material/report:"),
    "regressions": (regressions.show, "Regressions", ":material/trending_down:"),
    "health": (health.show, "Health", ":material/monitor_heart:"),
    "benchmarks": (benchmarks.show, "Benchmarks", ":material/dataset:"),
}
pages = st.session_state["pages"] = {
    name: st.Page(show, title=title, icon=icon, url_path=name, default=name == "overview")
    for name, (show, title, icon) in PAGES.items()
}
with shown_problems():
    page = st.navigation(list(pages.values()), position="hidden")
    st.set_page_config(page_title=f"{page.title} · virnucpro-monitor")  # tells tabs apart
    if login.is_allowed():
        data.check_database()
        menu.put(page.url_path)
        page.run()
        login.put_user()
        data.warm_up()
    else:
        login.ask()
