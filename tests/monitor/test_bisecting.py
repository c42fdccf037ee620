"""A search as a function: its steps, what it stores, and the changes it was not asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from tests.store.builders import CONFIGURATION, make_gate, make_report
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.monitor import bisecting
from virnucpro_monitor.monitor.bisecting import (
    BisectOptions,
    Change,
    as_measured_last,
    bisect_and_store,
    describe_changes,
    find_changes,
    only_stored_repository,
)
from virnucpro_monitor.monitor.running import Listener
from virnucpro_monitor.records import (
    Bisection,
    Commit,
    Culprit,
    Outcome,
    RunReport,
    Target,
)
from virnucpro_monitor.runner.builtin import builtin_target
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.settings import Settings, load_settings
from virnucpro_monitor.store.engine import Engine, create_database, open_engine
from virnucpro_monitor.store.health_reader import load_heartbeats
from virnucpro_monitor.store.notes_reader import load_bisections
from virnucpro_monitor.store.writer import Writer

LINE = [letter * 40 for letter in "abcdefgh"]
COMMITS = {name: Commit(hash=name, subject=f"Change {name[0]}") for name in LINE}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("gggggggg", []),
        ("ggbbbbbb", [("c", "bad", 0)]),
        ("gbgbbbbb", [("b", "bad", 0), ("c", "good", 0), ("d", "bad", 0)]),
        ("g..b..g.", [("d", "bad", 2), ("g", "good", 2)]),
        ("..g.g.b.", [("g", "bad", 1)]),
        ("gs.b....", [("d", "bad", 2)]),
        ("........", []),
    ],
)
def test_changes_are_found_between_the_nearest_known_verdicts(
    verdicts: str, expected: list[tuple[str, str, int]]
) -> None:
    words = {"g": "good", "b": "bad", "s": "skip"}
    known = {
        name: words[letter] for name, letter in zip(LINE, verdicts, strict=True) if letter != "."
    }
    found = find_changes(LINE, known)
    assert [(one.commit[0], one.verdict, one.num_between) for one in found] == expected


def test_changes_are_told_with_their_doubt() -> None:
    changes = [Change(LINE[1], "bad", 0), Change(LINE[4], "good", 2)]
    assert describe_changes(changes, COMMITS) == [
        "",
        "The verdict also changes elsewhere in this range, by what is stored:",
        "    bad  from bbbbbbbbbb Change b",
        "    good from eeeeeeeeee Change e (or at one of the 2 before it without a verdict)",
    ]
    assert describe_changes([], COMMITS) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_is_refused(value: float) -> None:
    for name in ("max_time_s", "wait_s", "gpu_wait_s"):
        with pytest.raises(ConfigurationError, match=name):
            BisectOptions(**{name: value})


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    """Eight commits with the subjects 0 to 7."""
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "0")
    for number in range(1, 8):
        repository.commit({"a": str(number)}, str(number))
    return repository


@pytest.fixture
def target(tiny: TinyRepository) -> Target:
    return Target(name="tiny", location=str(tiny.folder))


def report_of(commit: Commit, letter: str, target: Target) -> RunReport:
    """g passes; l fails by the gate "leak" alone; b by "seed" alone; e could not be run."""
    gates = tuple(
        make_gate(name, letter != failing, 1.0, limit=2.0)
        for name, failing in (("seed", "b"), ("leak", "l"))
    )
    similarities = (1.0, 1.0, 1.0) if letter == "g" else (0.9, 1.0, 1.0)
    report = make_report(
        similarities=similarities, target=target, commit=commit, gates=gates, duration_s=10.0
    )
    if letter == "e":
        run = replace(
            report.run, outcome=Outcome.ERROR, culprit=Culprit.NONE, figures=None, gates=()
        )
        return replace(report, run=run)
    return report


Bisect = Callable[..., Bisection]


@pytest.fixture
def bisect(
    tiny: TinyRepository, settings: Settings, target: Target, monkeypatch: pytest.MonkeyPatch
) -> Bisect:
    """Search with these verdicts of the eight commits, in place of measuring them."""

    def call(verdicts: str, good: str, bad: str, **options: object) -> Bisection:
        class Runner:
            def __init__(self, plan: RunPlan, **callbacks: Callable[[object], None]) -> None:
                self._settled = callbacks["on_settled"]
                self._known = {run.commit.hash: run for run in callbacks["known"]}  # type: ignore[attr-defined]

            def __enter__(self) -> "Runner":
                return self

            def __exit__(self, *_: object) -> None:
                return None

            def cover(self, commits: Sequence[Commit]) -> Iterator[RunReport]:
                for commit in commits:
                    if commit.hash in self._known:
                        self._settled(self._known[commit.hash])
                    else:
                        yield report_of(commit, verdicts[int(commit.subject)], target)

        monkeypatch.setattr(bisecting, "CommitRunner", Runner)
        said: list[str] = options.pop("said", [])  # type: ignore[assignment]
        return bisect_and_store(
            settings,
            target,
            f"HEAD~{7 - int(good)}",
            f"HEAD~{7 - int(bad)}",
            BisectOptions(**options),  # type: ignore[arg-type]
            Listener(on_message=said.append),
        )

    return call


def test_the_first_bad_commit_is_found_and_stored(
    bisect: Bisect, settings: Settings, tiny: TinyRepository
) -> None:
    said: list[str] = []
    found = bisect("ggggbbbb", "0", "7", said=said)
    assert found.first_bad == tiny.git("rev-parse", "HEAD~3")
    assert found.conclusion.startswith(f"{found.first_bad} is the first bad commit\n")
    assert "elsewhere" not in found.conclusion
    assert [message for message in said if "suspect" in message] == [
        "4 commits left to suspect.",
        "2 commits left to suspect.",
        "1 commit left to suspect.",
    ]
    engine = open_engine(settings.database_url, read_only=True)
    (stored,) = load_bisections(engine, "tiny")
    assert (stored.id, stored.first_bad, stored.conclusion) == (
        found.id,
        found.first_bad,
        found.conclusion,
    )
    assert [step.verdict for step in stored.steps] == ["good", "bad", "good", "bad", "bad"]
    assert [step.run_id for step in stored.steps] == [step.run_id for step in found.steps]
    assert load_heartbeats(engine) == []
    engine.dispose()


def test_what_is_stored_is_used_and_other_changes_are_named(
    bisect: Bisect, tiny: TinyRepository, settings: Settings, target: Target
) -> None:
    first = bisect("gbgbbbbb", "0", "7")
    assert "elsewhere" not in first.conclusion  # only 0, 1, 3 and 7 are known
    assert bisect("gbgbbbbb", "2", "3").first_bad == tiny.git("rev-parse", "HEAD~4")
    # Another set-up's verdicts say nothing here.
    sixth = report_of(Commit(hash=tiny.git("rev-parse", "HEAD~2"), subject="5"), "g", target)
    other_rule = replace(sixth.protocol, digest="e" * 64)
    other_set = replace(sixth.benchmark, name="other", digest="d" * 64)
    engine = open_engine(settings.database_url)
    for changes, more in (
        ({"configuration": replace(CONFIGURATION, token_budget=512)}, {}),
        ({"protocol_digest": "e" * 64}, {"protocol": other_rule}),
        ({"benchmark": "other", "benchmark_digest": "d" * 64}, {"benchmark": other_set}),
    ):
        run = replace(sixth.run, **changes)
        Writer(engine).save_run(replace(sixth, run=run, **more))
    engine.dispose()
    said: list[str] = []
    again = bisect("gbgbbbbb", "0", "7", said=said)
    assert again.first_bad == first.first_bad == tiny.git("rev-parse", "HEAD~6")
    assert all(step.reused for step in again.steps)
    assert any(message.endswith(" is good (stored): 0") for message in said)
    lines = again.conclusion.splitlines()
    place = lines.index("The verdict also changes elsewhere in this range, by what is stored:")
    second, third = (tiny.git("rev-parse", f"HEAD~{back}")[:10] for back in (5, 4))
    assert lines[place + 1 :] == [f"    good from {second} 2", f"    bad  from {third} 3"]


def test_a_gate_may_decide_and_the_mending_commit_is_found(
    bisect: Bisect, tiny: TinyRepository
) -> None:
    by_leak = bisect("gggbblll", "0", "7", gate="leak")
    assert by_leak.first_bad == tiny.git("rev-parse", "HEAD~2")
    assert "elsewhere" not in by_leak.conclusion  # 3 and 4 are bad, by another gate
    mended = bisect("gggbblll", "5", "3", gate="seed")
    assert mended.first_bad == tiny.git("rev-parse", "HEAD~2")
    assert "is the first good commit" in mended.conclusion
    with pytest.raises(ConfigurationError, match="is good, not bad, by the gate leak"):
        bisect("gggbblll", "0", "4", gate="leak")


def test_what_cannot_run_leaves_suspects(bisect: Bisect, tiny: TinyRepository) -> None:
    found = bisect("ggeeebbb", "0", "7")
    assert found.first_bad is None
    assert found.conclusion.splitlines()[0] == (
        "Only commits that cannot run are left. The first bad commit could be any of:"
    )
    suspects = tiny.git("rev-list", "--reverse", "HEAD~6..HEAD~2").split()
    assert found.conclusion.splitlines()[1:] == suspects


def test_run_time_is_bounded(bisect: Bisect) -> None:
    found = bisect("ggggbbbb", "0", "7", max_time_s=20.0)  # each takes 10 s
    assert len(found.steps) == 2
    found = bisect("ggggbbbb", "0", "7", max_time_s=5.0)  # the ends are known by now
    assert len(found.steps) == 3
    assert found.conclusion.startswith("The budget is used up.")


def test_ends_are_checked_first(bisect: Bisect, settings: Settings, target: Target) -> None:
    with pytest.raises(RepositoryError, match="the same commit"):
        bisect("gggggggg", "3", "3")
    with pytest.raises(ConfigurationError, match="given as GOOD, is bad, not good, by the verdict"):
        bisect("bggggggb", "0", "7")
    with pytest.raises(ConfigurationError, match="bisect needs a repository: name it by"):
        bisect_and_store(settings, builtin_target(), "HEAD~1", "HEAD")
    two = settings.model_copy(update={"benchmark": ["seed", "proteome"]})
    with pytest.raises(ConfigurationError, match="goes by one benchmark set"):
        bisect_and_store(two, target, "HEAD~1", "HEAD")


@pytest.mark.parametrize(
    ("verdicts", "gate", "name", "place", "sentence"),
    [
        ("bggggggb", None, "GOOD", "HEAD~7", "is bad, not good, by the verdict: nothing to find."),
        ("gggggggg", "seed", "BAD", "HEAD", "is good, not bad, by the gate seed: nothing to find."),
        ("egggggbb", None, "GOOD", "HEAD~7", "cannot be judged by the verdict: nothing to find."),
    ],
)
def test_a_search_that_its_ends_forbid_is_stored_with_the_reason(
    verdicts: str, gate: str | None, name: str, place: str, sentence: str,
    bisect: Bisect, settings: Settings, tiny: TinyRepository,
) -> None:  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        bisect(verdicts, "0", "7", gate=gate)
    end = tiny.git("rev-parse", place)
    assert str(caught.value) == f"{end[:10]}, given as {name}, {sentence}"
    engine = open_engine(settings.database_url, read_only=True)
    (stored,) = load_bisections(engine, "tiny")
    engine.dispose()
    assert (stored.conclusion, stored.first_bad, stored.gate) == (str(caught.value), None, gate)
    assert stored.finished_at is not None
    assert [step.commit for step in stored.steps][-1] == end
    assert len(stored.steps) == (1 if name == "GOOD" else 2)


def test_what_nobody_has_set_is_as_in_the_newest_run(
    settings: Settings, tiny: TinyRepository, target: Target
) -> None:
    assert as_measured_last(settings, target) == settings
    assert only_stored_repository(settings, "HEAD") is None
    used = replace(CONFIGURATION, dtype="bfloat16", token_budget=512, device="cuda")
    writer_engine = _created(settings)
    writer = Writer(writer_engine)
    writer.save_run(make_report(3, target=target, configuration=used))
    writer.save_target(Target(name="other", location="/nowhere"))
    writer_engine.dispose()
    assert only_stored_repository(settings, "HEAD") == "tiny"  # the other has no runs
    writer_engine = open_engine(settings.database_url)
    writer = Writer(writer_engine)
    writer.save_run(make_report(4, target=builtin_target()))  # which is no repository
    writer_engine.dispose()
    assert only_stored_repository(settings, "HEAD") == "tiny"
    writer_engine = open_engine(settings.database_url)
    writer = Writer(writer_engine)
    other = make_report(5, target=Target(name="other", location="/nowhere"))
    writer.save_run(other)
    writer_engine.dispose()
    assert only_stored_repository(settings, other.run.commit.hash) == "other"
    with pytest.raises(ConfigurationError, match="choose by --target"):
        only_stored_repository(settings, "nosuch")
    filled = as_measured_last(load_settings(db=settings.db), target)
    assert (filled.dtype, filled.token_budget, filled.device) == ("bfloat16", 512, "cuda:0")
    assert (filled.model, filled.weights) == ("esm2_t6_8M_UR50D", "synthetic")
    chosen = as_measured_last(load_settings(db=settings.db, dtype="float32", device="cpu"), target)
    assert (chosen.dtype, chosen.device, chosen.token_budget) == ("float32", "cpu", 512)


def _created(settings: Settings) -> Engine:
    create_database(settings.database_url)
    return open_engine(settings.database_url)
