"""Several cards of one host. The CPU stands in for cards; a test on real ones is marked `gpu`."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runner.conftest import MODEL, MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, PADDED_WITH_CLS, TinyRepository
from virnucpro_monitor.errors import DeviceError
from virnucpro_monitor.records import Failure, Outcome, Request, Run, RunReport, Target
from virnucpro_monitor.runner import capacity, commits, workers
from virnucpro_monitor.runner.capacity import Capacity, share_workers
from virnucpro_monitor.runner.cards import Card, find_cards
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.decide import Work
from virnucpro_monitor.runner.gpu import GIB, Glances, Gpu
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.prepare import Prepared, prepare
from virnucpro_monitor.runner.seats import Seats

HEALTHY_MODEL = HEALTHY[MODEL_FILE]


def gpu(free_gib: int = 140, name: str = "H200", processes: tuple[int, ...] = ()) -> Gpu:
    return Gpu(name, "575", 140 * GIB, free_gib * GIB, processes, 0)


def looking(**found: Gpu) -> Callable[[str], Gpu | None]:
    """`cuda_1=…` is what NVML tells of cuda:1."""
    return lambda device: found.get(device.replace(":", "_"))


def devices(cards: Iterable[Card]) -> list[str]:
    return [card.device for card in cards]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ["cpu"]),
        ("cuda:1", ["cuda:1"]),
        ("cuda:0,2", ["cuda:0", "cuda:2"]),
        ("cuda:2, 0,2", ["cuda:2", "cuda:0"]),
        ("cuda", ["cuda:0", "cuda:1", "cuda:2"]),
    ],
)
def test_cards_are_named_one_several_or_all(device: str, expected: list[str]) -> None:
    all_alike = looking(cuda_0=gpu(), cuda_1=gpu(), cuda_2=gpu())
    cards = find_cards(device, pytest.fail, look=all_alike, count=lambda: 3)
    assert devices(cards) == expected
    assert [card.place for card in cards] == list(range(len(expected)))


@pytest.mark.parametrize("device", ["cuda:x", "cuda:0,", "cuda:0,-1", "cuda:all"])
def test_other_names_are_refused(device: str) -> None:
    with pytest.raises(DeviceError, match="use cpu, cuda:N, several as cuda:0,2, or cuda for all"):
        find_cards(device, pytest.fail, look=looking(), count=lambda: 3)


def test_what_is_missing_or_of_another_kind_is_left_out_and_said() -> None:
    said: list[str] = []
    mixed = looking(cuda_0=gpu(), cuda_2=gpu(name="A100"), cuda_3=gpu())
    assert devices(find_cards("cuda:0,1,2,3", said.append, look=mixed)) == ["cuda:0", "cuda:3"]
    assert said == [
        "cuda:1 is not there: going on without it.",
        "cuda:2 (A100) is of another kind than cuda:0 (H200) and is left out: start it by itself, "
        "as --device cuda:2.",
    ]


def test_workers_are_shared_over_cards(
    tiny: TinyRepository, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan([tiny.git("rev-parse", "HEAD")])

    def share(plan: RunPlan, *free_gib: int, num_commits: int = 1000) -> list[int]:
        cards = [Card(place, f"cuda:{place}") for place in range(len(free_gib))]
        found = looking(**{f"cuda_{place}": gpu(free) for place, free in enumerate(free_gib)})
        shared = share_workers(plan, cards, num_commits, 4 * GIB, found)
        return [shared.get(card, 0) for card in cards]

    cpu = [Card(0, "cpu")]
    assert share_workers(plan, cpu, 1) == {cpu[0]: 1}
    assert share_workers(replace(plan, num_threads=1), cpu, 1000) == {cpu[0]: os.cpu_count()}
    assert share_workers(replace(plan, workers=3), cpu, 2) == {cpu[0]: 2}
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    on_cpu = make_plan([tiny.git("rev-parse", "HEAD")])
    assert (on_cpu.num_threads, share_workers(on_cpu, cpu, 1000)) == (4, {cpu[0]: 4})

    on_gpu = replace(plan, request=replace(plan.request, device="cuda"))
    assert [share(on_gpu, free) for free in (140, 48, 31, 3)] == [[4], [3], [1], [1]]
    assert share(on_gpu, 140, num_commits=2) == [2]
    assert share_workers(on_gpu, [Card(0, "cuda:0")], 9, 4 * GIB, lambda _: None) == {
        Card(0, "cuda:0"): 1
    }
    assert share(on_gpu, 140, 140) == [4, 4]
    assert share(on_gpu, 140, 31) == [4, 1]
    assert share(on_gpu, 140, 140, 140, 140) == [2, 2, 2, 2]  # as many as half the cores
    assert share(on_gpu, 140, 140, num_commits=3) == [2, 1]
    assert share(replace(on_gpu, workers=3), 140, 140) == [2, 1]
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert share(on_gpu, 140) == [2]
    assert share(on_gpu, 140, 140, 140) == [1, 1, 1]  # never a card without work


@pytest.fixture
def make_capacity(
    tiny: TinyRepository, make_plan: MakePlan, tmp_path: Path
) -> Callable[..., Capacity]:
    def make(found: dict[str, Gpu | None], said: list[str]) -> Capacity:
        plan = make_plan([tiny.git("rev-parse", "HEAD")], gpu_wait_s=0.0, workers=2)
        plan = replace(plan, request=replace(plan.request, device="cuda:0,1"))
        checkpoint = tmp_path / "checkpoint"
        checkpoint.touch()
        cards = [Card(0, "cuda:0"), Card(1, "cuda:1")]
        return Capacity(plan, cards, 9, checkpoint, said.append, lambda device: found[device])

    return make


def test_commits_go_to_the_card_with_the_fewest(make_capacity: Callable[..., Capacity]) -> None:
    capacity = make_capacity({"cuda:0": gpu(), "cuda:1": gpu()}, [])
    active: list[Card] = []
    while (card := capacity.free_card(active)) is not None:
        active.append(card)
    assert devices(active) == ["cuda:0", "cuda:1"]
    assert devices([capacity.free_card(active[:1]) or active[0]]) == ["cuda:1"]
    assert capacity.why_not(active) is None


def test_a_full_card_is_passed_over_and_one_that_vanishes_is_left_out(
    make_capacity: Callable[..., Capacity],
) -> None:
    said: list[str] = []
    found: dict[str, Gpu | None] = {"cuda:0": gpu(free_gib=1), "cuda:1": gpu()}
    capacity = make_capacity(found, said)
    assert capacity.why_not([]) is None
    for _ in range(2):
        card = capacity.free_card([])
        assert card is not None
        assert card.device == "cuda:1"
    assert said == [
        "cuda:0 has no room for another commit now: 1.0 GiB of its memory are free, "
        "2.0 GiB are needed."
    ]
    found["cuda:1"] = None
    assert capacity.free_card([]) is None
    assert said[1:] == ["cuda:1 has gone: going on without it."]
    assert capacity.why_not([card]) is None  # what is measured meanwhile may free the other
    reason = capacity.why_not([])
    assert reason is not None
    assert "The GPU cuda:0,1 is busy: 1.0 GiB of its memory are free" in reason


@pytest.mark.usefixtures("shared_workers")
def test_two_cards_give_what_one_gives_in_the_same_order(
    tiny: TinyRepository, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(name="tiny", location=str(tiny.folder), paths=("tinytarget",))
    hashes = [
        tiny.git("rev-parse", "HEAD"),
        tiny.commit({MODEL_FILE: PADDED_WITH_CLS}),
        tiny.commit({"README.md": "words\n"}),
        tiny.commit({MODEL_FILE: "raise RuntimeError"}),
        tiny.commit({MODEL_FILE: HEALTHY_MODEL}),
    ]

    def cover(**choices: object) -> list[RunReport]:
        return list(run_commits(make_plan(hashes, target=target, **choices)))

    one = cover(workers=1)
    used: list[Card] = []
    free_card = Capacity.free_card

    def noting(self: Capacity, *active: Any) -> Card | None:
        card = free_card(self, *active)
        used.extend([card] if card else [])
        return card

    monkeypatch.setattr(Capacity, "free_card", noting)
    monkeypatch.setattr(commits, "find_cards", lambda *_: (Card(0, "cpu"), Card(1, "cpu")))
    two = cover(workers=2)
    assert {card.place for card in used} == {0, 1}

    def told(report: RunReport) -> Run:
        figures = report.run.figures
        if figures is not None:
            figures = replace(figures, unpacked_s=None, packed_s=None)
        return replace(
            report.run, figures=figures, started_at=one[0].run.started_at, duration_s=0.0
        )

    assert [told(report) for report in two] == [told(report) for report in one]
    assert [report.sequences for report in two] == [report.sequences for report in one]


@pytest.fixture
def on_gpu(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunPlan]:
    """Plans for a card that is not there, whose yardstick is set up on the CPU."""

    def make(hashes: Sequence[str], **choices: object) -> RunPlan:
        plan = make_plan(hashes, **choices)

        def prepare_on_cpu(asked: RunPlan, pool: Any, device: str, *others: Any) -> Prepared:
            assert device == "cuda:0"
            return prepare(replace(asked, request=plan.request), pool, "cpu", *others)

        monkeypatch.setattr(workers, "prepare", prepare_on_cpu)
        return replace(plan, request=replace(plan.request, device="cuda:0"))

    return make


@pytest.mark.usefixtures("shared_workers")
def test_who_has_no_memory_left_beside_a_neighbour_is_measured_by_itself(
    tiny: TinyRepository,
    on_gpu: Callable[..., RunPlan],
    make_plan: MakePlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashes = [tiny.git("rev-parse", "HEAD")]
    hashes += [tiny.commit({MODEL_FILE: f"{HEALTHY_MODEL}# {number}\n"}) for number in range(3)]
    greedy, failing, halved = hashes[1:]
    (healthy,) = run_commits(make_plan(hashes[:1]))
    measured: list[tuple[str, bool]] = []
    at_once = threading.Barrier(4, timeout=30)

    def measure(_: Any, work: Work, *__: object, **___: object) -> Iterator[RunReport]:
        measured.append((work.commit.hash, work.alone))
        report = replace(healthy, run=replace(healthy.run, commit=work.commit))
        if not work.alone:
            at_once.wait()
        failure = Failure(kind="out_of_memory", message="CUDA out of memory.")
        if work.commit.hash == greedy or (work.commit.hash == failing and not work.alone):
            report = replace(report, failure=failure)
            report = replace(report, run=replace(report.run, outcome=Outcome.ERROR))
        if work.commit.hash == halved and not work.alone:
            report = replace(report, documents={"memory": {}})
        yield report

    monkeypatch.setattr(workers.Workers, "measure", measure)
    closed_after: list[int] = []
    monkeypatch.setattr(Seats, "close", lambda _: closed_after.append(len(measured)))
    said: list[str] = []
    reports = list(run_commits(on_gpu(hashes, workers=4), on_message=said.append))
    assert [report.run.commit.hash for report in reports] == hashes
    passed, error = Outcome.PASSED, Outcome.ERROR
    assert [report.run.outcome for report in reports] == [passed, error, passed, passed]
    assert "memory" not in reports[3].documents
    by_themselves = [(commit, True) for commit in (greedy, failing, halved)]
    assert sorted(measured[:4]) == sorted((commit, False) for commit in hashes)
    assert measured[4:] == by_themselves
    assert closed_after[:3] == [4, 5, 6]  # nobody stands by meanwhile, either
    assert sorted(said) == sorted(
        f"{report.run.commit.short} had no memory left on a card that it shared: it is measured "
        "by itself."
        for report in reports[1:]
    )


@pytest.mark.usefixtures("shared_workers")
def test_a_commit_that_has_just_ended_is_nobody_else_s_on_its_card(
    tiny: TinyRepository,
    on_gpu: Callable[..., RunPlan],
    make_plan: MakePlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is seen of a card is told again for a while, in which two commits may fit."""
    hashes = [tiny.commit({MODEL_FILE: f"{HEALTHY_MODEL}# {number}\n"}) for number in range(3)]
    (healthy,) = run_commits(make_plan(hashes[:1]))
    running: list[int] = []

    def look(_: str) -> Gpu:
        return gpu(processes=tuple(running))

    def measure(_: Any, work: Work, *__: object, **___: object) -> Iterator[RunReport]:
        running.extend((2**30, 2**30 + 1))  # a container's ids are none of ours
        glances.forget()
        glances("cuda:0")  # as who wants to begin meanwhile does
        yield replace(healthy, run=replace(healthy.run, commit=work.commit))
        running.clear()

    glances = Glances(look, fresh_s=3600.0)
    monkeypatch.setattr(commits, "Glances", lambda: glances)
    monkeypatch.setattr(workers.Workers, "measure", measure)
    said: list[str] = []
    plan = on_gpu(hashes, workers=1, gpu_wait_s=0.0)
    reports = list(run_commits(plan, on_message=said.append))
    assert [report.run.outcome for report in reports] == [Outcome.PASSED] * 3
    assert said == []


