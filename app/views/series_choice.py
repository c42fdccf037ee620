"""One series: its choice by the address and its name, shared by the pages that show one."""

from collections.abc import Sequence

import streamlit as st

from app import data, filters, links
from app.text import one_line
from virnucpro_monitor.records import Run
from virnucpro_monitor.report.words import setup_words


def find_series(cards: Sequence[data.SeriesCard]) -> data.SeriesCard | None:
    """The series that `target`, `benchmark` and `config` of the address name, if any."""
    target, benchmark = filters.parameter("target"), filters.parameter("benchmark")
    config = filters.parameter("config")
    if not target and not benchmark and not config:
        return None
    return next(
        (
            card
            for card in cards
            if target in ("", card.key.target)
            and benchmark in ("", card.key.benchmark, card.key.benchmark_label)
            and any(digest.startswith(config) for digest in card.configurations)
        ),
        None,
    )


def choose_series(cards: Sequence[data.SeriesCard]) -> data.SeriesCard:
    """Let the reader choose a series; the address's one, or else the first, stands chosen."""
    default = find_series(cards) or cards[0]
    if len(cards) == 1:
        return default
    options = {series_code(card): card for card in cards}
    labels = {
        code: f"{one_line(card.key.target, 60)} · {card.key.benchmark_label} · {card.label}"
        for code, card in options.items()
    }
    chosen = options[filters.choose("Series", labels, "series", default=series_code(default))]
    if filters.parameter("series"):
        # The three names say the same on every page, and the menu's links carry them.
        for name, value in links.series_parameters(chosen.latest).items():
            filters.set_parameter(name, value)
        filters.set_parameter("series", None)
        st.rerun()
    return chosen


def series_code(card: data.SeriesCard) -> str:
    key = card.key
    configuration = key.configuration[: links.CONFIGURATION_CHARACTERS]
    return f"{key.target}~{key.benchmark_label}~{configuration}"


def series_words(run: Run) -> str:
    """A run's series, told apart from every other one of its target."""
    configuration = run.configuration
    return (
        f"{one_line(run.target, 60)} · {one_line(run.benchmark, 40)} · "
        f"{configuration.model} {setup_words(configuration)}"
    )
