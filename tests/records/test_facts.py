"""What every room asks of a record is answered by the record."""

import pytest

from tests.store import builders
from virnucpro_monitor.records import VERDICTS, Outcome, short_hash

# Written out: outcome, carries a verdict, is bad.
FACTS = [
    ("passed", True, False),
    ("failed", True, True),
    ("error", False, True),
    ("skipped", False, False),
    ("not_run", False, False),
]


@pytest.mark.parametrize(("name", "has_verdict", "is_bad"), FACTS)
def test_what_an_outcome_says(name: str, has_verdict: bool, is_bad: bool) -> None:
    outcome = Outcome(name)
    assert (outcome.has_verdict, outcome.is_bad) == (has_verdict, is_bad)
    assert (outcome in VERDICTS) is has_verdict


def test_each_outcome_is_told() -> None:
    assert [name for name, _, _ in FACTS] == [outcome.value for outcome in Outcome]


def test_one_short_name_for_a_commit_and_for_a_set() -> None:
    full = "0123456789abcdef" * 2 + "01234567"
    commit = builders.make_commit(3, hash=full)
    assert (commit.short, short_hash(full)) == ("0123456789", "0123456789")
    assert builders.BENCHMARK.label == "seed@1"
    run = builders.make_report(3).run
    assert run.benchmark_label == f"{run.benchmark}@{run.benchmark_version}"
