from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.runner.tiny_target import MODEL_FILE, TinyRepository
from tests.store.builders import make_configuration, make_environment, make_run
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.records import (
    Commit,
    Outcome,
    Protocol,
    Request,
    Run,
    Target,
)
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.code_digest import code_digest, covers
from virnucpro_monitor.runner.commits import begin_order
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.ledger import Ledger
from virnucpro_monitor.runner.plan import ordered
from virnucpro_monitor.runner.selection import select_new, select_revisions
from virnucpro_monitor.runner.surroundings import Surroundings

HERE = make_environment(torch="2")
PLACE = Surroundings(environment=HERE, installed={"numpy": "2.0", "torch": "2"})
PROTOCOL = Protocol(version="1", digest="p" * 64, content={})
REQUEST = Request(model="m", weights="synthetic")


def run(commit: str, outcome: Outcome = Outcome.PASSED, **fields: object) -> Run:
    values: dict[str, object] = {
        "target": "t",
        "commit": Commit(hash=commit),
        "benchmark_digest": "b" * 64,
        "configuration": make_configuration(model="m", weights_digest="w" * 64),
        "environment": HERE,
        "protocol_digest": PROTOCOL.digest,
        "outcome": outcome,
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return make_run(**(values | fields))


def ledger(*runs: Run) -> Ledger:
    return Ledger(runs, REQUEST, "w" * 64, PROTOCOL)


def names(commits: list[Commit]) -> str:
    return "".join(commit.hash for commit in commits)


def test_orders() -> None:
    commits = [Commit(hash=name) for name in "abcdefghi"]
    assert names(ordered(commits, "oldest")) == "abcdefghi"
    assert names(ordered(commits, "newest")) == "ihgfedcba"
    bisected = names(ordered(commits, "bisect"))
    assert bisected[:3] == "iae"
    assert sorted(bisected) == list("abcdefghi")
    for size in range(4):
        assert len(ordered(commits[:size], "bisect")) == size


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.FAILED, Outcome.SKIPPED])
def test_a_result_settles_a_commit(outcome: Outcome) -> None:
    known = run("a", outcome)
    assert ledger(known).settled("a", "b" * 64, PLACE, retry_errors=True) == known
    assert ledger(known).settled("b", "b" * 64, PLACE, retry_errors=True) is None


def test_an_error_settles_unless_it_is_to_be_tried_again() -> None:
    known = ledger(run("a", Outcome.ERROR), run("b", Outcome.NOT_RUN))
    assert known.settled("a", "b" * 64, PLACE, retry_errors=False)
    assert not known.settled("a", "b" * 64, PLACE, retry_errors=True)
    assert not known.settled("b", "b" * 64, PLACE, retry_errors=False)


@pytest.mark.parametrize(
    "other",
    [
        {"protocol_digest": "q" * 64},
        {"benchmark_digest": "c" * 64},
        {"environment": replace(HERE, torch="3")},
        {"configuration": replace(run("a").configuration, weights_digest="x" * 64)},
        {"configuration": replace(run("a").configuration, dtype="float16")},
        {"configuration": replace(run("a").configuration, token_budget=1)},
        {"configuration": replace(run("a").configuration, device="cuda")},
    ],
)
def test_nothing_is_inherited_across_a_difference(other: dict[str, object]) -> None:
    same = run("a", code_digest="d")
    assert ledger(same).twin("d", "b" * 64, PLACE) == same
    assert ledger(replace(same, **other)).twin("d", "b" * 64, PLACE) is None  # type: ignore[arg-type]


def test_only_a_measured_run_is_inherited_from() -> None:
    for outcome in (Outcome.ERROR, Outcome.SKIPPED, Outcome.NOT_RUN):
        known = ledger(run("a", outcome, code_digest="d"))
        assert known.twin("d", "b" * 64, PLACE) is None


