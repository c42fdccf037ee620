"""OpenID Connect login by Streamlit's own `st.login`, where an `[auth]` secret is configured."""

from importlib.util import find_spec

import streamlit as st

from app import markup, shell
from virnucpro_monitor.errors import ConfigurationError


def is_allowed() -> bool:
    """Whether this reader may see pages: everybody, unless login is configured."""
    return not _is_configured() or _is_logged_in()


def ask() -> None:
    """Show the login, and nothing else.

    Raises:
        ConfigurationError: what login needs is not installed, or not configured.
    """
    if find_spec("authlib") is None:
        raise ConfigurationError(
            "Login is configured, but the packages for it are missing: "
            "pip install 'virnucpro-monitor[auth]'."
        )
    shell.title("Log in")
    shell.put(markup.paragraph("This dashboard is for people of its organisation."))
    if st.button("Log in", key="log-in"):
        try:
            st.login()
        except st.errors.StreamlitAuthError as error:
            why = " ".join(str(error).split())
            raise ConfigurationError(f"Login is configured wrongly: {why}") from error


def put_user() -> None:
    """Who is logged in, with a way out; nothing where nobody has to log in."""
    name = user_name()
    if name:
        with st.container(horizontal=True, vertical_alignment="center"):
            shell.put(markup.paragraph(f"Logged in as {name}.", kind="quiet"))
            st.button("Log out", key="log-out", type="tertiary", on_click=st.logout)


def user_name() -> str:
    """The logged-in user's name or address; empty where nobody has to log in."""
    if not _is_configured() or not _is_logged_in():
        return ""
    return str(st.user.get("email") or st.user.get("name") or "somebody without a name")


def _is_logged_in() -> bool:
    return bool(st.user.get("is_logged_in", False))


def _is_configured() -> bool:
    return st.secrets.load_if_toml_exists() and "auth" in st.secrets
