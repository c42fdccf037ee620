"""Every page on a stored history, run without a browser; the numbers are checked in the store."""

import html
import re
from datetime import timedelta
from math import log10
from pathlib import Path
from typing import Any

import pytest

from app import data
from app.pages import PAGES
from app.text import UNKNOWN, format_error, format_share, markdown_text
from app.views import overview
from app.views.acknowledging import make_acknowledgement
from tests.app.conftest import HOSTILE_SUBJECT, PageRunner, shown_html
from tests.app.samples import HISTORY, START
from tests.store.builders import store_flips
from virnucpro_monitor.analysis.incidents import Incident, IncidentState, derive_incidents
from virnucpro_monitor.monitor import hosts
from virnucpro_monitor.records import (
    Culprit,
    HostCards,
    Outcome,
    Run,
    SequencePoint,
    SequenceResult,
    WorkHost,
)
from virnucpro_monitor.store import health_reader, reader, series_reader
from virnucpro_monitor.store.engine import open_engine


def stored_runs(url: str, **conditions: object) -> list[Run]:
    return reader.load_runs(open_engine(url, read_only=True), **conditions)  # type: ignore[arg-type]


def first_run(url: str, outcome: Outcome) -> Run:
    return next(run for run in stored_runs(url) if run.outcome is outcome)


def stored_incidents(url: str) -> list[Incident]:
    return derive_incidents(stored_runs(url), now=START)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_without_parameters_shows_something_and_no_error(
    page: str, run_page: PageRunner, sample_url: str
) -> None:
    app = run_page(page, sample_url)
    assert not app.exception
    assert app.title[0].value
    assert "could not be shown" not in shown_html(app)
    assert shown_html(app)


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_database_is_explained(page: str, run_page: PageRunner, empty_url: str) -> None:
    app = run_page(page, empty_url)
    assert not app.exception
    text = shown_html(app)
    assert "could not be shown" not in text
    assert "vm-empty" in text or "No runner has ever reported" in text


@pytest.mark.parametrize("page", PAGES)
def test_nonsense_in_the_address_is_not_an_error(
    page: str, run_page: PageRunner, sample_url: str
) -> None:
    nonsense = "<script>alert(1)</script>%00' OR 1=1 --" + "x" * 5000
    names = (
        "run", "base", "head", "target", "benchmark", "config", "sequence", "series", "last",
        "from", "to", "order", "chart", "incident", "span", "since", "until", "set", "find", "id",
        "pair", "state", "only", "sort",
    )  # fmt: skip
    app = run_page(page, sample_url, **dict.fromkeys(names, nonsense))
    assert not app.exception
    text = shown_html(app)
    assert "could not be shown" not in text
    assert "<script>" not in text


def test_the_overview_has_a_card_for_each_series_with_its_figures(
    run_page: PageRunner, sample_url: str
) -> None:
    text = shown_html(run_page("overview", sample_url))
    series = series_reader.load_series(open_engine(sample_url, read_only=True))
    assert text.count('class="vm-card"') == len(series) == 4
    for one in series:
        figures = one.latest.figures
        assert figures is not None
        assert f"{figures.num_strict} of {figures.num_sequences} sequences" in text
        assert one.latest.commit.author[:20] in html.unescape(text)
        for gate in one.latest.gates:
            assert gate.passed is not False or gate.name in text


def test_the_overview_names_the_open_incident(run_page: PageRunner, sample_url: str) -> None:
    (broken,) = [i for i in stored_incidents(sample_url) if i.fixed_by is None]
    text = shown_html(run_page("overview", sample_url))
    # The set that it broke has not been measured since, while the others were.
    assert broken.state is IncidentState.NOT_SEEN
    assert f"Incident since {broken.first_bad.commit.hash[:10]}" in text
    assert f"not measured since {broken.last_bad.commit.hash[:10]}" in text


def test_the_overview_finds_a_series_by_words(run_page: PageRunner, sample_url: str) -> None:
    text = shown_html(run_page("overview", sample_url, find="PROTEOME"))
    assert text.count('class="vm-card"') == 1
    assert "No series fits" in shown_html(run_page("overview", sample_url, find="no-such"))


