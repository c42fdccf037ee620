"""A month of a watched repository: what is sent, by real senders to real servers of this machine.

A table of what is expected, day by day, against what arrived. Runs are built straight into the
store; the clock is given.
"""

import math
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from tests.report.receivers import Hook, Mailbox, mail_server, web_server
from tests.store.builders import ENVIRONMENT, TARGET, make_commit, make_report
from virnucpro_monitor.host.alert_file import read_alert_file
from virnucpro_monitor.records import Commit, Culprit, Figures, GateResult, Outcome, RunReport
from virnucpro_monitor.report.alerting import run_alert_pass
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

BERLIN = ZoneInfo("Europe/Berlin")
FIRST = date(2026, 3, 9)  # the clock is put forward in the night to day 20
RESCALE, MASK = "rescale missing", "<mask> not zeroed"

EXPECTED = [
    # day, kind, what the title says
    (3, "broken", "broken since 0003000000 “Change number 3”"),
    (5, "mended", f"mended by 0005000000, which fails for another cause: packed side, {RESCALE}"),
    (7, "mended", f"mended by 0007000000: packed side, {MASK}"),
    (11, "moved", "slower since 0009000000 “Change number 9”"),
    (12, "broken", "broken since 000c000000 “Change number 12”"),
    (13, "mended", "over, it passes when measured again: packed side, gate seed"),
    (15, "silent", "nothing heard of the runner since 2026-03-23 10:00 UTC"),
    (18, "heard", "the runner is heard of again"),
    (21, "environment", "results moved with the environment (torch: 2.13.0 → 2.14.0)"),
    (24, "broken", "broken since 0018000000 “Change number 24”"),
    (25, "mended", "over, 0018000000 has left the branch: packed side, gate seed"),
    (27, "moved", "slowly less accurate, no gate fails, since about "),
]


def gate(name: str, passed: bool, value: float) -> GateResult:
    return GateResult(name=name, passed=passed, value=value, limit=1e-3, unit="relative L2")


class Month:
    """The repository and its runner, one commit a day, measured at 11 o'clock."""

    def __init__(self, engine: Engine) -> None:
        self.writer = Writer(engine)
        self.commits: list[Commit] = []
        self.error = 1e-6
        self.packed_s = 0.5
        self.environment = ENVIRONMENT

    def commit(self, day: int, **changes: Any) -> Commit:
        made = datetime.combine(FIRST + timedelta(days=day), time(9), tzinfo=BERLIN)
        values = {"authored_at": made, "committed_at": made, "position": len(self.commits)}
        one = replace(make_commit(day), **{**values, **changes})
        self.commits.append(one)
        return one

    def measure(
        self, day: int, *, names: tuple[str, ...] = (), error: float = 0.0, hour: int = 11,
        commit: Commit | None = None, **changes: Any,
    ) -> None:  # fmt: skip
        """Measure a day's commit; with `error` it fails, `names` are the faults that are found."""
        commit = commit or self.commit(day)
        wobble = 10 ** (0.01 * math.sin(len(self.commits) * 2.4))
        found = error or self.error * wobble
        documents: dict[str, Any] = {}
        if names:
            documents["trace"] = {"finding": names[0], "signature": names[0]}
        if len(names) > 1:
            documents["probes"] = {"embedding": {"signature": names[1]}}
        gates = (gate("seed", not error, found), gate("mask", MASK not in names, found))
        report = make_report(
            day,
            (1 - found, 1 - found / 2, 1.0),
            commit=commit,
            documents=documents,
            outcome=Outcome.FAILED if error else Outcome.PASSED,
            culprit=Culprit.PACKED if error else Culprit.NONE,
            gates=gates,
            environment=self.environment,
            started_at=datetime.combine(FIRST + timedelta(days=day), time(hour), tzinfo=BERLIN),
            code_digest=f"code-{day}",
            **changes,
        )
        self.writer.save_run(self._timed(report, wobble))

    def _timed(self, report: RunReport, wobble: float) -> RunReport:
        figures = report.run.figures
        assert isinstance(figures, Figures)
        timed = replace(figures, packed_s=self.packed_s * wobble, unpacked_s=2.0, num_tokens=1000)
        return replace(report, run=replace(report.run, figures=timed))

    def push(self) -> None:
        self.writer.save_commits(TARGET.name, self.commits, whole_history=True)

    def day(self, day: int) -> None:
        match day:
            case 3 | 4:
                self.measure(day, names=(RESCALE, MASK), error=0.1)
            case 5 | 6:  # the larger fault is mended, the other one stays
                self.measure(day, names=(MASK,), error=1e-3)
            case 9:  # from here on twice as slow
                self.packed_s = 1.0
                self.measure(day)
            case 12:
                self.measure(day, error=0.01)
            case 13:  # the runner tries day 12 again: a flake
                self.measure(12, hour=12, commit=self.commits[12])
                self.measure(day)
            case 15 | 16 | 17:  # a silent week's end: nothing runs, and nobody commits
                return
            case 19:  # another torch
                self.environment = replace(ENVIRONMENT, torch="2.14.0")
                self.error = 1e-5
                self.measure(day)
            case 24:
                self.measure(day, error=0.02)
            case 25:  # day 24 is thrown away by a force-push
                del self.commits[-1]
                self.measure(day)
            case _ if day >= 26:  # busy days: each commit within the noise, all of them not
                for number in range(5):
                    self.error *= 10**0.05
                    busy = self.commit(day, hash=f"{day:02x}{number:02x}".ljust(40, "d"))
                    self.measure(day, commit=busy, hour=10)
            case _:
                self.measure(day)
        self.push()


