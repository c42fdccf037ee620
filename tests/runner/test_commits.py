import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.runner.conftest import MODEL, MakePlan
from tests.runner.tiny_target import (
    COLLATOR_FILE,
    HEALTHY,
    MODEL_FILE,
    PADDED_WITH_CLS,
    WAITS,
    TinyRepository,
    has_begun,
)
from virnucpro_monitor.errors import DeviceError, WeightsError
from virnucpro_monitor.records import Culprit, Outcome, Request, Run, RunReport, Target
from virnucpro_monitor.runner import workers
from virnucpro_monitor.runner.client import WorkerPool
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.supervisor import descendants

HEALTHY_MODEL = HEALTHY[MODEL_FILE]

pytestmark = pytest.mark.usefixtures("shared_workers")


def head(tiny: TinyRepository) -> str:
    return tiny.git("rev-parse", "HEAD")


def broken(at_import: str) -> dict[str, str]:
    return {MODEL_FILE: f"{at_import}\n{HEALTHY_MODEL}"}


def one(reports: list[RunReport]) -> RunReport:
    assert len(reports) == 1
    return reports[0]


def test_a_fault_and_a_crash_cost_their_own_commits_alone(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    healthy = head(tiny)
    faulty = tiny.commit({MODEL_FILE: PADDED_WITH_CLS})
    crashing = tiny.commit(broken("raise RuntimeError('boom')"))
    mended = tiny.commit({MODEL_FILE: HEALTHY_MODEL + "\n# mended\n"})
    reports = list(run_commits(make_plan([healthy, faulty, crashing, mended])))
    assert [report.run.commit.hash for report in reports] == [healthy, faulty, crashing, mended]
    first, fault, crash, last = reports
    assert first.run.outcome is Outcome.PASSED
    assert first.run.figures is not None
    assert first.run.figures.num_sequences == 3
    assert first.run.configuration.backend == "padded"
    assert len(first.run.configuration.weights_digest) == 64
    assert first.run.environment is not None
    assert first.run.started_at.utcoffset() is not None
    assert fault.run.outcome is Outcome.FAILED
    assert fault.run.culprit is Culprit.PACKED
    assert fault.run.packed_outcome is Outcome.FAILED
    assert fault.run.unpacked_outcome is Outcome.PASSED
    assert crash.run.outcome is Outcome.ERROR
    assert crash.failure is not None
    assert crash.failure.kind == "import"
    assert "RuntimeError: boom" in crash.run.reason
    assert 'File "tinytarget/models/esm2_flash.py", line 1' in crash.failure.traceback
    assert crash.run.configuration == first.run.configuration
    assert last.run.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        ("import os; os._exit(0)", "crash", "left with status 0 before"),
        ("import sys; sys.exit('enough')", "exception", "SystemExit: enough"),
        ("import ctypes; ctypes.string_at(0)", "crash", "ended by signal SIGSEGV"),
        ("def load_esm2_model(: pass", "import", "SyntaxError"),
    ],
)
def test_whatever_a_target_does_becomes_its_outcome(
    tiny: TinyRepository, make_plan: MakePlan, code: str, kind: str, sentence: str
) -> None:
    report = one(list(run_commits(make_plan([tiny.commit(broken(code))]))))
    assert report.run.outcome is Outcome.ERROR
    assert report.failure is not None
    assert report.failure.kind == kind
    assert sentence in report.run.reason


def test_a_hang_is_stopped_and_its_output_kept(tiny: TinyRepository, make_plan: MakePlan) -> None:
    code = "import time\nprint('going to sleep')\ntime.sleep(600)"
    start = time.monotonic()
    report = one(list(run_commits(make_plan([tiny.commit(broken(code))], timeout_s=5.0))))
    assert time.monotonic() - start < 100
    assert report.failure is not None
    assert report.failure.kind == "timeout"
    assert "within 5 s" in report.failure.message
    assert "going to sleep" in report.failure.log


def test_memory_beyond_the_limit_is_an_error(tiny: TinyRepository, make_plan: MakePlan) -> None:
    code = "block = bytearray(4 * 1024**3)"
    plan = make_plan([tiny.commit(broken(code))], memory_limit_gib=2.0)
    report = one(list(run_commits(plan)))
    assert report.failure is not None
    assert "MemoryError" in report.failure.traceback or report.failure.kind == "out_of_memory"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({COLLATOR_FILE: "x = 1\n"}, "No package here has both"),
        ({MODEL_FILE: HEALTHY_MODEL.replace("forward_packed", "packed")}, "has no forward_packed"),
        (
            {
                MODEL_FILE: HEALTHY_MODEL.replace(
                    "                layer: torch.cat(", "                layer: 2 * torch.stack("
                ).replace("[x[row, : end - start] for", "[x[row, :3] for")
            },
            "embeddings of shape",
        ),
        (
            {MODEL_FILE: HEALTHY_MODEL.replace("alphabet.get_batch_converter()", "1, 2")},
            "does not give (model, batch_converter)",
        ),
    ],
)
def test_a_broken_interface_is_named(
    tiny: TinyRepository, make_plan: MakePlan, files: dict[str, str], sentence: str
) -> None:
    report = one(list(run_commits(make_plan([tiny.commit(files)]))))
    assert report.run.outcome is Outcome.ERROR
    assert report.failure is not None
    assert report.failure.kind == "interface"
    assert sentence in report.run.reason


def test_sequences_that_the_collator_loses_fail(tiny: TinyRepository, make_plan: MakePlan) -> None:
    losing = HEALTHY[COLLATOR_FILE].replace("self.waiting += batch", "self.waiting += batch[1:]")
    report = one(list(run_commits(make_plan([tiny.commit({COLLATOR_FILE: losing})]))))
    assert report.run.outcome is Outcome.FAILED
    assert report.run.figures is not None
    assert report.run.figures.num_failed == 1