def test_a_bridge_starts_at_the_last_run_elsewhere() -> None:
    elsewhere = replace(HERE, torch="1")
    old = run("a", environment=elsewhere)
    newer = run("b", environment=elsewhere, started_at=datetime(2026, 2, 1, tzinfo=UTC))
    assert ledger(old, newer).bridge("b" * 64, lambda _: PLACE) == newer
    assert ledger(old, newer, run("c")).bridge("b" * 64, lambda _: PLACE) is None
    assert ledger().bridge("b" * 64, lambda _: PLACE) is None


@pytest.mark.parametrize(
    ("used", "fits"),
    [
        ({}, True),
        ({"packages": {"numpy": "2.0"}}, True),
        ({"packages": {"numpy": "2.1"}}, False),
        ({"packages": {"scipy": "1.0"}}, False),
        ({"parts": {"threads": "1"}}, True),
        ({"parts": {"threads": "2"}}, False),
        ({"parts": {"of a later version": "x"}}, True),
        ({"parts": {}}, True),
        ({"torch": "3"}, False),
        ({"host": "other"}, False),
        ({"gpu": "H100"}, True),  # not known here
    ],
)
def test_what_a_run_used_must_still_be_there(used: dict[str, object], fits: bool) -> None:
    here = replace(PLACE, environment=replace(HERE, parts={"threads": "1"}))
    stored = run("a", environment=replace(HERE, **used))  # type: ignore[arg-type]
    assert here.fit(stored) is fits
    known = ledger(replace(stored, code_digest="d"))
    assert (known.settled("a", "b" * 64, here, retry_errors=False) is not None) is fits
    assert (known.twin("d", "b" * 64, here) is not None) is fits
    assert (known.bridge("b" * 64, lambda _: here) is None) is fits


def test_a_private_interpreter_is_asked_for_its_packages() -> None:
    base = replace(HERE, torch="")
    private = Surroundings(environment=base, installed={"torch": "2.14.1"})
    before = run("a", environment=replace(HERE, torch="2.14.1+cu130"))  # without its packages
    assert private.fit(before)
    assert not private.fit(run("a", environment=replace(HERE, torch="2.13.0")))
    unmade = replace(private, installed=None)
    assert unmade.fit(run("a", environment=replace(HERE, packages={"torch": "2.14.1"})))


def test_the_code_digest_looks_at_relevant_files_alone(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    target = Target(name="t", location="", paths=("tinytarget",), requirements="needs.txt")
    commits = [
        tiny.git("rev-parse", "HEAD"),
        tiny.commit({"README.md": "words"}),
        tiny.commit({"needs.txt": "x"}),
        tiny.commit({MODEL_FILE: "x = 1"}),
    ]
    digests = [code_digest(repository, target, commit) for commit in commits]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    everything = replace(target, paths=())
    assert len({code_digest(repository, everything, commit) for commit in commits}) == 4
    assert code_digest(repository, replace(target, package="x"), commits[0]) != digests[0]


@pytest.mark.parametrize(
    ("told", "same"),
    [
        ("inside/kernel.py", False),  # in the package: as any other file
        ("../shared/kernel.py", False),  # in the commit, beyond the package
        ("../../kernel.py", False),
        ("/etc/hostname", False),
        ("inside/../../../kernel.py", False),
        (None, True),
    ],
)
def test_what_a_link_leads_to_decides_a_result_too(
    told: str | None, same: bool, tiny: TinyRepository, tmp_path: Path
) -> None:
    link = tiny.folder / "tinytarget" / "kernel.py"
    if told is not None:
        link.symlink_to(told)
    before = tiny.commit({"tinytarget/inside/kernel.py": "", "shared/kernel.py": ""})
    changed = "tinytarget/inside" if told == "inside/kernel.py" else "shared"
    after = tiny.commit({f"{changed}/kernel.py": "fault = True"})
    back = tiny.commit({f"{changed}/kernel.py": ""})
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    for paths in ((), ("tinytarget",)):
        target = Target(name="t", location="", paths=paths)
        one, two, three = (code_digest(repository, target, x) for x in (before, after, back))
        assert (one == two) is (same and bool(paths))
        # What is behind a link that leads out of a commit may be another thing each time.
        assert (one == three) is (
            told is None or told in ("inside/kernel.py", "../shared/kernel.py")
        )


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("pack", "pack/a.py", True),
        ("pack/", "pack/a.py", True),
        ("pack", "package/a.py", False),
        ("pack/*.py", "pack/a.py", True),
        ("pack/a.py", "pack/a.py", True),
        ("pack/a.py", "pack/b.py", False),
    ],
)
def test_paths_cover_files_folders_and_globs(pattern: str, path: str, expected: bool) -> None:
    assert covers(pattern, path) is expected


