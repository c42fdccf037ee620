"""Which branches hold a commit that is not on the followed one: kept with its runs."""

from dataclasses import replace

from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.records import RunReport
from virnucpro_monitor.runner.sources import Source

MAX_BRANCHES = 50  # a commit that is older than all branches is on every one of them


def with_branches(report: RunReport, repository: Source | None) -> RunReport:
    """The report with a document "branches", where its commit is not on the followed branch.

    The document is the list of branches that held the commit when it was covered, by name, at most
    `MAX_BRANCHES`. A commit of the followed branch needs none: the target names that branch.
    """
    commit = report.run.commit
    if repository is None or commit.on_branch:
        return report
    try:
        names = repository.branches_with(commit.hash)[:MAX_BRANCHES]
    except RepositoryError:  # it has gone since, or the commit has: the run's outcome says so
        return report
    return replace(report, documents={**report.documents, "branches": list(names)})
