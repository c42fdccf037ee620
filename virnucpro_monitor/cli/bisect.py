"""`virnucpro-monitor bisect GOOD BAD`: the commit at which the verdict changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import (
    BenchmarkOption,
    DatabaseOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    PackageOption,
    TargetOption,
    TimeoutOption,
    TokenBudgetOption,
    WeightsOption,
    print_json,
    say,
)
from virnucpro_monitor.errors import ConfigurationError, MissingDatabase, RepositoryError
from virnucpro_monitor.records import Bisection, BisectStep, Commit, Run, Target, short_hash
from virnucpro_monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from virnucpro_monitor.cli.run_display import Display
    from virnucpro_monitor.cli.run_sink import Sink
    from virnucpro_monitor.runner.bisect import Finding
    from virnucpro_monitor.runner.commits import CommitRunner


def register(app: typer.Typer) -> None:
    app.command("bisect")(bisect)


def bisect(
    good: Annotated[str, typer.Argument(metavar="GOOD", help="A commit that passes.")],
    bad: Annotated[str, typer.Argument(metavar="BAD", help="A commit that fails.")],
    target: TargetOption = None,
    package: PackageOption = None,
    gate: Annotated[
        str | None, typer.Option("--gate", metavar="NAME", help="Judge by one gate alone.")
    ] = None,
    benchmark: BenchmarkOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    token_budget: TokenBudgetOption = None,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Stop measuring after this much run time."),
    ] = None,
    timeout: TimeoutOption = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the first bad commit, or, where BAD is the older one, the commit that mended it.

    Stored results are used where there are any, and every step is stored. Commits that cannot be
    run are stepped around. What neither a flag nor a setting says is as in the target's newest
    stored run; without --target it is the only one stored. Exit code: 0 found, 3 not narrowed down
    to one commit.
    """
    settings = load_settings(
        db=db,
        model=model,
        weights=weights,
        device=device,
        dtype=dtype,
        token_budget=token_budget,
        benchmark=benchmark or None,
        timeout_s=timeout,
    )
    from virnucpro_monitor.cli.run import choose_target, stored_targets

    if target is None:
        repositories = [one.name for one in stored_targets(settings) if one.adapter != "builtin"]
        target = repositories[0] if len(repositories) == 1 else None
    chosen = choose_target(settings, target, package)
    settings = as_measured_last(settings, chosen)
    if len(settings.benchmark) != 1:
        raise ConfigurationError("bisect goes by one benchmark set: name one by --benchmark.")
    if chosen.adapter == "builtin":
        raise ConfigurationError("bisect needs a repository: name it by --target.")
    bisection = bisect_and_store(settings, chosen, good, bad, gate=gate, max_minutes=max_minutes)
    if as_json:
        print_json(bisection)
    else:
        typer.echo(bisection.conclusion)
    raise typer.Exit(0 if bisection.first_bad else 3)


def as_measured_last(settings: Settings, target: Target) -> Settings:
    """Fill in what nobody has set with the set-up of the target's newest stored run."""
    from virnucpro_monitor.store.engine import open_engine
    from virnucpro_monitor.store.reader import load_runs

    with suppress(MissingDatabase):
        engine = open_engine(settings.database_url, read_only=True)
        try:
            runs = load_runs(engine, target=target.name, limit=1)
        finally:
            engine.dispose()
        if runs:
            used = runs[-1].configuration
            stored = {
                "benchmark": [runs[-1].benchmark],
                "model": used.model,
                "dtype": used.dtype,
                "token_budget": used.token_budget,
            }
            if used.device != settings.device.partition(":")[0]:
                stored["device"] = "cpu" if used.device == "cpu" else f"{used.device}:0"
            if used.weights in ("official", "synthetic"):  # a file's place is not stored
                stored["weights"] = used.weights
            unset = stored.keys() - settings.model_fields_set
            return settings.model_copy(update={name: stored[name] for name in unset})
    return settings


def bisect_and_store(
    settings: Settings,
    target: Target,
    good: str,
    bad: str,
    *,
    gate: str | None = None,
    max_minutes: float | None = None,
) -> Bisection:
    """Search between two commits and store the search with its steps.

    Raises:
        RepositoryError: the commits are not on one line.
        ConfigurationError: GOOD is not good, or BAD is not bad, by the verdict asked for.
    """
    from virnucpro_monitor.cli.run import make_plan
    from virnucpro_monitor.cli.run_display import open_display
    from virnucpro_monitor.cli.run_sink import Sink, holding_locks
    from virnucpro_monitor.runner.bisect import line_between
    from virnucpro_monitor.runner.commits import CommitRunner

    with (
        Sink(settings.database_url, target) as sink,
        holding_locks(settings, sink, wait_s=0.0, on_wait=say),
        open_display() as display,
    ):
        known = sink.known_runs()
        plan, selection = make_plan(settings, target, known, revisions=[good, bad])
        assert plan.repository is not None
        ends = [plan.repository.resolve(one) for one in (good, bad)]
        if ends[0] == ends[1]:
            raise RepositoryError(f"GOOD and BAD are the same commit, {short_hash(ends[0])}.")
        line = line_between(plan.repository, *ends)
        history = tuple(commit.hash for commit in selection.branch)
        commits = {one.hash: one for one in plan.repository.commits(line, history)}
        found: list[Run] = []
        with CommitRunner(
            replace(plan, commits=()),
            known=known,
            on_progress=display.progress,
            on_message=display.message,
            on_settled=found.append,
        ) as runner:
            sink.begin(replace(selection, commits=tuple(commits.values())))
            stepper = _Stepper(runner, sink, display, commits, found, gate)
            bisection = stepper.search(ends, line, settings.benchmark[0], max_minutes)
        sink.end(0 if bisection.first_bad else 3, bisection.conclusion.splitlines()[0])
    return bisection