def test_new_means_since_the_last_seen_and_what_was_left_out(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    hashes = [tiny.git("rev-parse", "HEAD"), *(tiny.commit({"n": str(n)}) for n in range(4))]
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    target = Target(name="t", location="")

    def new(*known: Run) -> list[str]:
        return [commit.hash for commit in select_new(repository, target, {"b": known}).commits]

    assert new() == hashes[-1:]
    assert new(run(hashes[1])) == hashes[2:]
    assert new(run(hashes[1], Outcome.NOT_RUN), run(hashes[3])) == [hashes[1], hashes[4]]
    assert new(run(hashes[4])) == []


def test_new_looks_at_each_series_and_says_where_one_begins(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    hashes = [tiny.git("rev-parse", "HEAD"), *(tiny.commit({"n": str(n)}) for n in range(3))]
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    target = Target(name="t", location="")
    both = {"old": [run(hashes[1])], "added": [run(hashes[2])]}
    selection = select_new(repository, target, both)
    assert [commit.hash for commit in selection.commits] == hashes[2:]
    assert selection.note == ""
    selection = select_new(repository, target, {"old": [run(hashes[3])], "added": []})
    assert [commit.hash for commit in selection.commits] == hashes[3:]
    assert selection.note.startswith("Nothing of added was measured in this configuration before")
    assert "Its whole history, 4 commits: --all" in selection.note


def test_a_request_asks_for_runs_of_its_own_series() -> None:
    request = Request(model="m", weights="synthetic", device="cpu")
    used = run("a").configuration
    assert request.asks_for(used)
    for change in ({"dtype": "float16"}, {"device": "cuda"}, {"token_budget": 1}, {"model": "n"}):
        assert not request.asks_for(replace(used, **change))


def test_a_rewritten_branch_goes_on_from_what_both_share(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    root = tiny.git("rev-parse", "HEAD")
    gone = tiny.commit({"a": "1"})
    tiny.git("reset", "--quiet", "--hard", root)
    rewritten = tiny.commit({"a": "2"})
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    selection = select_new(repository, Target(name="t", location=""), {"b": [run(root), run(gone)]})
    assert [commit.hash for commit in selection.commits] == [rewritten]
    assert gone not in [commit.hash for commit in selection.branch]


def test_revisions_and_ranges_come_oldest_first(tiny: TinyRepository, tmp_path: Path) -> None:
    hashes = [tiny.git("rev-parse", "HEAD"), *(tiny.commit({"n": str(n)}) for n in range(3))]
    repository = Repository.open(str(tiny.folder), tmp_path / "cache")
    target = Target(name="t", location="")

    def select(*revisions: str) -> list[str]:
        return [c.hash for c in select_revisions(repository, target, revisions).commits]

    assert select("HEAD", f"{hashes[0]}..HEAD~1", hashes[0][:10]) == hashes
    with pytest.raises(RepositoryError, match="holds no commit"):
        select("HEAD..HEAD~2")


def test_unknown_dtypes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'int8' is not a dtype"):
        Request(model="m", weights="synthetic", dtype="int8")


def test_the_longest_of_the_last_commits_begin_first() -> None:
    seed, reach = load_benchmark("seed"), load_benchmark("reach")
    sets = [(seed,), (reach,), (seed, reach), (seed,), (reach,)]
    waiting = {
        place: Work(commit=Commit(hash=str(place)), benchmarks=benchmarks)
        for place, benchmarks in enumerate(sets)
    }
    assert [place for place, _ in begin_order(waiting, 3)] == [2, 1, 4, 0, 3]
    assert [place for place, _ in begin_order(waiting, 2)] == [0, 1, 2, 3, 4]