def test_a_range_of_commits_keeps_both_ends(run_page: PageRunner, sample_url: str) -> None:
    runs = stored_runs(sample_url, target="sample", benchmark="proteome")
    address = {"target": "sample", "benchmark": "proteome"}
    bounds = {"from": runs[2].commit.hash[:9], "to": runs[5].commit.hash[:9]}
    app = run_page("overview", sample_url, **address, **bounds)
    assert "4 runs, " in shown_html(app)
    dates = {"from": "2026-03-01", "to": "2026-03-01"}
    app = run_page("overview", sample_url, **address, **dates)
    day = [r for r in runs if r.commit.committed_at and r.commit.committed_at.day == 1]
    assert f"{len(day)} runs, " in shown_html(app)


def test_hostile_text_is_shown_and_does_nothing(run_page: PageRunner, sample_url: str) -> None:
    (run,) = [r for r in stored_runs(sample_url) if r.commit.subject == HOSTILE_SUBJECT]
    text = shown_html(run_page("run", sample_url, run=str(run.id)))
    assert html.escape("<script>window.pwned=1</script>") in text
    for harmful in ("<script", "<img", "<b onmouseover", "\x1b", "\u202e"):
        assert harmful not in text
    assert "␛[31m" in text
    assert "⟨U+202E⟩" in text


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_run_page_says_its_outcome_and_reason(
    outcome: Outcome, run_page: PageRunner, sample_url: str
) -> None:
    run = first_run(sample_url, outcome)
    app = run_page("run", sample_url, run=str(run.id))
    assert not app.exception
    text = shown_html(app)
    assert html.escape(run.reason[:60]) in text
    assert run.commit.hash in text
    for gate in run.gates:
        assert html.escape(gate.detail[:40]) in text


def test_a_run_page_lists_its_sequences_worst_first(run_page: PageRunner, sample_url: str) -> None:
    run = first_run(sample_url, Outcome.FAILED)
    engine = open_engine(sample_url, read_only=True)
    stored = reader.load_sequences(engine, run.id or 0, order_by="similarity")
    frame = run_page("run", sample_url, run=str(run.id)).dataframe[0].value
    assert list(frame["sequence"]) == [result.sequence_id for result in stored]
    assert list(frame["similarity"]) == [result.similarity for result in stored]


def test_a_run_page_filters_failing_and_by_id(run_page: PageRunner, sample_url: str) -> None:
    run = first_run(sample_url, Outcome.FAILED)
    engine = open_engine(sample_url, read_only=True)
    failing = reader.load_sequences(engine, run.id or 0, only_failing=True)
    app = run_page("run", sample_url, run=str(run.id), only="failing")
    assert set(app.dataframe[0].value["sequence"]) == {r.sequence_id for r in failing} != set()
    app = run_page("run", sample_url, run=str(run.id), id=failing[0].sequence_id)
    assert list(app.dataframe[0].value["sequence"]) == [failing[0].sequence_id]


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.FAILED, Outcome.ERROR])
def test_each_jump_of_a_run_page_leads_to_a_part_of_it(
    outcome: Outcome, run_page: PageRunner, sample_url: str
) -> None:
    app = run_page("run", sample_url, run=str(first_run(sample_url, outcome).id))
    jumps = set(re.findall(r'href="#([^"]+)"', shown_html(app)))
    assert {"change", "measured"} <= jumps <= {header.anchor for header in app.header}


def test_an_error_run_shows_its_traceback_as_text(run_page: PageRunner, sample_url: str) -> None:
    run = first_run(sample_url, Outcome.ERROR)
    app = run_page("run", sample_url, run=str(run.id))
    assert any("Traceback (most recent call last)" in code.value for code in app.code)


def test_a_deleted_run_is_said_to_be_gone(run_page: PageRunner, sample_url: str) -> None:
    app = run_page("run", sample_url, run="987654")
    assert app.title[0].value == "Run not found"
    assert "There is no run 987654" in shown_html(app)


def compare_address(url: str) -> tuple[dict[str, str], Run, Run]:
    runs = stored_runs(url, target="sample", benchmark="proteome")
    good = next(run for run in runs if run.outcome is Outcome.PASSED)
    bad = next(run for run in runs if run.outcome is Outcome.FAILED)
    address = {"base": good.commit.hash[:8], "head": bad.commit.hash[:8], "target": "sample"}
    return address | {"benchmark": "proteome"}, good, bad


