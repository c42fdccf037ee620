"""OpenID Connect login by Streamlit's own `st.login`, where an `[auth]` secret is configured."""

import streamlit as st

from app import markup, shell


def is_allowed() -> bool:
    """Whether the page may be shown; shows the login instead where it may not."""
    if not _is_configured() or st.user.is_logged_in:
        return True
    shell.title("Log in")
    shell.put(markup.paragraph("This dashboard is for people of its organisation."))
    st.button("Log in", on_click=st.login)
    return False


def _is_configured() -> bool:
    return st.secrets.load_if_toml_exists() and "auth" in st.secrets


def user_name() -> str:
    """The logged-in user's name or address; empty where nobody has to log in."""
    if not _is_configured() or not st.user.is_logged_in:
        return ""
    return str(st.user.get("email") or st.user.get("name") or "")
