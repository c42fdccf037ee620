"""The reader's choices live in the address: a view can be sent to a colleague, and back works.

Values from an address are plain strings, looked up among the allowed ones; anything else counts as
not given.
"""

import re
from collections.abc import Mapping
from typing import Literal, TypeVar

import streamlit as st

MAX_PARAMETER_CHARACTERS = 400
_HEX = re.compile(r"[0-9a-fA-F]{4,64}")

_Key = TypeVar("_Key", bound=str)


def parameter(name: str) -> str:
    """One value of the address, without surrounding space; empty where it is not given."""
    return st.query_params.get(name, "").strip()[:MAX_PARAMETER_CHARACTERS]


def number_parameter(name: str) -> int | None:
    """A positive whole number of the address; None where there is none or it is something else."""
    text = parameter(name)
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def set_parameter(name: str, value: str | None) -> None:
    if value:
        st.query_params[name] = value
    else:
        st.query_params.pop(name, None)


def _bound(name: str, value: object, default: object) -> str:
    """Give the widget of `name` the address's value, and return its key.

    The address is the truth. Streamlit's own `bind` writes labels instead of values into it.
    """
    key = f"filter-{name}"
    if st.session_state.get(key, default) != value or key not in st.session_state:
        st.session_state[key] = value
    return key


def _write_back(name: str, default: object) -> None:
    value = st.session_state.get(f"filter-{name}")
    if isinstance(value, bool):
        value = "yes" if value else ""
    set_parameter(name, None if value in (None, default) else str(value))


def choose(
    label: str,
    options: Mapping[_Key, str],
    name: str,
    *,
    default: _Key,
    style: Literal["list", "row"] = "list",
    width: int | Literal["stretch"] = "stretch",
    label_visible: bool = True,
) -> _Key:
    """One of `options` (value: label), kept in the address under `name`."""
    wanted = parameter(name)
    value = next((option for option in options if option == wanted), default)
    key = _bound(name, value, default)
    visibility: Literal["visible", "collapsed"] = "visible" if label_visible else "collapsed"
    if style == "row":
        chosen = st.segmented_control(
            label,
            list(options),
            key=key,
            format_func=lambda option: options[option],
            required=True,
            on_change=_write_back,
            args=(name, default),
            label_visibility=visibility,
        )
    else:
        chosen = st.selectbox(
            label,
            list(options),
            key=key,
            format_func=lambda option: options[option],
            on_change=_write_back,
            args=(name, default),
            label_visibility=visibility,
            width=width,
        )
    return chosen if chosen is not None else default


def search(
    label: str,
    name: str,
    *,
    placeholder: str = "",
    width: int | Literal["stretch"] = "stretch",
    help: str | None = None,
) -> str:
    """A text of the reader's, kept in the address under `name`."""
    key = _bound(name, parameter(name), "")
    text = st.text_input(
        label,
        key=key,
        placeholder=placeholder,
        max_chars=MAX_PARAMETER_CHARACTERS,
        on_change=_write_back,
        args=(name, ""),
        width=width,
        help=help,
    )
    return (text or "").strip()


def switch(label: str, name: str) -> bool:
    """An on-off choice, off by default, kept in the address as `name=yes`."""
    key = _bound(name, parameter(name) == "yes", False)
    return st.toggle(label, key=key, on_change=_write_back, args=(name, False))


def pick(label: str, options: Mapping[str, str], name: str, *, placeholder: str = "") -> str:
    """One of many `options` (value: label), found by typing a part of its label.

    Other text may be typed too; it stands as it is. Kept in the address under `name`.
    """
    wanted = parameter(name)
    # A short hash in the address shows as the commit that it is.
    fitting = [option for option in options if wanted and option.startswith(wanted)]
    value = fitting[0] if len(fitting) == 1 else wanted or None
    known = dict(options) if value is None or value in options else {value: value, **options}
    key = _bound(name, value, None)
    chosen = st.selectbox(
        label,
        list(known),
        key=key,
        format_func=lambda option: known.get(option, option),
        index=None,
        placeholder=placeholder,
        accept_new_options=True,
        on_change=_write_back,
        args=(name, None),
    )
    return wanted if chosen is None or chosen == value else str(chosen).strip()
