"""Comparisons and runs with text that tries to escape from every format."""

from dataclasses import replace

from tests.analysis.histories import commit, environment, run, sequences
from virnucpro_monitor.analysis.comparison import Comparison, compare_runs
from virnucpro_monitor.records import Commit, Run

HOSTILE = (
    "<script>alert(1)</script> ](javascript:alert(1)) | `x` \x1b[31m\u202e ]]> "
    "\"' onload=x &amp; =cmd()"
)


def hostile_commit(place: int) -> Commit:
    return replace(commit(place), subject=HOSTILE, author=HOSTILE, authored_at=None)


def hostile_run(place: int, letter: str = "F") -> Run:
    return run(
        place,
        letter,
        commit=hostile_commit(place),
        reason=HOSTILE,
        target="project",
        environment=environment(host=HOSTILE),
    )


def hostile_comparison() -> Comparison:
    base = sequences({"steady": 0.99999, HOSTILE: 0.9999, f"gone {HOSTILE}": 0.9})
    head = sequences({"steady": 0.99999, HOSTILE: 0.9, "=new": None})
    return compare_runs(run(0), base, hostile_run(1), head)


def plain_comparison() -> Comparison:
    base = {"a": 1 - 1e-6, "b": 1 - 1e-6, "c": 0.9, "d": 1.0, "e": 1 - 1e-4}
    head = {"a": 0.99, "b": 1 - 1e-4, "c": 0.99999, "d": 1.0, "e": 1 - 1e-6}
    return compare_runs(run(0), sequences(base), run(1, "F"), sequences(head))