def test_equal_code_inherits_and_known_commits_are_passed_over(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    target = Target(name="tiny", location=str(tiny.folder), paths=("tinytarget",))
    first = head(tiny)
    second = tiny.commit({"README.md": "words\n"})
    reports = list(run_commits(make_plan([first, second], target=target)))
    assert [report.run.outcome for report in reports] == [Outcome.PASSED, Outcome.SKIPPED]
    skipped = reports[1].run
    assert skipped.inherited_from == first
    assert skipped.inherited_outcome is Outcome.PASSED
    assert skipped.effective_outcome is Outcome.PASSED
    assert skipped.configuration == reports[0].run.configuration

    known = [report.run for report in reports]
    third = tiny.commit({"README.md": "more\n"})
    settled: list[Run] = []
    again = list(
        run_commits(
            make_plan([first, second, third], target=target),
            known=known,
            on_settled=settled.append,
        )
    )
    assert [report.run.commit.hash for report in again] == [third]
    assert again[0].run.inherited_from == first
    assert settled == known

    forced = list(run_commits(make_plan([second], target=target, force=True), known=known))
    assert forced[0].run.outcome is Outcome.PASSED


def test_a_changed_environment_is_bridged_first(tiny: TinyRepository, make_plan: MakePlan) -> None:
    first = head(tiny)
    before = one(list(run_commits(make_plan([first])))).run
    assert before.environment is not None
    elsewhere = replace(before, environment=replace(before.environment, torch="1.0"))
    second = tiny.commit({MODEL_FILE: HEALTHY_MODEL + "\n# changed\n"})
    messages: list[str] = []
    reports = list(run_commits(make_plan([second]), known=[elsewhere], on_message=messages.append))
    assert [(report.run.commit.hash, report.run.bridge) for report in reports] == [
        (first, True),
        (second, False),
    ]
    assert "environment has changed" in messages[0]


def test_what_does_not_fit_the_time_waits_for_the_next_start(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    report = one(list(run_commits(make_plan([head(tiny)], max_minutes=0.0))))
    assert report.run.outcome is Outcome.NOT_RUN
    assert "limit of 0 min" in report.run.reason
    again = one(list(run_commits(make_plan([head(tiny)]), known=[report.run])))
    assert again.run.outcome is Outcome.PASSED


def test_going_back_and_forth_announces_what_is_planned(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    hashes = [head(tiny), *(tiny.commit({"n": str(number)}) for number in range(3))]
    target = Target(name="tiny", location=str(tiny.folder), paths=("tinytarget",))
    reports = list(run_commits(make_plan(hashes, target=target, order="bisect")))
    assert reports[0].run.commit.hash == hashes[3]
    latest = {report.run.commit.hash: report.run for report in reports}
    assert {run.outcome for run in latest.values()} == {Outcome.PASSED, Outcome.SKIPPED}
    planned = {r.run.commit.hash for r in reports if r.run.outcome is Outcome.NOT_RUN}
    assert planned == set(hashes[:3])


def test_spawned_cold_processes_give_the_same_figures(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    warm = one(list(run_commits(make_plan([head(tiny)])))).run
    cold = one(list(run_commits(make_plan([head(tiny)], fork=False, warm=False)))).run
    assert warm.figures is not None
    assert cold.figures is not None
    times = {"unpacked_s": None, "packed_s": None}
    assert replace(warm.figures, **times) == replace(cold.figures, **times)
    assert warm.gates == cold.gates


def test_a_yardstick_that_cannot_be_set_up_stops_everything(
    tiny: TinyRepository, make_plan: MakePlan, tmp_path: Path
) -> None:
    no_cuda = Request(model=MODEL, weights="synthetic", device="cuda:9")
    with pytest.raises(DeviceError, match="cuda:9"):
        list(run_commits(make_plan([head(tiny)], request=no_cuda)))
    garbage = tmp_path / f"{MODEL}.pt"
    garbage.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match=r"\.pt"):
        list(
            run_commits(make_plan([head(tiny)], request=Request(model=MODEL, weights=str(garbage))))
        )
    with pytest.raises(WeightsError, match="Unknown model"):
        list(run_commits(make_plan([head(tiny)], request=Request(model="no", weights="synthetic"))))


def test_turning_away_ends_the_worker(
    tiny: TinyRepository,
    make_plan: MakePlan,
    cache_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "WorkerPool", WorkerPool)
    before = set(descendants(os.getpid()))
    hashes = [head(tiny), tiny.commit(broken(WAITS))]
    reports = run_commits(make_plan(hashes, workers=2))
    next(reports)
    end = time.monotonic() + 60
    while not has_begun(cache_folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert len(set(descendants(os.getpid())) - before) >= 4  # server, watcher, judge, target
    reports.close()
    assert set(descendants(os.getpid())) <= before


def test_a_checkout_goes_wherever_it_ends(
    tiny: TinyRepository, make_plan: MakePlan, cache_folder: Path
) -> None:
    list(run_commits(make_plan([tiny.commit(broken("raise ValueError"))])))
    assert list(cache_folder.glob("repositories/worktrees/*")) == []


def test_an_adapter_of_ones_own_may_fail_like_any_target(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    target = Target(name="tiny", location=str(tiny.folder), adapter="json:loads")
    report = one(list(run_commits(make_plan([head(tiny)], target=target))))
    assert report.run.outcome is Outcome.ERROR
    assert "TypeError" in report.run.reason
