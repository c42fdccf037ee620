"""What the machine or the monitor did is tried again; only what the target did is an error."""

import errno
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.runner.conftest import MODEL, MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, WAITS, TinyRepository, has_begun
from virnucpro_monitor.models.weights import resolve_weights, synthesize
from virnucpro_monitor.records import Outcome, Request, RunReport
from virnucpro_monitor.records.messages import Ended
from virnucpro_monitor.runner import worktrees
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.endings import explain
from virnucpro_monitor.runner.supervisor import descendants


def killing(
    tiny: TinyRepository, make_plan: MakePlan, cache_folder: Path, whom: str
) -> list[RunReport]:
    """Cover one commit that waits to be killed, and a later one."""
    hashes = [
        tiny.commit({MODEL_FILE: WAITS + HEALTHY[MODEL_FILE]}),
        tiny.commit({MODEL_FILE: HEALTHY[MODEL_FILE]}),
    ]
    before = set(descendants(os.getpid()))

    def kill() -> None:
        end = time.monotonic() + 100
        while not has_begun(cache_folder) and time.monotonic() < end:
            time.sleep(0.02)
        # Git and others come and go meanwhile: what is looked for is the one line of the job.
        while time.monotonic() < end:
            line = [pid for pid in descendants(os.getpid()) if pid not in before]
            # In a namespace of its own a target does not know its number out here.
            line.sort(key=lambda pid: len(descendants(pid)), reverse=True)
            if [len(descendants(pid)) for pid in line] == [4, 3, 1, 0, 0]:
                break
            time.sleep(0.02)
        server, supervisor, first, *_ = line
        (target,) = descendants(first)
        (judge,) = set(line) - {server, supervisor, first, target}
        found = {"server": server, "supervisor": supervisor, "judge": judge, "target": target}
        os.kill(found[whom], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    reports = list(run_commits(make_plan(hashes, workers=1)))
    killer.join()
    return reports


@pytest.mark.parametrize(
    ("whom", "kind"),
    [("target", "killed"), ("judge", "lost"), ("supervisor", "lost"), ("server", "lost")],
)
def test_what_is_killed_from_outside_is_tried_again(
    tiny: TinyRepository,
    make_plan: MakePlan,
    cache_folder: Path,
    whom: str,
    kind: str,
    request: pytest.FixtureRequest,
) -> None:
    killed, later = killing(tiny, make_plan, cache_folder, whom)
    assert killed.run.outcome is Outcome.NOT_RUN
    assert "the next start tries again" in killed.run.reason
    assert killed.failure is not None
    assert killed.failure.kind == kind
    assert later.run.outcome is Outcome.PASSED
    request.getfixturevalue("shared_workers")  # only now: what was killed had its own
    again = list(
        run_commits(
            make_plan([later.run.commit.hash, killed.run.commit.hash], max_minutes=0.0),
            known=[killed.run, later.run],
        )
    )
    assert [one.run.commit.hash for one in again] == [killed.run.commit.hash]


@pytest.mark.usefixtures("shared_workers")
@pytest.mark.parametrize(
    "code",
    [
        "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'cache')",
        (
            "import errno, os\ntry:\n    raise OSError(errno.ENOSPC, 'full')\n"
            "except OSError as error:\n    raise RuntimeError('not saved') from error"
        ),
    ],
)
def test_a_full_disk_is_no_fault_of_the_commit(
    tiny: TinyRepository, make_plan: MakePlan, code: str
) -> None:
    full = tiny.commit({MODEL_FILE: f"{code}\n{HEALTHY[MODEL_FILE]}"})
    (report,) = run_commits(make_plan([full]))
    assert report.run.outcome is Outcome.NOT_RUN
    assert report.failure is not None
    assert report.failure.kind == "machine"


@pytest.mark.usefixtures("shared_workers")
def test_a_disk_that_is_too_full_to_check_out_on_is_no_fault_of_the_commit(
    tiny: TinyRepository, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    plan = make_plan([tiny.git("rev-parse", "HEAD")])
    monkeypatch.setattr(worktrees, "_fill", fail)
    (report,) = run_commits(plan)
    assert report.run.outcome is Outcome.NOT_RUN
    assert report.run.reason.startswith("The machine failed before this commit could run: ")


@pytest.mark.usefixtures("shared_workers")
def test_weights_that_change_on_the_way_are_tried_again(
    tiny: TinyRepository, make_plan: MakePlan, cache_folder: Path, tmp_path: Path
) -> None:
    source = resolve_weights(MODEL, "synthetic", cache_folder=cache_folder)
    weights = tmp_path / f"{MODEL}.pt"
    shutil.copyfile(source.path, weights)
    shutil.copyfile(source.regression_path, tmp_path / source.regression_path.name)
    hashes = [
        tiny.git("rev-parse", "HEAD"),
        tiny.commit({MODEL_FILE: HEALTHY[MODEL_FILE] + "\n# later\n"}),
    ]
    request = Request(model=MODEL, weights=str(weights))
    reports = run_commits(make_plan(hashes, request=request, workers=1))
    assert next(reports).run.outcome is Outcome.PASSED
    synthesize(MODEL, tmp_path / "other" / weights.name, seed=1)
    (tmp_path / "other" / weights.name).replace(weights)
    second = next(reports)
    assert second.run.outcome is Outcome.NOT_RUN
    assert second.failure is not None
    assert second.failure.kind == "weights"
    assert "has changed since this run began" in second.run.reason


_OVERWRITTEN = """
import os, shutil
shutil.copyfile({other!r}, {weights!r})
{then}
"""


@pytest.mark.usefixtures("shared_workers")
@pytest.mark.parametrize("then", ["", "os.abort()", "raise RuntimeError('shape')"])
def test_weights_that_are_overwritten_under_a_commit_are_no_verdict_on_it(
    tiny: TinyRepository, make_plan: MakePlan, cache_folder: Path, tmp_path: Path, then: str
) -> None:
    """In place, so that who has mapped them reads others, or beyond their end."""
    source = resolve_weights(MODEL, "synthetic", cache_folder=cache_folder)
    weights = tmp_path / f"{MODEL}.pt"
    shutil.copyfile(source.path, weights)
    shutil.copyfile(source.regression_path, tmp_path / source.regression_path.name)
    other = tmp_path / "other" / weights.name
    synthesize(MODEL, other, seed=1)
    code = _OVERWRITTEN.format(other=str(other), weights=str(weights), then=then)
    commit = tiny.commit({MODEL_FILE: HEALTHY[MODEL_FILE] + code})
    request = Request(model=MODEL, weights=str(weights))
    (report,) = run_commits(make_plan([commit], request=request, confine=False, force=True))
    assert report.run.outcome is Outcome.NOT_RUN
    assert report.run.reason == f"The weights file {weights.name} has changed since this run began."
    assert report.failure is not None
    assert report.failure.kind == "weights"


@pytest.mark.parametrize(
    ("cause", "code", "ours"),
    [
        ("lost", 0, True),
        ("cancelled", 9, True),
        ("signal", signal.SIGKILL, True),
        ("signal", signal.SIGTERM, True),
        ("signal", signal.SIGSEGV, False),
        ("signal", signal.SIGABRT, False),
        ("signal", 250, False),
        ("exit", 0, False),
        ("exit", 1, False),
        ("timeout", 9, False),
        ("memory", 9, False),
        ("garbage", 9, False),
    ],
)
def test_whose_doing_an_ending_is(cause: str, code: int, ours: bool) -> None:
    told = explain(Ended(cause=cause, code=code, log=""), 60.0, 2.0)
    assert told.ours is ours
    assert ("next start tries again" in told.message) is ours
