"""A stored history for the tests of the reading commands: real git commits, made-up results."""

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.store.builders import TARGET, make_commit, make_report
from virnucpro_monitor.records import Commit, Failure, Outcome, RunReport, Target
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

START = datetime(2026, 3, 1, tzinfo=UTC)
GOOD = (0.99999, 1.0, 0.9999999)
BAD = (0.99, 1.0, 0.9999999)
HOSTILE = "[bold]<b>|\x1b[31m\u202eevil"
SUBJECTS = ("Start", "Break it", "Describe it", "Mend it", "Forget a file", HOSTILE)


def make_repository(folder: Path) -> list[Commit]:
    """A repository with one commit for each subject, on the branch `main`, tagged `v1` at the
    third."""
    folder.mkdir()

    def git(*arguments: str, day: int = 0) -> str:
        moment = (START + timedelta(days=day)).isoformat()
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            check=True,
            capture_output=True,
            text=True,
            env={
                "PATH": "/usr/bin:/bin",
                "GIT_AUTHOR_DATE": moment,
                "GIT_COMMITTER_DATE": moment,
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_AUTHOR_NAME": "A Tester",
                "GIT_AUTHOR_EMAIL": "tester@example.org",
                "GIT_COMMITTER_NAME": "A Tester",
                "GIT_COMMITTER_EMAIL": "tester@example.org",
            },
        ).stdout.strip()

    git("init", "--quiet", "--initial-branch", "main")
    commits = []
    for day, subject in enumerate(SUBJECTS):
        git("commit", "--quiet", "--allow-empty", "--cleanup=verbatim", "-m", subject, day=day)
        commits.append(
            make_commit(
                day,
                hash=git("rev-parse", "HEAD"),
                parents=(),
                subject=subject,
                authored_at=START + timedelta(days=day),
                committed_at=START + timedelta(days=day),
            )
        )
        if day == 2:
            git("tag", "v1")
    return commits


def make_reports(target: Target, commits: list[Commit]) -> list[RunReport]:
    """Passed, failed, skipped (inherits failed), passed, error, passed."""

    def report(place: int, similarities: tuple[float, ...], **changes: object) -> RunReport:
        return make_report(place, similarities, target=target, commit=commits[place], **changes)

    failed = report(1, BAD)
    inherits = replace(
        report(
            2,
            BAD,
            outcome=Outcome.SKIPPED,
            inherited_from=commits[1].hash,
            inherited_outcome=Outcome.FAILED,
            reason="No relevant file differs.",
        ),
        sequences=(),
    )
    error = report(
        4,
        (),
        outcome=Outcome.ERROR,
        culprit=None,
        gates=(),
        reason=f"sample cannot be imported {HOSTILE}",
        failure=Failure(
            kind="import",
            message="No module named 'sample.rest'",
            traceback=f"Traceback (most recent call last):\n  {HOSTILE}",
            log="a line of its output",
        ),
    )
    return [report(0, GOOD), failed, inherits, report(3, GOOD), error, report(5, GOOD)]


def make_database(folder: Path) -> tuple[str, list[Commit]]:
    """URL of a database with the history of `make_repository`, and its commits."""
    commits = make_repository(folder / "repository")
    target = replace(TARGET, location=str(folder / "repository"))
    url = f"sqlite:///{folder / 'monitor.db'}"
    create_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    for report in make_reports(target, commits):
        writer.save_run(report)
    engine.dispose()
    return url, commits
