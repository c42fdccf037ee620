import html
import re
from datetime import UTC, datetime

from app import markup
from app.text import zone
from tests.app.samples import sample_reports
from virnucpro_monitor.records import Outcome

HOSTILE = "<script>alert(1)</script>\" onmouseover='x' & \u202e"


def test_plain_values_are_escaped_wherever_they_go() -> None:
    columns = [markup.Column(name=HOSTILE, help=HOSTILE)]
    pieces = [
        markup.table(columns, [[HOSTILE]], caption=HOSTILE),
        markup.facts([(HOSTILE, HOSTILE)]),
        markup.tiles([(HOSTILE, HOSTILE, HOSTILE)]),
        markup.banner(HOSTILE, HOSTILE, colour="#000000"),
        markup.anchor("run?run=1", HOSTILE, title=HOSTILE),
        markup.empty(HOSTILE, HOSTILE),
        markup.note(HOSTILE),
        markup.commit_label(HOSTILE, HOSTILE),
    ]
    for piece in pieces:
        assert "<script" not in piece.code
        assert "onmouseover='" not in piece.code
        assert "\u202e" not in piece.code
        assert "&lt;script&gt;" in piece.code


def test_ids_in_a_sentence_are_set_as_code_and_nothing_else_is() -> None:
    code = markup.with_ids(
        f"the lowest is tiny (short.1), tiny. Not tinyer {HOSTILE}", {"tiny", "short.1"}
    )
    assert re.findall(r'<span class="mono"><bdi>(.*?)</bdi></span>', code.code) == [
        "tiny", "short.1", "tiny",
    ]  # fmt: skip
    plain = html.unescape(re.sub("<[^>]*>", "", code.code))
    assert plain.startswith("the lowest is tiny (short.1), tiny. Not tinyer <script>")
    assert "<script" not in code.code


def test_an_address_cannot_leave_its_attribute() -> None:
    assert '"x' not in markup.anchor('run?"x', "text").code.replace('href="', "")


def test_a_skipped_run_names_what_it_inherits() -> None:
    run = next(r.run for r in sample_reports() if r.run.outcome is Outcome.SKIPPED)
    assert "skipped (passed)" in markup.outcome_label(run).code


def test_a_time_is_the_readers_with_utc_on_hover() -> None:
    moment = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    code = markup.when(moment, zone("America/New_York")).code
    assert "2026-11-24 07:00" in code
    assert 'title="2026-11-24 12:00:00 UTC"' in code
    assert 'datetime="2026-11-24T12:00:00+00:00"' in code


def test_an_outside_link_keeps_the_app_to_itself() -> None:
    code = markup.anchor("https://example.org", "x", outside=True).code
    assert 'target="_blank"' in code
    assert 'rel="noopener noreferrer"' in code


def test_each_cell_names_its_column_for_narrow_screens() -> None:
    columns = [markup.Column(name="Gate"), markup.Column(name="Limit", kind="num")]
    code = markup.table(columns, [["leak", "0"]], caption="Gates").code
    assert '<td role="cell" class="num" data-name="Limit"><bdi>0</bdi></td>' in code
    for role, number in (("table", 1), ("row", 2), ("columnheader", 2), ("cell", 2)):
        assert code.count(f'role="{role}"') == number


def test_a_column_without_a_name_has_one_for_readers_of_screens() -> None:
    columns = [markup.Column(name="", spoken="Compare"), markup.Column(name="Limit")]
    code = markup.table(columns, [["compare", "0"]], caption="Runs").code
    heads = re.findall(r"<th scope[^>]*>(.*?)</th>", code)
    assert heads == ['<span class="sr">Compare</span>', "Limit"]
