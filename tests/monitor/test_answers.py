"""What the questions answer, whole: each field and each sentence, from rows that are stored."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.monitor.stored import BAD, NARROW, OTHER, keep
from tests.store.builders import (
    BENCHMARK,
    CONFIGURATION,
    CONTENT,
    PROTOCOL,
    START,
    TARGET,
    make_commit,
    make_report,
)
from virnucpro_monitor.analysis.comparison import Thresholds
from virnucpro_monitor.analysis.series import series_key
from virnucpro_monitor.errors import (
    AmbiguousRevision,
    ConfigurationError,
    MonitorError,
    NotFoundError,
)
from virnucpro_monitor.monitor import acknowledging, comparing, naming, questions, reading
from virnucpro_monitor.monitor.branches import EVERY_BRANCH, load_branches
from virnucpro_monitor.monitor.databases import examine_database
from virnucpro_monitor.monitor.verifying import contradictions, find_unfounded
from virnucpro_monitor.records import (
    Acknowledgement,
    Bisection,
    BisectStep,
    Finding,
    RunReport,
)
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.writer import Writer

NOW = datetime(2026, 5, 1, 10, tzinfo=UTC)
EAST = timezone(timedelta(hours=3))
SECOND = replace(BENCHMARK, name="second", digest="c" * 64)


def refusal(kind: type[MonitorError], act: object, *arguments: object, **options: object) -> str:
    with pytest.raises(kind) as caught:
        act(*arguments, **options)  # type: ignore[operator]
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", NOW - timedelta(days=30)),
        ("2w", NOW - timedelta(days=14)),
        ("1y", NOW - timedelta(days=365)),
        ("2026-04-02", datetime(2026, 4, 1, 21, tzinfo=UTC)),
        ("2026-04-02 05:30", datetime(2026, 4, 2, 2, 30, tzinfo=UTC)),
        ("2026-04-02T05:30+01:00", datetime(2026, 4, 2, 4, 30, tzinfo=UTC)),
        ("main", None),
        ("3m", None),
    ],
)
def test_a_moment_is_a_date_or_an_age(text: str, expected: datetime | None) -> None:
    found = naming.parse_moment(text, NOW, EAST)
    assert found == expected
    assert found is None or found.tzinfo is UTC


def test_a_date_without_a_zone_is_utc_and_one_that_is_none_is_told() -> None:
    assert naming.parse_moment("2026-04-02", NOW) == datetime(2026, 4, 2, tzinfo=UTC)
    assert refusal(ConfigurationError, naming.parse_moment, "2026-13-02", NOW) == (
        "'2026-13-02' is not a date: write 2026-11-24."
    )


def test_a_bound_is_a_moment_or_a_commit(engine: Engine) -> None:
    keep(engine, make_report(0), make_report(1), make_report(0, target=OTHER))
    bound = naming.find_bound
    assert bound(engine, None, None, NOW) == (None, None)
    day = datetime(2026, 4, 1, 21, tzinfo=UTC)
    assert bound(engine, "2026-04-02", None, NOW, zone=EAST) == (day, None)
    last = day + timedelta(days=1) - timedelta(microseconds=1)
    assert bound(engine, "2026-04-02", None, NOW, is_end=True, zone=EAST) == (last, None)
    noon = datetime(2026, 4, 2, 12, tzinfo=UTC)
    assert bound(engine, "2026-04-02 12:00", None, NOW, is_end=True) == (noon, None)
    assert bound(engine, "2d", None, NOW, is_end=True) == (NOW - timedelta(days=2), None)
    assert bound(engine, make_commit(1).hash, None, NOW) == (make_commit(1), "sample")
    assert bound(engine, make_commit(0).hash, "other", NOW) == (make_commit(0), "other")


def test_which_target_is_meant(engine: Engine) -> None:
    choose = naming.choose_target
    assert refusal(NotFoundError, choose, engine, None) == (
        "Nothing is stored yet: virnucpro-monitor run fills the database."
    )
    assert refusal(NotFoundError, choose, engine, "x") == (
        "There is no target 'x' in the database; known: none."
    )
    Writer(engine).save_target(TARGET)
    assert choose(engine, None) == TARGET
    keep(engine, make_report(0), make_report(0, target=OTHER), make_report(1))
    for word in ("other", OTHER.location):
        assert choose(engine, word) == OTHER
    assert choose(engine, None, revision=make_commit(1).hash) == TARGET
    assert refusal(NotFoundError, choose, engine, "x") == (
        "There is no target 'x' in the database; known: other, sample."
    )
    for options in ({}, {"revision": make_commit(0).hash}):
        assert refusal(ConfigurationError, choose, engine, None, **options) == (
            "Several targets are stored: choose by --target (other, sample)."
        )
    assert refusal(NotFoundError, choose, engine, None, revision="nosuch") == (
        "'nosuch' is no commit of any target in the database: give a hash, a branch or a tag of "
        "other, sample."
    )


def test_a_commit_by_its_digits_or_its_branch(engine: Engine) -> None:
    keep(engine, make_report(16), make_report(17), make_report(17, target=OTHER))
    assert naming.find_commit(engine, " main ", TARGET) == make_commit(17)
    assert naming.find_commit(engine, "0010", TARGET) == make_commit(16)
    assert [one.target for one in naming.find_commits(engine, "0011")] == ["other", "sample"]
    assert [one.target for one in naming.find_commits(engine, make_commit(17).hash)] == [
        "other", "sample",
    ]  # fmt: skip
    assert [one.target for one in naming.find_commits(engine, "0011", "other")] == ["other"]
    assert refusal(AmbiguousRevision, naming.find_commit, engine, "001", TARGET) == (
        "'001' fits 2 commits of sample: give more digits "
        "(0010000000 Change number 16; 0011000000 Change number 17)."
    )
    assert refusal(NotFoundError, naming.find_commit, engine, "trunk", TARGET) == (
        "'trunk' is no commit of sample in the database, and no branch or tag of its repository."
    )


def test_a_run_by_its_number_or_its_commit(engine: Engine) -> None:
    late = make_report(0, benchmark=SECOND, started_at=START + timedelta(days=9))
    first, second, _ = keep(engine, make_report(0), late, make_report(1))
    run, others = naming.find_run(engine, str(second))
    assert (run.id, others) == (second, [])
    run, others = naming.find_run(engine, make_commit(0).hash[:6])
    assert (run.id, [one.id for one in others]) == (second, [first])
    run, others = naming.find_run(engine, make_commit(0).hash, benchmark="seed")
    assert (run.id, others) == (first, [])
    assert "999" in refusal(NotFoundError, naming.find_run, engine, "999")
    Writer(engine).save_commits("sample", [make_commit(7)])
    assert refusal(NotFoundError, naming.find_run, engine, make_commit(7).hash) == (
        "Commit 0007000000 of sample has no stored run."
    )


def test_branches_to_choose_from(engine: Engine) -> None:
    off = make_commit(2, on_branch=False, position=None)
    keep(
        engine,
        make_report(0),
        make_report(0, commit=off, documents={"branches": ["fix", "old"]}),
        make_report(0, target=replace(OTHER, branch=None)),
    )
    assert load_branches(engine, "sample") == {
        "": "main", "fix": "fix", "old": "old", EVERY_BRANCH: "All commits",
    }  # fmt: skip
    assert load_branches(engine, "other") == {"": "Followed branch", EVERY_BRANCH: "All commits"}
    assert load_branches(engine, "nosuch") == {}


def test_what_is_read_as_it_is_stored(engine: Engine) -> None:
    report = make_report(0, BAD)
    ids = keep(engine, report, make_report(0, target=OTHER), make_report(0, configuration=NARROW))
    runs = reading.runs_of_commit(engine, "sample", make_commit(0).hash)
    assert {key: run.id for key, run in runs.items()} == {
        series_key(report.run): ids[0],
        series_key(replace(report.run, configuration=NARROW)): ids[2],
    }
    run = runs[series_key(report.run)]
    ask = reading.load_sequences

    def names(**options: object) -> list[str]:
        return [one.sequence_id for one in ask(engine, run, **options)]  # type: ignore[arg-type]

    assert names() == ["short_1", "short_2", "short_3"]
    assert names(order="worst") == ["short_1", "short_3", "short_2"]
    assert names(order="length", limit=2) == ["short_2", "short_1"]
    assert names(search="_3") == ["short_3"]
    assert names(only_failing=True) == ["short_1"]
    assert reading.load_protocol_thresholds(engine, PROTOCOL.digest) == Thresholds.of_protocol(
        CONTENT
    )
    assert reading.load_story(engine, "nosuch", "0" * 40) is None
    finding = Finding(signatures=("scale",), text="too large")
    good = runs[series_key(replace(report.run, configuration=NARROW))]
    assert reading.finding_of(run, run, {ids[0]: finding}) is finding
    assert reading.finding_of(run, good, {ids[0]: finding}) is None
    assert reading.finding_of(good, run, {ids[0]: finding}) is None
    assert [one.commit.position for one in reading.load_history(engine)] == [0, 0, 0]
    assert reading.commits_on_branch(engine, "sample") == [make_commit(0)]


def test_the_noise_that_counts_is_a_healthy_runs(engine: Engine) -> None:
    loud, quiet = ({"reordered": value} for value in (3e-5, 0.0))
    keep(
        engine,
        make_report(0, BAD, documents={"noise": {"reordered": 0.5}}),
        make_report(1, documents={"noise": loud}),
        make_report(2, BAD, documents={"noise": {"reordered": 0.5}}),
        make_report(0, configuration=NARROW, documents={"noise": quiet}),
    )
    runs = {(run.commit.position, run.configuration): run for run in reading.load_history(engine)}
    floor = pytest.approx(3e-5**2 / 2)
    assert questions.load_noise(engine, runs[1, CONFIGURATION]) == floor
    assert questions.load_noise(engine, runs[2, CONFIGURATION]) == floor
    assert questions.load_noise(engine, runs[0, CONFIGURATION]) is None
    assert questions.load_noise(engine, runs[0, NARROW]) is None


def test_regressions_of_the_target_whose_commit_is_named(engine: Engine) -> None:
    keep(
        engine,
        *(make_report(n) for n in range(2)), make_report(2, BAD),
        *(make_report(n, target=OTHER, commit=make_commit(n + 20)) for n in range(2)),
        make_report(2, BAD, target=OTHER, commit=make_commit(22)),
    )  # fmt: skip

    def broken(**options: str) -> list[tuple[str, str]]:
        found = questions.load_regressions(engine, **options)
        return [(one.first_bad.target, one.first_bad.commit.short) for one in found.broken]

    ours, theirs = ("sample", make_commit(2).short), ("other", make_commit(22).short)
    assert broken() == [ours, theirs]
    assert broken(since=make_commit(1).hash) == [ours]
    assert broken(until=make_commit(22).hash) == [theirs]
    assert broken(target="other") == [theirs]
    assert broken(target="other", benchmark="seed@1") == [theirs]
    assert broken(benchmark="second") == []
    assert broken(since=make_commit(2).hash) == []


def test_searches_are_found_by_number_and_by_incident(engine: Engine) -> None:
    run_id, *_ = keep(engine, make_report(0), make_report(1, BAD), make_report(1, target=OTHER))
    first = make_commit(1).hash
    for target, bad, at in (
        ("sample", first, 3), ("other", first, 3), ("sample", "e" * 40, 1), ("sample", "d" * 40, 1),
    ):  # fmt: skip
        number = Writer(engine).start_bisection(
            Bisection(
                target=target, good="f" * 40, bad=bad, benchmark="seed@1",
                started_at=START + timedelta(days=at),
            )
        )  # fmt: skip
    step = BisectStep(step=0, commit=first, run_id=run_id, verdict="bad", reused=True, at=START)
    Writer(engine).save_bisect_step(number, step)
    found = questions.load_bisections(engine)
    assert [one.id for one in found] == [3, 4, 1, 2]
    assert [one.id for one in questions.load_bisections(engine, "other")] == [2]
    assert questions.find_bisection(engine, 2) == found[3]
    assert refusal(NotFoundError, questions.find_bisection, engine, 9) == (
        "There is no bisection 9: `bisections list` shows the numbers."
    )
    (incident,) = questions.load_incidents(engine)
    assert [one.id for one in questions.searches_of(found, incident)] == [4, 1]


def test_an_incident_by_the_digits_of_its_key(engine: Engine) -> None:
    keep(engine, make_report(0), make_report(1, BAD))
    keep(engine, *(replace_set(one) for one in (make_report(0), make_report(1, BAD))))
    both = questions.load_incidents(engine)
    assert [one.first_bad.benchmark for one in both] == ["seed", "second"]
    assert questions.load_incidents(engine, benchmark="second@1") == both[1:]
    assert questions.load_incidents(engine, target="other") == ()
    assert questions.find_incident(engine, both[0].key.upper()) == both[0]
    for key in ("", "nosuch"):
        assert refusal(NotFoundError, questions.find_incident, engine, key) == (
            f"There is no incident {key!r}: `incidents list` shows the keys."
        )


def replace_set(report: RunReport) -> RunReport:
    run = replace(report.run, benchmark=SECOND.name, benchmark_digest=SECOND.digest)
    return replace(report, run=run, benchmark=SECOND)


def test_an_acknowledgement_that_says_too_little_is_refused(engine: Engine) -> None:
    keep(engine, make_report(0), make_report(1, BAD))
    (incident,) = questions.load_incidents(engine)
    note = Acknowledgement(incident=incident.key, who="A", why="known", created_at=NOW)
    past = NOW - timedelta(minutes=1)
    for change, sentence in (
        ({"why": " "}, "--why is empty: say what is known about the incident."),
        ({"who": " "}, "Nobody is named: an acknowledgement is somebody's."),
        ({"expires_at": past.replace(tzinfo=None)},
         "2026-05-01 09:59:00 has no time zone: give one, such as UTC."),
        ({"expires_at": past}, "2026-05-01 09:59 lies in the past."),
        ({"expires_at": NOW}, "2026-05-01 10:00 lies in the past."),
    ):  # fmt: skip
        told = refusal(
            ConfigurationError, acknowledging.acknowledge, engine, replace(note, **change)
        )
        assert told == sentence
    assert refusal(NotFoundError, acknowledging.reopen, engine, incident.key, who="B") == (
        f"Incident {incident.key} is not acknowledged."
    )
    known = acknowledging.acknowledge(engine, replace(note, incident=incident.key[:6]))
    assert known.acknowledgement == replace(note, id=1)
    again, given = acknowledging.reopen(engine, incident.key, who="B")
    assert given == replace(note, id=1)
    assert again.acknowledgement is not None
    assert again.acknowledgement.withdrawn_by == "B"
    keep(engine, make_report(2))
    assert refusal(ConfigurationError, acknowledging.acknowledge, engine, note) == (
        f"Incident {incident.key} was fixed by 0002000000: there is nothing left to acknowledge."
    )


def test_an_incident_whose_commits_have_left_takes_no_acknowledgement(engine: Engine) -> None:
    keep(engine, make_report(0), make_report(1, BAD))
    Writer(engine).save_commits("sample", [make_commit(0)], whole_history=True)
    (left,) = questions.load_incidents(engine)
    note = Acknowledgement(incident=left.key, who="A", why="known", created_at=NOW)
    assert refusal(ConfigurationError, acknowledging.acknowledge, engine, note) == (
        f"The commits of incident {left.key} have left the branch: there is nothing left to "
        "acknowledge."
    )


def test_what_is_worth_comparing(engine: Engine) -> None:
    keep(
        engine,
        make_report(0), make_report(1, BAD), make_report(2, BAD),
        make_report(0, BAD, configuration=NARROW), make_report(1, BAD, configuration=NARROW),
        make_report(0, benchmark=SECOND),
    )  # fmt: skip
    pairs = [
        (base.configuration.token_budget, base.commit.position, head.commit.position)
        for base, head in comparing.suggest_pairs(engine)
    ]
    assert sorted(pairs) == [(512, 0, 1), (4096, 0, 2)]
    assert refusal(NotFoundError, comparing.compare_commits, engine, benchmark="second") == (
        "sample has no two measured commits to compare: name them, or measure more."
    )
    Writer(engine).save_target(OTHER)
    assert refusal(NotFoundError, comparing.newest_commit, engine, OTHER) == (
        "No commit of other has a stored run."
    )
    assert comparing.newest_commit(engine, TARGET) == make_commit(2)


def test_runs_that_belong_together(engine: Engine) -> None:
    newer = replace(BENCHMARK, version=2, digest="d" * 64)
    ids = keep(
        engine,
        make_report(0), make_report(0, benchmark=SECOND),
        make_report(1), make_report(1, benchmark=newer, configuration=NARROW),
        make_report(2, benchmark=newer), make_report(3, benchmark=SECOND),
    )  # fmt: skip
    commits = [make_commit(number) for number in range(5)]

    def paired(base: int, head: int, benchmark: str | None = None) -> tuple[list[object], ...]:
        found = comparing.pair_runs(engine, "sample", commits[base], commits[head], benchmark)
        return (
            [(one.id, other.id) for one, other in found.pairs],
            [one.id for one in found.only_base],
            [one.id for one in found.only_head],
        )

    assert paired(0, 1) == ([(ids[0], ids[2])], [ids[1]], [ids[3]])
    assert paired(0, 2) == ([(ids[0], ids[4])], [ids[1]], [])
    assert paired(0, 0) == ([(ids[0], ids[0]), (ids[1], ids[1])], [], [])
    assert paired(0, 1, "seed@1") == ([(ids[0], ids[2])], [], [])
    pair = comparing.pair_runs
    assert refusal(NotFoundError, pair, engine, "sample", commits[2], commits[3]) == (
        "0002000000 and 0003000000 were run on other benchmark sets (seed and second): there is "
        "nothing to compare."
    )
    assert refusal(NotFoundError, pair, engine, "sample", commits[0], commits[4]) == (
        "Commit 0004000000 has no stored run: virnucpro-monitor run --target sample --commit "
        "0004000000 stores one."
    )
    assert "has no stored run on seed@2: " in refusal(
        NotFoundError, pair, engine, "sample", commits[0], commits[1], "seed@2"
    )


def test_the_commits_between_two_runs() -> None:
    commits = [*(make_commit(number) for number in range(6)), make_commit(9, position=None)]
    runs = {number: make_report(number).run for number in range(6)}
    off = replace(runs[5], commit=make_commit(9, position=None))

    def between(base: int, head: int, limit: int = 9) -> list[int | None]:
        found = comparing.commits_between(commits, runs[base], runs[head], limit)
        return [one.position for one in found]

    assert between(1, 4) == between(4, 1) == [2, 3, 4]
    assert between(0, 4, 2) == [1, 2]
    assert between(3, 3) == []
    assert comparing.commits_between(commits, runs[1], off, 9) == []
    assert comparing.commits_between(commits, off, runs[1], 9) == []


def test_superseded_runs_are_judged_again_too(engine: Engine) -> None:
    limits = {**CONTENT, "limits": {}}
    protocol = replace(PROTOCOL, digest="e" * 64, content=limits)
    first, second = (make_report(0, protocol=protocol, duration_s=s) for s in (1.0, 2.0))
    ids = keep(engine, first, second)
    told = list(find_unfounded(engine))
    assert [sentence.split(" is not")[0] for sentence in told] == [f"Run {one}" for one in ids]
    assert "it cannot be judged again" in told[0]
    assert list(contradictions(first.run, first.sequences, {}, PROTOCOL)) == []


def test_looking_at_a_database_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "monitor.db"
    assert examine_database(f"sqlite:///{path}").level == "warning"
    assert not path.exists()
