"""Find the commit at which a target's verdict changed, and store the search with its steps."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from virnucpro_monitor.errors import ConfigurationError, MissingDatabase, RepositoryError
from virnucpro_monitor.monitor.naming import find_commits
from virnucpro_monitor.monitor.running import (
    SILENT,
    Listener,
    RunOptions,
    check_disks,
    make_plan,
    stored_targets,
)
from virnucpro_monitor.monitor.sink import Sink, holding_locks
from virnucpro_monitor.records import (
    Bisection,
    BisectStep,
    Commit,
    Outcome,
    Run,
    Target,
    short_hash,
)
from virnucpro_monitor.records.request import NAMED_WEIGHTS
from virnucpro_monitor.runner.bisect import (
    BAD,
    GOOD,
    SKIP,
    Finding,
    line_between,
    search,
    verdict_of,
)
from virnucpro_monitor.runner.commits import CommitRunner
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_runs

_WORDS = {GOOD: "is good", BAD: "is bad", SKIP: "cannot be judged"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectOptions:
    """How to search.

    Attributes:
        gate: the gate that decides, None for the whole verdict.
        max_time_s: of run time, after which nothing more is measured; None: no limit.
        retry_errors: measure commits again that could not be run.
        wait_s: how long another runner of this target is waited for.
        gpu_wait_s: how long a busy GPU is waited for.

    Raises:
        ConfigurationError: a time that is none.
    """

    gate: str | None = None
    max_time_s: float | None = None
    retry_errors: bool = False
    wait_s: float = 0.0
    gpu_wait_s: float = 600.0

    def __post_init__(self) -> None:
        _ = self.for_a_run  # which checks the times

    @property
    def for_a_run(self) -> RunOptions:
        return RunOptions(
            max_time_s=self.max_time_s,
            retry_errors=self.retry_errors,
            wait_s=self.wait_s,
            gpu_wait_s=self.gpu_wait_s,
        )


WHOLE_VERDICT = BisectOptions()


def only_stored_repository(settings: Settings, revision: str) -> str | None:
    """The name of the stored target that has runs of a repository; None where there is none.

    Args:
        revision: tells which is meant, where there are several.

    Raises:
        ConfigurationError: several could be meant.
    """
    repositories = [one.name for one in stored_targets(settings) if one.adapter != "builtin"]
    if len(repositories) > 1:
        repositories = [name for name in repositories if _newest_run(settings, name) is not None]
    if len(repositories) > 1:
        engine = open_engine(settings.database_url, read_only=True)
        try:
            having = {found.target for found in find_commits(engine, revision)}
        finally:
            engine.dispose()
        repositories = [name for name in repositories if name in having] or repositories
    if len(repositories) > 1:
        names = ", ".join(repositories)
        raise ConfigurationError(f"Several targets are stored: choose by --target ({names}).")
    return repositories[0] if repositories else None


def as_measured_last(settings: Settings, target: Target) -> Settings:
    """Fill in what nobody has set with the set-up of the target's newest stored run."""
    newest = _newest_run(settings, target.name)
    if newest is None:
        return settings
    used = newest.configuration
    stored = {
        "benchmark": [newest.benchmark],
        "model": used.model,
        "dtype": used.dtype,
        "token_budget": used.token_budget,
        "device": "cpu" if used.device == "cpu" else settings.device,  # which card is not stored
    }
    if used.weights in NAMED_WEIGHTS:  # a file's place is not stored
        stored["weights"] = used.weights
    unset = stored.keys() - settings.model_fields_set
    return settings.model_copy(update={name: stored[name] for name in unset})


def _newest_run(settings: Settings, target: str) -> Run | None:
    with suppress(MissingDatabase):
        engine = open_engine(settings.database_url, read_only=True)
        try:
            runs = load_runs(engine, target=target, limit=1)
        finally:
            engine.dispose()
        return runs[0] if runs else None
    return None


def bisect_and_store(
    settings: Settings,
    target: Target,
    good: str,
    bad: str,
    options: BisectOptions = WHOLE_VERDICT,
    listener: Listener = SILENT,
) -> Bisection:
    """Search between two commits and store the search with its steps.

    Stored results are used where there are any. Where BAD is the older commit, the one that mended
    it is searched for.

    Raises:
        RepositoryError: the commits are not on one line.
        ConfigurationError: the target is the built-in one, not one benchmark set is named, or GOOD
            is not good, or BAD is not bad, by the verdict asked for.
    """
    if len(settings.benchmark) != 1:
        raise ConfigurationError("bisect goes by one benchmark set: name one by --benchmark.")
    if target.adapter == "builtin":
        raise ConfigurationError("bisect needs a repository: name it by --target.")
    with (
        Sink(settings.database_url, target, say=listener.on_message) as sink,
        holding_locks(settings, sink, wait_s=options.wait_s, on_wait=listener.on_message),
    ):
        check_disks(settings)
        known = sink.known_runs()
        wanted = replace(options.for_a_run, max_time_s=None)
        plan, selection = make_plan(settings, target, known, wanted)
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
            on_progress=listener.on_progress,
            on_message=listener.on_message,
            on_settled=found.append,
        ) as runner:
            sink.begin(replace(selection, commits=tuple(commits.values())))
            stepper = _Stepper(runner, sink, listener, commits, found, options.gate)
            return stepper.search(ends, line, settings.benchmark[0], options.max_time_s)