@pytest.mark.usefixtures("shared_workers")
def test_a_busy_gpu_is_recorded_as_not_run(
    tiny: TinyRepository, on_gpu: Callable[..., RunPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []

    def busy(device: str, *, needed_bytes: int, **_: object) -> str:
        waited.append(needed_bytes)
        return f"The GPU {device} was busy."

    monkeypatch.setattr(capacity, "wait_for_gpu", busy)
    (report,) = run_commits(on_gpu([tiny.git("rev-parse", "HEAD")]))
    assert report.run.outcome is Outcome.NOT_RUN
    assert report.run.reason == "The GPU cuda:0 was busy."
    assert report.failure == Failure(kind="machine", message=report.run.reason)
    assert waited[0] > 2 * 1024**3


@pytest.mark.gpu
def test_two_real_cards_share_the_work(tiny: TinyRepository, make_plan: MakePlan) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two cards")
    made_on = "dtype=torch.long, device=input_ids.device)"
    model = HEALTHY_MODEL.replace("dtype=torch.long)", made_on)
    hashes = [tiny.commit({MODEL_FILE: f"{model}\n# {number}\n"}) for number in range(6)]
    request = Request(model=MODEL, weights="synthetic", device="cuda")
    reports = list(run_commits(make_plan(hashes, request=request)))
    assert [report.run.commit.hash for report in reports] == hashes
    assert {report.run.outcome for report in reports} == {Outcome.PASSED}
    assert len({report.sequences for report in reports}) == 1