def test_a_comparison_says_that_it_broke_and_counts(run_page: PageRunner, sample_url: str) -> None:
    address, good, bad = compare_address(sample_url)
    app = run_page("compare", sample_url, **address)
    text = shown_html(app)
    assert "It broke" in text
    engine = open_engine(sample_url, read_only=True)
    before = {r.sequence_id: r for r in reader.load_sequences(engine, good.id or 0)}
    after = reader.load_sequences(engine, bad.id or 0)
    newly = sum(
        (r.similarity or 0) <= 0.999 < (before[r.sequence_id].similarity or 0) for r in after
    )
    assert newly > 0
    assert f"{newly} sequences newly bad, 0 mended" in text
    frame = app.dataframe[0].value
    assert (frame[""] == "!").sum() == newly
    assert len(frame) == len(after)


def test_a_comparison_shows_the_letters_of_both_sides(
    run_page: PageRunner, sample_url: str
) -> None:
    address, good, bad = compare_address(sample_url)
    app = run_page("compare", sample_url, **address)
    text = shown_html(app)
    engine = open_engine(sample_url, read_only=True)
    before, after = (
        {r.sequence_id: r for r in reader.load_sequences(engine, run.id or 0)}
        for run in (good, bad)
    )
    fallen = max(
        after,
        key=lambda name: (
            log10(1.0 - (after[name].similarity or 0.0))
            - log10(max(1e-12, 1.0 - (before[name].similarity or 0.0)))
        ),
    )
    (known,) = [one for one in reader.load_benchmarks(engine) if one.label == bad.benchmark_label]
    residues = next(one.residues for one in known.sequences if one.id == fallen)
    title = f"Along the residues of {markdown_text(fallen)}"
    assert title in [one.value for one in app.header]
    for role, results in (("base", before), ("head", after)):
        result = results[fallen]
        worst = result.worst_residue
        assert worst is not None
        letter = residues[worst]
        (group,) = re.findall(rf'aria-label="{role}, [^"]*">(.*?)</div>', text)
        assert re.sub("<[^>]*>", "", group) == residues[: result.length]
        error = format_error(1.0 - (result.worst_residue_similarity or 0.0))
        assert f'title="{letter}{worst + 1} {error} the worst residue"' in group


def test_a_comparison_of_changed_sequences_only(run_page: PageRunner, sample_url: str) -> None:
    address, _, _ = compare_address(sample_url)
    frame = run_page("compare", sample_url, **address, changed="yes").dataframe[0].value
    assert set(frame[""]) <= {"!", "*", "+", "-", "x"}
    assert "!" in set(frame[""])


def test_a_comparison_takes_the_followed_branch_by_name(
    run_page: PageRunner, sample_url: str
) -> None:
    address, _, _ = compare_address(sample_url)
    text = shown_html(run_page("compare", sample_url, **(address | {"head": "main"})))
    newest = stored_runs(sample_url, target="sample", benchmark="seed")[-1]
    assert newest.commit.hash[:10] in text


def test_a_comparison_takes_words_of_a_subject_or_an_author(
    run_page: PageRunner, sample_url: str
) -> None:
    address, good, bad = compare_address(sample_url)
    words = {"base": "add packed", "head": "fuse projections"}
    text = shown_html(run_page("compare", sample_url, **(address | words)))
    sides = text[text.index('aria-label="Base and head"') :]
    assert sides.index(good.commit.hash[:10]) < sides.index(bad.commit.hash[:10])
    assert "It broke" in text
    many = shown_html(run_page("compare", sample_url, **(address | {"base": "a. author"})))
    assert "commits fit the base" in many


def test_an_unknown_and_an_ambiguous_hash_are_explained(
    run_page: PageRunner, sample_url: str
) -> None:
    address, good, _ = compare_address(sample_url)
    text = shown_html(run_page("compare", sample_url, **(address | {"base": "0123456789"})))
    assert "No measured commit fits the base" in text
    # Both targets hold this commit: without a target in the address it is not clear which.
    both = {"base": good.commit.hash, "head": good.commit.hash}
    text = shown_html(run_page("compare", sample_url, **both))
    assert "2 commits fit the base" in text