class _Stepper:
    """Judges one commit after another and stores each step."""

    def __init__(
        self,
        runner: CommitRunner,
        sink: Sink,
        listener: Listener,
        commits: dict[str, Commit],
        settled: list[Run],
        gate: str | None,
    ) -> None:
        self._runner = runner
        self._sink = sink
        self._listener = listener
        self._commits = commits
        self._settled = settled
        self._gate = gate
        self._steps: list[BisectStep] = []
        self._judged: Run | None = None
        self._id = 0
        self._used_s = 0.0

    def search(
        self, ends: list[str], line: Sequence[str], benchmark: str, max_time_s: float | None
    ) -> Bisection:
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
        for commit, expected in ((good, GOOD), (bad, BAD)):
            self._require(commit, expected)
        finding, num_suspects = None, 0
        for finding in search(
            line,
            GOOD if line[0] == good else BAD,
            self._judge,
            may_go_on=lambda: max_time_s is None or self._used_s < max_time_s,
        ):
            if len(finding.suspects) != num_suspects:
                num_suspects = len(finding.suspects)
                commits = "commit" if num_suspects == 1 else "commits"
                self._listener.on_message(f"{num_suspects} {commits} left to suspect.")
        assert finding is not None
        first = finding.suspects[0] if len(finding.suspects) == 1 else None
        conclusion = describe_finding(finding, self._commits)
        others = describe_changes(
            [
                change
                for change in find_changes(line, self._known_verdicts())
                if change.commit not in finding.suspects
            ],
            self._commits,
        )
        conclusion = "\n".join([conclusion, *others])
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
            what = "cannot be judged" if verdict == SKIP else f"is {verdict}, not {expected},"
            given = f"{short_hash(commit)}, given as {expected.upper()},"
            conclusion = f"{given} {what} {by}: nothing to find."
            self._sink.writer.finish_bisection(self._id, first_bad=None, conclusion=conclusion)
            raise ConfigurationError(conclusion)

    def _judge(self, commit: str) -> str:
        run: Run | None = None
        attempts: set[Outcome] = set()
        self._settled.clear()
        for report in self._runner.cover([self._commits[commit]]):
            stored = replace(report.run, id=self._sink.save(report))
            self._listener.on_run(stored)
            self._used_s += stored.duration_s
            if stored.commit.hash == commit:  # a bridge run is another commit's
                run = stored
                attempts.add(stored.outcome)
        reused = run is None
        if reused:
            run = next((one for one in self._settled if one.commit.hash == commit), None)
        # What both passes and fails cannot say on which side of a change it lies.
        flips = {Outcome.PASSED, Outcome.FAILED} <= attempts
        verdict = SKIP if flips else verdict_of(run, self._gate)
        self._judged = run or self._judged
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
        self._listener.on_message(
            f"{short_hash(commit)} {_WORDS[verdict]}{' (stored)' if reused else ''}: "
            f"{self._commits[commit].subject}"
        )
        return verdict

    def _known_verdicts(self) -> dict[str, str]:
        """The verdicts of all commits that are stored in the set-up that was searched in."""
        example = self._judged
        if example is None:
            return {}
        return {
            run.commit.hash: verdict_of(run, self._gate)
            for run in self._sink.known_runs()
            if run.benchmark_digest == example.benchmark_digest
            and run.configuration.digest == example.configuration.digest
            and run.protocol_digest == example.protocol_digest
        }


@dataclass(frozen=True, slots=True)
class Change:
    """Two neighbouring stored verdicts that differ.

    Attributes:
        commit: full hash of the later one.
        verdict: of that commit, "good" or "bad".
        num_between: commits between the two whose verdict is not known: any of them may be it.
    """

    commit: str
    verdict: str
    num_between: int


def find_changes(line: Sequence[str], verdicts: Mapping[str, str]) -> list[Change]:
    """Where the verdict changes along a line of commits, oldest first, by what is known."""
    changes: list[Change] = []
    before, num_between = None, 0
    for commit in line:
        verdict = verdicts.get(commit, SKIP)
        if verdict == SKIP:
            num_between += 1
            continue
        if before not in (None, verdict):
            changes.append(Change(commit, verdict, num_between))
        before, num_between = verdict, 0
    return changes


def describe_changes(changes: Sequence[Change], commits: Mapping[str, Commit]) -> list[str]:
    """Lines that name other changes than the one that was found; none where there are none."""
    if not changes:
        return []
    lines = ["", "The verdict also changes elsewhere in this range, by what is stored:"]
    for change in changes:
        commit = commits[change.commit]
        doubt = ""
        if change.num_between:
            doubt = f" (or at one of the {change.num_between} before it without a verdict)"
        lines.append(f"    {change.verdict:4} from {commit.short} {commit.subject}{doubt}")
    return lines


def describe_finding(finding: Finding, commits: Mapping[str, Commit]) -> str:
    """What `git bisect` would print."""
    if len(finding.suspects) == 1:
        commit = commits[finding.suspects[0]]
        lines = [f"{commit.hash} is the first {finding.verdict} commit", f"commit {commit.hash}"]
        lines.append(f"Author: {commit.author}")
        if commit.authored_at is not None:
            lines.append(f"Date:   {commit.authored_at.isoformat(sep=' ')}")
        return "\n".join([*lines, "", f"    {commit.subject}"])
    why = "Only commits that cannot run are left."
    if finding.exhausted:
        why = "The budget is used up."
    listed = "\n".join(finding.suspects)
    return f"{why} The first {finding.verdict} commit could be any of:\n{listed}"
