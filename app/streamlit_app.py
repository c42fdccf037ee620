"""The dashboard: `virnucpro-monitor dashboard` runs this file with Streamlit."""

from importlib import import_module
from pathlib import Path

import streamlit as st

from app import data, login, menu, shell
from app.pages import FIRST, PAGES
from app.problems import shown_problems

st.set_page_config(page_icon=str(Path(__file__).parent / "icon.svg"), layout="wide")
shell.put_style()

pages = st.session_state["pages"] = {
    name: st.Page(
        import_module(f"app.views.{name}").show,
        title=look.title,
        icon=look.icon,
        url_path=name,
        default=name == FIRST,
    )
    for name, look in PAGES.items()
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