def test_another_environment_is_said_first(run_page: PageRunner, sample_url: str) -> None:
    runs = stored_runs(sample_url, target="sample", benchmark="proteome")
    new = next(r for r in runs if r.environment and r.environment.torch == "2.14.0")
    address = {"base": runs[0].commit.hash, "head": new.commit.hash, "target": "sample"}
    text = shown_html(run_page("compare", sample_url, **address))
    assert text.index("environment: torch") < text.index("Agree")
    assert "2.14.0" in text


def pack_of(engine: Any, point: SequencePoint) -> list[SequenceResult]:
    return reader.load_sequences(engine, point.run.id or 0, pack=point.result.pack)


def test_a_sequence_page_counts_its_failures(run_page: PageRunner, sample_url: str) -> None:
    engine = open_engine(sample_url, read_only=True)
    points = reader.load_sequence_history(engine, "sample", "proteome@1", "proteome_059")
    failed = sum((p.result.similarity or 0) < 0.995 for p in points)
    assert failed > 0
    app = run_page(
        "sequence", sample_url, sequence="proteome_059", target="sample", benchmark="proteome"
    )
    text = shown_html(app)
    assert f"{failed} of {len(points)}" in text
    unknown = run_page("sequence", sample_url, sequence="none", benchmark="proteome")
    assert "has no sequence" in shown_html(unknown)


def test_a_sequence_page_names_the_neighbours_it_had(run_page: PageRunner, sample_url: str) -> None:
    engine = open_engine(sample_url, read_only=True)
    points = reader.load_sequence_history(engine, "sample", "proteome@1", "proteome_059")
    address = {"sequence": "proteome_059", "target": "sample", "benchmark": "proteome"}
    text = shown_html(run_page("sequence", sample_url, **address))
    table = text[text.index('aria-label="Neighbours"') :]
    bad = [place for place, p in enumerate(points) if (p.result.similarity or 0) < 0.995]
    first = next(place for place in reversed(bad) if place - 1 not in bad)
    for words, point in (
        ("latest", points[-1]),
        ("first bad", points[first]),
        ("last good", points[first - 1]),
    ):
        row = table[table.index(f">{words}<") :]
        row = row[: row.index("</tr>")]
        members = pack_of(engine, point)
        assert len(members) > 1
        assert point.run.commit.hash[:10] in row
        assert f"{(point.result.slot or 0) + 1} of {len(members)}" in row
        for member in members:
            assert member.sequence_id in row
    asked = run_page("sequence", sample_url, **address, at=str(points[0].run.id))
    assert ">chosen below<" in shown_html(asked)


def test_a_skipped_run_shows_what_it_inherits(run_page: PageRunner, sample_url: str) -> None:
    run = first_run(sample_url, Outcome.SKIPPED)
    (measured,) = stored_runs(
        sample_url,
        target=run.target,
        benchmark=run.benchmark,
        configuration=run.configuration.digest,
        commits=[run.inherited_from],
    )
    app = run_page("run", sample_url, run=str(run.id))
    assert f'href="run?run={measured.id}"' in shown_html(app)
    engine = open_engine(sample_url, read_only=True)
    stored = reader.load_sequences(engine, measured.id or 0, order_by="similarity")
    assert list(app.dataframe[0].value["sequence"]) == [r.sequence_id for r in stored] != []


