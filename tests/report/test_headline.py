"""One sentence over all series: what broke, when, by whom, which side."""

from dataclasses import replace
from datetime import datetime, timedelta

from tests.store.builders import CONFIGURATION, make_commit, make_report
from virnucpro_monitor.analysis.incidents import derive_incidents
from virnucpro_monitor.analysis.series import series_key
from virnucpro_monitor.monitor.histories import SeriesCard
from virnucpro_monitor.records import (
    Culprit,
    Figures,
    Finding,
    GateResult,
    Outcome,
    Run,
    Thresholds,
)
from virnucpro_monitor.report.headline import headline
from virnucpro_monitor.report.words import (
    agreement,
    deciding_words,
    failing_words,
    level_legend,
    setup_words,
)

BAD = (0.99, 1.0, 0.9999)
GOOD_RUN, BAD_RUN = make_report(0).run, make_report(1, BAD).run
NOW: datetime = make_commit(1).committed_at + timedelta(hours=23)  # type: ignore[operator]


def card(*runs: Run, commits_behind: int = 0) -> SeriesCard:
    """A series of these runs, oldest first."""
    return SeriesCard(
        key=series_key(runs[-1]),
        latest=runs[-1],
        label="made up",
        commits_behind=commits_behind,
        configurations=(runs[-1].configuration.digest,),
        incidents=tuple(i for i in derive_incidents(runs, now=NOW) if i.fixed_by is None),
        marks=(),
    )


def test_what_broke_when_by_whom_and_which_side() -> None:
    told = headline([card(GOOD_RUN, BAD_RUN)], NOW)
    assert told == (
        f"sample broken since {BAD_RUN.commit.short} (Change number 1; A Tester, 23 hours ago): "
        "packed side, gate seed"
    )


def test_the_other_bad_series_are_counted() -> None:
    half = replace(BAD_RUN, configuration=replace(CONFIGURATION, dtype="float16"))
    told = headline([card(GOOD_RUN, BAD_RUN), card(half), card(GOOD_RUN)], NOW)
    assert told.endswith("; 1 more of 3 series is bad")


def test_what_broke_last_is_named_whichever_series_stands_first() -> None:
    later = make_report(2, BAD).run
    configuration = replace(CONFIGURATION, dtype="float16")
    other = [replace(run, configuration=configuration) for run in (make_report(1).run, later)]
    told = headline([card(GOOD_RUN, BAD_RUN), card(*other)], NOW)
    of_which = f"sample ({later.benchmark}@{later.benchmark_version}, float16)"
    assert told.startswith(f"{of_which} broken since {later.commit.short} (Change number 2;")


def test_a_commit_that_cannot_be_run_is_told_so() -> None:
    error = replace(
        BAD_RUN, outcome=Outcome.ERROR, gates=(), culprit=None, figures=None, reason="No module."
    )
    assert f"sample cannot be run since {error.commit.short}" in headline(
        [card(GOOD_RUN, error)], NOW
    )
    assert failing_words(error) == "No module."


def test_healthy_series_say_how_far_they_reach() -> None:
    good = card(GOOD_RUN)
    assert headline([good], NOW) == "sample is healthy at the newest commit"
    assert headline([good, good], NOW) == ("sample: all 2 series are healthy at the newest commit")
    behind = card(GOOD_RUN, commits_behind=1)
    assert headline([behind], NOW) == "sample is healthy when last measured, 1 commit ago"
    told = headline([good, card(GOOD_RUN, commits_behind=9)], NOW)
    assert told == "sample: all 2 series are healthy; 1 is behind, by up to 9 commits"


def test_several_targets_have_no_one_name() -> None:
    other = replace(GOOD_RUN, target="other")
    told = headline([card(GOOD_RUN), card(other)], NOW)
    assert told == "All 2 series are healthy at the newest commit"


def gate(
    name: str, passed: bool | None, value: float | None, limit: float, unit: str
) -> GateResult:
    return GateResult(name=name, passed=passed, value=value, limit=limit, unit=unit)


def with_gates(*gates: GateResult) -> Run:
    return replace(BAD_RUN, gates=gates)


def test_the_number_of_a_run_is_that_of_its_deciding_gate() -> None:
    seed = gate("seed", True, 0.9999999999997, 0.999, "cosine")
    baseline = gate("baseline", False, 0.125, 0.0025, "relative L2")
    leak = gate("leak", False, 3e-2, 0.0, "max abs")
    # A failed run whose similarity is nearly 1 must not read as a healthy one.
    assert deciding_words(with_gates(seed, baseline)) == "baseline 50 x its limit"
    assert deciding_words(with_gates(seed, baseline, leak)) == "leak 0.03, limit 0"
    unknown = gate("residue", False, None, 1e-9, "1 - cosine")
    assert deciding_words(with_gates(seed, unknown)) == "residue: no value"
    near = gate("gain", True, 8e-4, 1e-3, "norm ratio - 1")
    assert deciding_words(with_gates(seed, near)) == "gain 0.8 x its limit"
    huge = gate("gain", False, 50.0, 1e-3, "norm ratio - 1")
    assert deciding_words(with_gates(huge)) == "gain 5.0e4 x its limit"


def test_why_a_run_is_bad_in_a_few_words() -> None:
    gates = [gate(name, False, 1.0, 0.1, "") for name in ("seed", "gain", "leak", "order", "mask")]
    run = replace(with_gates(*gates), culprit=Culprit.UNPACKED)
    assert failing_words(run) == "unpacked side: seed, gain, leak, order and 1 more"
    assert failing_words(GOOD_RUN) == ""
    # What trace and probes recognised says more than which gates it failed.
    finding = Finding(signatures=("rescale missing", "padding <cls>"), text="It looks like that.")
    assert failing_words(run, finding) == "unpacked side: rescale missing, padding <cls>"
    assert failing_words(run, Finding(text="departs in layer 5")) == (
        "unpacked side: seed, gain, leak, order and 1 more"
    )


def test_words_of_states_carry_their_numbers() -> None:
    assert level_legend(Thresholds()) == (
        "agrees: 1 - cos below 1.0e-3; deviates: from 1.0e-3 to 5.0e-3; fails: above 5.0e-3, or "
        "no value"
    )
    figures: Figures | None = BAD_RUN.figures
    assert agreement(figures) == "2 of 3"
    assert setup_words(CONFIGURATION) == "float32 cpu sdpa, packs of 4,096"
