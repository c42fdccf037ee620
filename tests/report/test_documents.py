"""Markdown, CSV, HTML and JUnit of one comparison or run."""

import csv
import io
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.analysis.histories import gate, history, run, sequences
from tests.report.samples import HOSTILE, hostile_comparison, hostile_run, plain_comparison
from virnucpro_monitor.analysis.comparison import compare_runs
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Failure
from virnucpro_monitor.report.export import format_comparisons, format_run, write_report
from virnucpro_monitor.report.junit import run_junit
from virnucpro_monitor.report.markdown import comparison_markdown, run_markdown
from virnucpro_monitor.report.page import comparisons_html
from virnucpro_monitor.report.tabular import COLUMNS, comparisons_csv
from virnucpro_monitor.report.text import html_text, markdown

FAILURE = Failure(
    kind="import", message="No module", traceback=f"Traceback\n```\n{HOSTILE}", log=""
)


class Page(HTMLParser):
    """Collects tags, attributes and text; an HTML parser's view of what would happen."""

    VOID = ("meta", "br", "line", "path", "circle")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_one_file_without_scripts_or_addresses() -> None:
    text = comparisons_html([plain_comparison()])
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "a", "base"} & set(page.tags)
    assert not re.search(r"(https?:)?//|url\(|@import", text)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]
    assert "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in text


def test_html_shows_the_figures_and_a_point_for_each_sequence() -> None:
    page = Page(comparisons_html([plain_comparison()]))
    assert "4 of 5 (80 %)" in page.text
    assert page.tags.count("circle") == 1  # d is unchanged
    assert page.tags.count("path") == 4
    for text in ("1.0e-2", "agrees → fails", "mended"):
        assert text in page.text


def test_hostile_text_stays_text_in_html() -> None:
    text = comparisons_html([hostile_comparison()])
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert "<script>alert(1)</script>" in page.text  # shown, letter by letter
    assert html_text(HOSTILE) in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_a_page_needs_a_comparison() -> None:
    with pytest.raises(ValueError, match="no comparison"):
        comparisons_html([])


def test_an_incomparable_pair_is_said_first_in_each_format() -> None:
    comparison = compare_runs(
        run(0), sequences({"a": 0.9}), run(1, protocol_digest="aa" * 32), sequences({"a": 0.9})
    )
    for text in (comparison_markdown(comparison), comparisons_html([comparison])):
        assert text.index("Not comparable:") < text.index("Agree")
    assert next(csv.DictReader(io.StringIO(comparisons_csv([comparison]))))["comparable"] == "no"


def test_markdown_tables_keep_their_columns_whatever_they_hold() -> None:
    for text in (
        comparison_markdown(hostile_comparison()),
        run_markdown(hostile_run(1), sequences({HOSTILE: 0.5, "b": None}), failure=FAILURE),
    ):
        assert "<script" not in text.replace("\\<script", "").split("text\n")[0]
        width = None
        for line in text.splitlines():
            bars = len(re.findall(r"(?<!\\)\|", line))
            if not line.startswith("|"):
                width = None
                continue
            width = width or bars
            assert bars == width, line


def test_markdown_of_a_comparison() -> None:
    text = comparison_markdown(plain_comparison())
    assert "| `!` | a | 100 | 1.0e-6 | 1.0e-2 | agrees | fails |" in text
    assert "| `*` | c | 100 | 1.0e-1 | 1.0e-5 | fails | agrees |" in text
    assert "| `+` | b |" in text
    assert "| `-` | e |" in text
    assert "| d |" not in text
    assert "- `=` 1 exactly equal" in text


def test_markdown_of_a_run_has_its_verdict_gates_and_failure() -> None:
    failed = run(1, "F", gates=(gate("seed", False, 0.01), gate("leak", None, None)))
    text = run_markdown(failed, sequences({"a": 0.5, "b": 0.9999}))
    assert "Failed: A reason for failed." in text
    assert "| seed | **failed** | 0.01 relative L2 |" in text
    assert "| leak | not judged |" in text
    assert text.index("| a | 100 | ok | 5.0e-1 |") < text.index("| b | 100 | ok |")
    assert "virnucpro-monitor run" in text
    broken = run_markdown(run(1, "E"), failure=FAILURE)
    assert "````text\nTraceback\n```" in broken
    assert "No module" in broken