def test_named_ends_count_in_the_whole_history(
    run_page: PageRunner, sample_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = stored_runs(sample_url, target="sample", benchmark="proteome")
    address = {"target": "sample", "benchmark": "proteome", "last": "50"}
    monkeypatch.setattr(overview.data, "load_branch_runs", lambda *_: tuple(runs[-2:]))
    assert "2 runs, " in shown_html(run_page("overview", sample_url, **address))
    old = {"from": runs[0].commit.hash[:9], "to": runs[2].commit.hash[:9]}
    assert "3 runs, " in shown_html(run_page("overview", sample_url, **address, **old))
    first_day = START.date()
    early = [r for r in runs if r.commit.committed_at and r.commit.committed_at.date() == first_day]
    text = shown_html(run_page("overview", sample_url, **address, to=first_day.isoformat()))
    assert f"{len(early)} runs, " in text
    assert 0 < len(early) < len(runs)


def test_incidents_are_those_of_the_rule(run_page: PageRunner, sample_url: str) -> None:
    incidents = stored_incidents(sample_url)
    text = shown_html(run_page("incidents", sample_url, state="all"))
    for incident in incidents:
        row = next(row for row in text.split("<tr") if f"incident={incident.key}" in row)
        assert incident.first_bad.commit.hash[:10] in row
        assert incident.first_bad.commit.author in row
        if incident.culprit in (Culprit.PACKED, Culprit.UNPACKED):
            assert f"{incident.culprit} side" in row
        if incident.fixed_by is not None:
            assert incident.fixed_by.commit.hash[:10] in row
    open_ones = [i for i in incidents if i.fixed_by is None]
    text = shown_html(run_page("incidents", sample_url, state="not_seen"))
    assert text.count("incidents?incident=") == len(open_ones)
    app = run_page("incidents", sample_url, incident=open_ones[0].key)
    assert "This dashboard is read-only" in shown_html(app)
    assert not app.button


def test_a_gone_incident_is_explained(run_page: PageRunner, sample_url: str) -> None:
    app = run_page("incidents", sample_url, incident="0123456789ab")
    assert app.title[0].value == "Incident not found"


def test_regressions_name_what_began_in_the_range(run_page: PageRunner, sample_url: str) -> None:
    text = shown_html(run_page("regressions", sample_url, span="all"))
    broken = [i for i in stored_incidents(sample_url) if i.fixed_by is None]
    assert f"incident={broken[0].key}" in text
    later = run_page("regressions", sample_url, span="own", since="2026-03-20")
    assert "No regression" in shown_html(later)
    wrong = run_page("regressions", sample_url, span="own", since="not a date")
    assert "is no commit of any target" in shown_html(wrong)


def test_health_counts_what_is_stored(run_page: PageRunner, sample_url: str) -> None:
    health = health_reader.load_health(open_engine(sample_url, read_only=True))
    text = shown_html(run_page("health", sample_url))
    assert f"{health.row_counts['runs']:,}" in text
    assert f"{health.row_counts['sequence_results']:,}" in text
    assert "gpu-1" in text
    assert "2 commits left in the queue" in text
    coverage = series_reader.load_coverage(open_engine(sample_url, read_only=True), "sample")
    assert format_share(coverage.num_measured, coverage.num_on_branch) in text


def test_health_says_what_a_commit_cost_on_each_machine(sample_url: str) -> None:
    engine = open_engine(sample_url, read_only=True)
    health = health_reader.load_health(engine, now=START + timedelta(days=30))
    expected: dict[tuple[str, str], list[Run]] = {}
    for run in stored_runs(sample_url):
        if run.environment is not None:
            machine = (run.environment.host, run.environment.gpu or "")
            expected.setdefault(machine, []).append(run)
    assert {(one.host, one.card) for one in health.machines} == set(expected) != set()
    for one in health.machines:
        runs = expected[one.host, one.card]
        assert one.num_runs == len(runs)
        assert one.num_commits == len({(run.target, run.commit.hash) for run in runs})
        assert one.run_s == pytest.approx(sum(run.duration_s for run in runs))
        assert one.last_at == max(run.started_at for run in runs)


def test_health_shows_cards_queue_use_and_the_cost_of_a_commit(
    run_page: PageRunner, sample_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = HostCards(card="H200", num_cards=2, utilisation=61, num_commits=7,
                     seconds_per_commit=12.5, last_at=START)  # fmt: skip
    found = (
        WorkHost(host="gpu-<1>", is_here=True, num_queued=3, cards=(card,)),
        WorkHost(host="far", is_here=False, num_queued=None, cards=(HostCards(card=""),)),
        WorkHost(host="new", is_here=False, num_queued=2, cards=()),  # nothing measured there
    )
    monkeypatch.setattr(hosts, "load_hosts", lambda engine: found)
    data.load_hosts.forget()  # type: ignore[attr-defined]
    text = shown_html(run_page("health", sample_url))
    data.load_hosts.forget()  # type: ignore[attr-defined]
    (table,) = re.findall(r'aria-label="Hosts and cards">(.*?)</table>', text)
    first, second, third = table.split("<tbody")[1].split("</tr>")[:3]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", first)
    assert [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in cells[:6]] == [
        "gpu-<1> (here)", "2 x H200", "12.5 s", "3", "61 %", "7",
    ]  # fmt: skip
    unknown = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", second)]
    assert unknown[:5] == ["far", "CPU", UNKNOWN, UNKNOWN, UNKNOWN]
    unknown = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", third)]
    assert unknown == ["new", UNKNOWN, UNKNOWN, "2", UNKNOWN, "0", "nothing measured"]


def test_benchmarks_name_digest_size_and_users(run_page: PageRunner, sample_url: str) -> None:
    text = shown_html(run_page("benchmarks", sample_url, set="proteome@1"))
    for one in reader.load_benchmarks(open_engine(sample_url, read_only=True)):
        assert one.digest[:16] in text
        residues = sum(len(s.residues) for s in one.sequences)
        assert f"{residues:,}" in text
    assert "Used by" not in text  # a heading, not HTML
    assert "target=sample&amp;benchmark=proteome" in text


def open_incident(url: str) -> Incident:
    return next(i for i in stored_incidents(url) if i.fixed_by is None)


def test_an_acknowledgement_is_made_from_the_form(sample_url: str) -> None:
    incident = open_incident(sample_url)
    note = make_acknowledgement(
        incident, who=" me ", why="known", group=True, days=7, limit="1e-2", now=START
    )
    assert (note.incident, note.who, note.scope) == (incident.key, "me", "sample")
    assert note.reopen_if_worse_than == 0.01
    assert note.expires_at is not None
    assert (note.expires_at - START).days == 7


@pytest.mark.parametrize(
    ("who", "why", "limit", "complaint"),
    [
        ("", "known", "", "who you are"),
        ("me", "  ", "", "Say why"),
        ("me", "known", "much", "not a number"),
        ("me", "known", "nan", "between 0 and 2"),
        ("me", "known", "3", "between 0 and 2"),
    ],
)
def test_a_form_filled_in_wrongly_is_refused(
    sample_url: str, who: str, why: str, limit: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_acknowledgement(
            open_incident(sample_url), who=who, why=why, group=False, days=0, limit=limit, now=START
        )


def test_the_sample_history_holds_every_kind_of_step() -> None:
    assert {step.outcome for step in HISTORY} == {"measured", "skipped", "error", "not_run"}


def test_a_verdict_that_flipped_says_so_wherever_it_stands(
    run_page: PageRunner, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'flips.db'}"
    steady = store_flips(url)
    overview_text = shown_html(run_page("overview", url))
    assert overview_text.count("flipped 2 x") == 2  # what stands in the cell, and on hover
    flipped = "The verdict flipped 2 x: the same code in this set-up gave passed, failed, passed."
    assert flipped in shown_html(run_page("run", url, run="3"))
    assert "flipped" not in shown_html(run_page("run", url, run=str(steady)))
    coverage = shown_html(run_page("health", url)).partition("Flipped</th>")[2]
    assert 'data-name="Flipped"><bdi>1</bdi>' in coverage


def test_the_numbers_beside_the_states_are_of_the_table_below(
    run_page: PageRunner, sample_url: str
) -> None:
    def states(**address: str) -> list[str]:
        page = run_page("incidents", sample_url, state="all", **address)
        (group,) = page.get("button_group")
        return list(group.options)

    incidents = stored_incidents(sample_url)
    of_other = [one for one in incidents if one.series.target == "other"]
    assert f"All ({len(incidents)})" in states()
    assert f"All ({len(of_other)})" in states(target="other")
    assert "All" in states(span="30")  # those of a range stand in the table alone


def test_what_is_not_seen_any_more_is_not_said_to_last_still(
    run_page: PageRunner, sample_url: str
) -> None:
    (unseen,) = [one for one in stored_incidents(sample_url) if one.state is IncidentState.NOT_SEEN]
    text = shown_html(run_page("incidents", sample_url, state="not_seen"))
    assert unseen.first_bad.commit.short in text
    assert "still" not in text
