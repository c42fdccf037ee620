"""Pages for a database that cannot be shown: what is wrong and what to do, never a stack trace."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app import markup, shell
from virnucpro_monitor.errors import (
    ConfigurationError,
    MissingDatabase,
    MonitorError,
    NewerSchema,
    NotFoundError,
    OutdatedSchema,
)

logger = logging.getLogger(__name__)

TITLES: tuple[tuple[type[MonitorError], str], ...] = (
    (MissingDatabase, "There is no database yet"),
    (OutdatedSchema, "The database is older than this program"),
    (NewerSchema, "The database is newer than this program"),
    (ConfigurationError, "A setting needs a correction"),
    (NotFoundError, "Not found"),
)


def show_problem(error: MonitorError) -> None:
    """One error as a page. Its text is a sentence that says what to do."""
    heading = next(
        (name for kind, name in TITLES if isinstance(error, kind)), "The database cannot be read"
    )
    shell.title(heading)
    shell.put(
        markup.empty(
            str(error)[:2000],
            "This page stays as it is until you load it again.",
        )
    )
    st.button("Try again", key="try-again")


@contextmanager
def shown_problems() -> Iterator[None]:
    """Show what goes wrong inside as a page: users' errors in full, others as one sentence.

    Streamlit steers reruns and page switches by exceptions that do not derive from `Exception`.
    """
    try:
        yield
    except MonitorError as error:
        show_problem(error)
    except Exception:
        logger.exception("A page could not be shown")
        shell.put(
            markup.empty(
                "This page could not be shown.",
                "The dashboard's log says why. Load the page again, or go to another one.",
            )
        )