def test_csv_has_a_line_for_each_sequence_of_either_run_in_full_precision() -> None:
    comparison = hostile_comparison()
    rows = list(csv.DictReader(io.StringIO(comparisons_csv([comparison]))))
    assert len(rows) == comparison.num_all
    assert tuple(rows[0]) == COLUMNS
    by_mark = {row["sequence_id"]: row for row in rows}
    assert by_mark["steady"]["mark"] == "equal"
    assert float(by_mark["steady"]["base_error"]) == comparison.sequences[0].base_error
    assert by_mark["'=new"]["mark"] == "not_comparable"
    assert by_mark["'=new"]["head_similarity"] == ""
    worse = list(csv.DictReader(io.StringIO(comparisons_csv([plain_comparison()]))))
    assert [row["mark"] for row in worse] == [
        "newly_failing",
        "worse",
        "newly_fixed",
        "equal",
        "better",
    ]


def test_junit_counts_gates_and_sequences() -> None:
    failed = run(1, "F", gates=(gate("seed", False), gate("gain"), gate("leak", None)))
    suite = ET.fromstring(run_junit(failed, sequences({"a": 0.9, "b": 0.9999, "c": None})))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "7",
        "failures": "4",
        "errors": "0",
        "skipped": "1",
    }
    message = suite.find("testcase[@name='a']/failure")
    assert message is not None
    assert message.get("message") == "similarity 0.9 is below 0.995 (1 - cos 1.0e-1)"
    assert suite.find("testcase[@name='b']/failure") is None


@pytest.mark.parametrize(
    ("letter", "tag"),
    [("P", None), ("F", "failure"), ("f", "failure"), ("E", "error"), ("N", "skipped"),
     ("p", "skipped")],
)  # fmt: skip
def test_junit_never_passes_what_was_not_measured(letter: str, tag: str | None) -> None:
    suite = ET.fromstring(run_junit(run(1, letter)))
    verdict = suite.find("testcase[@name='verdict']")
    assert verdict is not None
    assert [child.tag for child in verdict] == ([tag] if tag else [])


def test_junit_holds_what_xml_cannot() -> None:
    text = run_junit(
        hostile_run(1, "E"),
        sequences({HOSTILE + "\x00\ufffe": None}),
        failure=Failure(kind="a\x00b", message="", traceback="\x00\ud800 <x>]]>", log=""),
    )
    suite = ET.fromstring(text.encode())
    error = suite.find("testcase/error")
    assert error is not None
    assert error.get("type") == "a�b"
    assert error.text is not None
    assert "<x>]]>" in error.text


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".md", "## "), (".csv", "base_commit,"), (".html", "<!DOCTYPE html>")],
)
def test_the_ending_chooses_a_comparisons_format(suffix: str, start: str) -> None:
    assert format_comparisons([plain_comparison()], suffix).startswith(start)


@pytest.mark.parametrize(("suffix", "start"), [(".md", "## "), (".xml", "<?xml")])
def test_the_ending_chooses_a_runs_format(suffix: str, start: str) -> None:
    assert format_run(run(1, "F"), sequences({"a": 0.5}), suffix).startswith(start)


def test_an_unknown_format_and_an_unwritable_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"end in \.md, \.csv, \.html"):
        format_comparisons([plain_comparison()], ".pdf")
    with pytest.raises(ConfigurationError, match=r"end in \.md, \.xml"):
        format_run(run(1), [], "")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_report(tmp_path / "missing" / "a.md", "text")


def test_a_report_keeps_its_line_ends(tmp_path: Path) -> None:
    write_report(tmp_path / "a.csv", comparisons_csv([plain_comparison()]))
    assert (tmp_path / "a.csv").read_bytes().count(b"\r\n") == 6


def test_every_outcome_can_be_reported() -> None:
    for one in history("PFENpf"):
        assert markdown(one.target) in run_markdown(one)
        ET.fromstring(run_junit(one))
