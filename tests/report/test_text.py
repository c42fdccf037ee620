import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_monitor.report.text import (
    block,
    csv_text,
    format_error,
    format_share,
    format_value,
    html_text,
    markdown,
    markdown_block,
    one_line,
    visible,
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (0.0, "0"),
        (4.6e-3, "4.6e-3"),
        (1.0, "1.0e0"),
        (2.4e-13, "2.4e-13"),
        (float("nan"), "not finite"),
    ],
)
def test_errors_have_two_digits_and_only_zero_reads_as_zero(error: float | None, text: str) -> None:
    assert format_error(error) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (0.0, "0"),
        (1.0, "1"),
        (1 - 2.4e-13, "1 - 2.4e-13"),
        (0.9927, "0.9927"),
        (3e-7, "3.0e-7"),
        (-3e-7, "-3.0e-7"),
        (11.0, "11"),
    ],
)
def test_a_value_near_one_does_not_read_as_one(value: float | None, text: str) -> None:
    assert format_value(value) == text


def test_a_value_carries_its_unit() -> None:
    assert format_value(0.5, "cosine") == "0.5 cosine"


def test_only_all_of_them_is_100_percent() -> None:
    assert format_share(9999, 10000) == "9,999 of 10,000 (99.9 %)"
    assert format_share(3, 3) == "3 of 3 (100 %)"
    assert format_share(0, 0) == "0 of 0"


def test_control_and_direction_characters_are_shown() -> None:
    assert visible("\x1b[31mred\x07") == "␛[31mred␇"
    assert visible("\u202eevil") == "⟨U+202E⟩evil"
    assert visible("line\n\ttab") == "line\n\ttab"
    assert one_line("a\n  b\tc") == "a b c"


def test_long_text_is_cut_and_a_very_long_ones_length_is_said() -> None:
    assert one_line("x" * 12, limit=10) == "x" * 10 + "…"
    assert one_line("x" * 1_000_000, limit=10) == "x" * 10 + "… (1,000,000 characters)"
    assert block("a" * 50 + "end", limit=5).endswith("\naaend")


def test_markdown_stays_one_harmless_cell() -> None:
    assert markdown("a|b `c` <b> [x](http://y)") == ("a\\|b \\`c\\` \\<b\\> \\[x\\](http\\://y)")
    assert markdown("- item") == "\\- item"
    assert markdown("a - b: c") == "a - b: c"
    assert "\n" not in markdown("a\n\n# heading")


def test_a_fence_is_longer_than_any_inside() -> None:
    text = markdown_block("before\n````\nafter")
    assert text.splitlines()[0] == "`````text"
    assert text.splitlines()[-1] == "`````"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1"])
def test_a_spreadsheet_computes_nothing(text: str) -> None:
    assert csv_text(text).startswith("'")


@given(st.text())
def test_no_text_leaves_html_or_a_table_cell(text: str) -> None:
    assert not set("<>\"'") & set(html_text(text))
    shown = markdown(text)
    assert "\n" not in shown
    assert "\r" not in shown
    assert "|" not in shown.replace("\\|", "")