class _Stepper:
    """Judges one commit after another and stores each step."""

    def __init__(
        self,
        runner: CommitRunner,
        sink: Sink,
        display: Display,
        commits: dict[str, Commit],
        settled: list[Run],
        gate: str | None,
    ) -> None:
        self._runner = runner
        self._sink = sink
        self._display = display
        self._commits = commits
        self._settled = settled
        self._gate = gate
        self._steps: list[BisectStep] = []
        self._id = 0
        self._used_s = 0.0

    def search(
        self, ends: list[str], line: Sequence[str], benchmark: str, max_minutes: float | None
    ) -> Bisection:
        from virnucpro_monitor.report.text import count
        from virnucpro_monitor.runner.bisect import search

        good, bad = ends
        bisection = Bisection(
            target=self._sink.target.name,
            good=good,
            bad=bad,
            benchmark=benchmark,
            gate=self._gate,
            started_at=datetime.now(UTC),
        )
        self._id = self._sink.writer.start_bisection(bisection)
        for commit, expected in ((good, "good"), (bad, "bad")):
            self._require(commit, expected)
        finding = None
        for finding in search(
            line,
            "good" if line[0] == good else "bad",
            self._judge,
            may_go_on=lambda: max_minutes is None or self._used_s < max_minutes * 60,
        ):
            self._display.message(f"{count(len(finding.suspects), 'commit')} left to suspect.")
        assert finding is not None
        first = finding.suspects[0] if len(finding.suspects) == 1 else None
        conclusion = describe_finding(finding, self._commits)
        self._sink.writer.finish_bisection(self._id, first_bad=first, conclusion=conclusion)
        return replace(
            bisection,
            id=self._id,
            first_bad=first,
            conclusion=conclusion,
            finished_at=datetime.now(UTC),
            steps=tuple(self._steps),
        )

    def _require(self, commit: str, expected: str) -> None:
        verdict = self._judge(commit)
        if verdict != expected:
            by = f"by the gate {self._gate}" if self._gate else "by the verdict"
            what = "cannot be judged" if verdict == "skip" else f"is {verdict}, not {expected},"
            given = f"{short_hash(commit)}, given as {expected.upper()},"
            conclusion = f"{given} {what} {by}: nothing to find."
            self._sink.writer.finish_bisection(self._id, first_bad=None, conclusion=conclusion)
            raise ConfigurationError(conclusion)

    def _judge(self, commit: str) -> str:
        from virnucpro_monitor.runner.bisect import verdict_of

        run: Run | None = None
        self._settled.clear()
        for report in self._runner.cover([self._commits[commit]]):
            stored = replace(report.run, id=self._sink.save(report))
            self._display.report(stored)
            self._used_s += stored.duration_s
            if stored.commit.hash == commit:  # a bridge run is another commit's
                run = stored
        reused = run is None
        if reused:
            run = next((one for one in self._settled if one.commit.hash == commit), None)
        verdict = verdict_of(run, self._gate)
        step = BisectStep(
            step=len(self._steps) + 1,
            commit=commit,
            verdict=verdict,
            run_id=run.id if run else None,
            reused=reused,
            at=datetime.now(UTC),
        )
        self._sink.writer.save_bisect_step(self._id, step)
        self._steps.append(step)
        self._display.message(
            f"{short_hash(commit)} is {verdict}{' (stored)' if reused else ''}: "
            f"{self._commits[commit].subject}"
        )
        return verdict


def describe_finding(finding: Finding, commits: dict[str, Commit]) -> str:
    """What `git bisect` would print."""
    if len(finding.suspects) == 1:
        commit = commits[finding.suspects[0]]
        word = "bad" if finding.verdict == "bad" else "good"
        lines = [f"{commit.hash} is the first {word} commit", f"commit {commit.hash}"]
        lines.append(f"Author: {commit.author}")
        if commit.authored_at is not None:
            lines.append(f"Date:   {commit.authored_at.isoformat(sep=' ')}")
        return "\n".join([*lines, "", f"    {commit.subject}"])
    why = "Only commits that cannot run are left."
    if finding.exhausted:
        why = "The budget is used up."
    listed = "\n".join(finding.suspects)
    return f"{why} The first {finding.verdict} commit could be any of:\n{listed}"
