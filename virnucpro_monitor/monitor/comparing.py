"""Two commits side by side: which of their runs belong together, and what differs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from virnucpro_monitor.analysis.comparison import (
    Comparison,
    Noise,
    Thresholds,
    compare_runs,
)
from virnucpro_monitor.analysis.moved import compare_embeddings
from virnucpro_monitor.analysis.series import SeriesKey, series_key
from virnucpro_monitor.errors import NotFoundError
from virnucpro_monitor.monitor.histories import find_good_before, list_series, load_neighbours
from virnucpro_monitor.monitor.naming import choose_target, find_commit, of_target
from virnucpro_monitor.monitor.questions import load_measured
from virnucpro_monitor.records import (
    EMBEDDING_DATA,
    EMBEDDINGS,
    Commit,
    Json,
    Outcome,
    PooledEmbeddings,
    Run,
    SequenceResult,
    Target,
    read_embeddings,
)
from virnucpro_monitor.store import reader
from virnucpro_monitor.store.engine import Engine


@dataclass(frozen=True, slots=True)
class Pairing:
    """Runs of two commits that belong together, and those that stand alone."""

    pairs: tuple[tuple[Run, Run], ...]
    only_base: tuple[Run, ...]
    only_head: tuple[Run, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitComparison:
    """Two commits, compared in every way in which both were measured.

    Attributes:
        target: the head's.
        comparisons: one for each pair of runs; never empty.
        only_base, only_head: runs without a counterpart.
    """

    target: str
    base: Commit
    head: Commit
    comparisons: tuple[Comparison, ...]
    only_base: tuple[Run, ...] = ()
    only_head: tuple[Run, ...] = ()


def compare_commits(
    engine: Engine,
    base: str | None = None,
    head: str | None = None,
    *,
    target: str | None = None,
    benchmark: str | None = None,
) -> CommitComparison:
    """Compare two commits.

    Args:
        base, head: a hash or its first digits, a branch, a tag; with TARGET: before it, of that
            target, so that the same commit is compared in two environments. Without a head the
            followed branch's newest measured commit; without both that one against the last good
            one before it.
        target: a name, or the path or URL of the repository; None for the one that has the base.
        benchmark: a set's name, or "name@version"; None for all.

    Raises:
        AmbiguousRevision: a short hash fits several commits.
        NotFoundError: a commit has no stored run, or the two have no benchmark set in common.
    """
    base_target, base = of_target(base) if base else (None, None)
    head_target, head = of_target(head) if head else (None, None)
    before = choose_target(engine, base_target or target, revision=base)
    stored = choose_target(engine, head_target) if head_target else before
    if base is None:
        base_commit, head_commit = _default_commits(engine, stored, benchmark)
    else:
        base_commit = find_commit(engine, base, before)
        head_commit = (
            newest_commit(engine, stored) if head is None else find_commit(engine, head, stored)
        )
    pairing = pair_runs(
        engine, stored.name, base_commit, head_commit, benchmark, base_target=before.name
    )
    return CommitComparison(
        target=stored.name,
        base=base_commit,
        head=head_commit,
        comparisons=tuple(compare_pair(engine, one, other) for one, other in pairing.pairs),
        only_base=pairing.only_base,
        only_head=pairing.only_head,
    )


def newest_commit(engine: Engine, target: Target) -> Commit:
    """The newest commit of the followed branch that has a run."""
    runs = reader.load_runs(engine, target=target.name, on_branch=True, limit=1)
    if not runs:
        raise NotFoundError(f"No commit of {target.name} has a stored run.")
    return runs[0].commit


def _default_commits(
    engine: Engine, target: Target, benchmark: str | None
) -> tuple[Commit, Commit]:
    for base, head in suggest_pairs(engine):
        fits = benchmark in (None, head.benchmark, head.benchmark_label)
        if head.target == target.name and fits:
            return base.commit, head.commit
    raise NotFoundError(
        f"{target.name} has no two measured commits to compare: name them, or measure more."
    )


def pair_runs(
    engine: Engine,
    target: str,
    base: Commit,
    head: Commit,
    benchmark: str | None = None,
    *,
    base_target: str | None = None,
) -> Pairing:
    """Pair the runs of one series; what is left over is paired by benchmark name, if it can be.

    Such a pair differs in version or configuration: the comparison says so.

    Args:
        base_target: of the base, where it is another than the head's.

    Raises:
        NotFoundError: one of the commits has no run, or they have no benchmark set in common.
    """
    both = (base_target or target, base.hash) != (target, head.hash)
    bases, heads = (
        reader.load_runs(engine, target=name, commits={commit.hash}, benchmark=benchmark)
        for name, commit in ((base_target or target, base), (target, head))
    )
    for name, commit, found in ((base_target or target, base, bases), (target, head, heads)):
        if not found:
            wanted = f" on {benchmark}" if benchmark else ""
            raise NotFoundError(
                f"Commit {commit.short} has no stored run{wanted}: virnucpro-monitor run "
                f"--target {name} --commit {commit.short} stores one."
            )
    sets = [", ".join(sorted({run.benchmark for run in found})) for found in (bases, heads)]
    pairs = []
    for same in (series_key, _but_target, lambda run: run.benchmark):
        for run in list(heads):
            partner = next((one for one in bases if same(one) == same(run)), None)
            if partner is not None:
                pairs.append((partner, run))
                heads.remove(run)
                if both:
                    bases.remove(partner)
    if not both:
        bases = []
    if not pairs:
        raise NotFoundError(
            f"{base.short} and {head.short} were run on other benchmark sets "
            f"({sets[0]} and {sets[1]}): there is nothing to compare."
        )
    return Pairing(tuple(pairs), tuple(bases), tuple(heads))


def _but_target(run: Run) -> SeriesKey:
    return replace(series_key(run), target="")


def compare_pair(engine: Engine, base: Run, head: Run) -> Comparison:
    """Compare two runs by the protocol that judged the head; a skipped one stands on what it
    inherits."""
    base_measured, base_sequences = load_measured(engine, base)
    head_measured, head_sequences = load_measured(engine, head)
    protocol = reader.load_protocol(engine, head_measured.protocol_digest)
    noise = [
        reader.load_document(engine, run.row_id, "noise")
        for run in (base_measured, head_measured)
        if run.outcome is Outcome.PASSED
    ]
    compared = compare_runs(
        base,
        base_sequences,
        head,
        head_sequences,
        noise=Noise.of_documents(noise),
        thresholds=Thresholds.of_protocol(protocol.content),
        base_measured=base_measured,
        head_measured=head_measured,
    )
    weights = {run.configuration.weights_digest for run in (base_measured, head_measured)}
    if len(weights) > 1 or base_measured.benchmark_digest != head_measured.benchmark_digest:
        return compared
    moved = compare_embeddings(
        _embeddings_of(engine, base_measured),
        [one.sequence_id for one in base_sequences],
        _embeddings_of(engine, head_measured),
        [one.sequence_id for one in head_sequences],
        [
            *(document for document in noise if document),
            *_sides_apart(base_measured, base_sequences),
            *_sides_apart(head_measured, head_sequences),
        ],
    )
    return replace(compared, moved=moved)


def _sides_apart(run: Run, sequences: Sequence[SequenceResult]) -> list[Json]:
    """A healthy run's two sides are one model in two orders of summation: that is noise, too."""
    if run.outcome is not Outcome.PASSED:
        return []
    return [{"reordered": one.relative_l2} for one in sequences if one.relative_l2 is not None]


def _embeddings_of(engine: Engine, run: Run) -> PooledEmbeddings | None:
    names = (EMBEDDINGS, EMBEDDING_DATA)
    return read_embeddings({name: reader.load_document(engine, run.row_id, name) for name in names})


def suggest_pairs(engine: Engine) -> tuple[tuple[Run, Run], ...]:
    """What is worth comparing, one pair of runs for each series, the bad series first.

    The newest run of each against the last good one before it, or the one before where none is.
    """
    pairs = []
    for card in list_series(engine):
        base = find_good_before(engine, card.latest) or load_neighbours(engine, card.latest)[0]
        if base is not None:
            pairs.append((base, card.latest))
    return tuple(pairs)


def commits_between(commits: Sequence[Commit], base: Run, head: Run, limit: int) -> list[Commit]:
    """Commits after the older of two up to and with the newer, oldest first, at most `limit`.

    Args:
        commits: of the branch.
    """
    places = sorted((run.commit.position is None, run.commit.position or 0) for run in (base, head))
    if places[1][0]:
        return []
    first, last = places[0][1], places[1][1]
    return [
        commit
        for commit in commits
        if commit.position is not None and first < commit.position <= last
    ][:limit]