@pytest.fixture
def month(tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path / 'month.db'}"
    create_database(url)
    engine = open_engine(url)
    yield Month(engine), url
    engine.dispose()


def test_a_month_sends_exactly_what_it_should(month: Any, tmp_path: Path) -> None:
    repository, url = month
    path = tmp_path / "alerts.toml"
    received: list[tuple[int, str, str]] = []
    with mail_server() as box, web_server() as hook:
        _write(path, box, hook)
        file = read_alert_file(path)
        assert file is not None
        seen = 0
        for day in range(31):
            repository.day(day)
            for hour in (12, 23):  # the second line of the crontab, also in the quiet hours
                now = datetime.combine(FIRST + timedelta(days=day), time(hour), tzinfo=BERLIN)
                done = run_alert_pass(url, file, now=now.astimezone(UTC), ask_repositories=False)
                assert done.problems == ()
                assert [one.problem for one in done.delivered if one.problem] == []
                received += [
                    (day, post["title"].partition("|")[0], post["title"].partition("|")[2])
                    for _, post in hook.posts[seen:]
                ]
                seen = len(hook.posts)
        got = [(day, kind) for day, kind, _ in received]
        assert got == [one[:2] for one in EXPECTED], received
        for (_, _, title), (_, _, words) in zip(received, EXPECTED, strict=True):
            assert words in title
        # The mailbox takes incidents alone, at once and by day: none came between 22 and 7.
        kinds = [kind for _, kind, _ in EXPECTED]
        assert len(box.mails) == kinds.count("broken") + kinds.count("mended")
        first = box.texts()[0]
        assert MASK in first
        assert RESCALE in first
        assert f"{make_commit(3).hash} “Change number 3” by A Tester" in first
        assert f"{make_commit(2).hash} “Change number 2” by A Tester" in first
        assert "short_1: 1 - cos 1.0e-1, 8 residues" in first
        assert "https://monitor.example.org/dash/incidents?incident=" in first
        again = f"virnucpro-monitor run --target sample --commit {make_commit(3).hash}"
        assert again in first.replace("\n", " ")


def _write(path: Path, box: Mailbox, hook: Hook) -> None:
    path.touch(0o600)
    path.write_text(
        f"""
dashboard = "https://monitor.example.org/dash/"
silent_after = "26h"
zone = "Europe/Berlin"
[channels.all]
url = "{hook.url()}"
title = "{{kind}}|{{verdict}}"
[channels.team]
url = "{box.url}"
kinds = ["broken", "mended"]
quiet = "22:00-07:00"
"""
    )
