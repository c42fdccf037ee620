"""What broke, when, by whom and which side: one sentence over all series. Plain text."""

from collections.abc import Sequence
from datetime import datetime

from virnucpro_monitor.analysis.incidents import Cause, Incident, IncidentState
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.monitor.histories import SeriesCard
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.report.sentences import cause_words
from virnucpro_monitor.report.text import count, format_age, one_line

_LASTING = (IncidentState.OPEN, IncidentState.ACKNOWLEDGED)


def headline(series: Sequence[SeriesCard], now: datetime) -> str:
    """What broke last in a sentence, and how many other series are bad.

    A series whose newest run is good is healthy; how far behind its measurements are is said.
    """
    unwatched = sum(card.is_unwatched for card in series)
    watched = [card for card in series if not card.is_unwatched]
    bad = [card for card in watched if card.latest.effective_outcome.is_bad]
    if bad:
        last = max(bad, key=_broke_at)
        alone = sum(card.key.target == last.key.target for card in series) == 1
        parts = [broken_words(last, now, of_several=not alone)]
        others = len(bad) - 1
        if others:
            parts.append(f"{others} more of {len(series)} series {_are(others)} bad")
    else:
        parts = [_healthy_words(watched)]
    if unwatched:
        parts.append(f"{unwatched} {_are(unwatched)} not measured since {_it(unwatched)} broke")
    return "; ".join(parts)


def _broke_at(card: SeriesCard) -> datetime:
    """By the commit that began its newest lasting incident; of none the newest run's."""
    begun = [commit_date(one.first_bad) for one in card.incidents if one.state in _LASTING]
    return max(begun, default=commit_date(card.latest))


def _healthy_words(series: Sequence[SeriesCard]) -> str:
    if not series:
        return "No series is measured now"
    targets = {card.key.target for card in series}
    name = one_line(targets.pop(), 60) if len(targets) == 1 else ""
    if len(series) == 1:
        whole = f"{name} is healthy"
    else:
        whole = f"{name}: all" if name else "All"
        whole += f" {len(series)} series are healthy"
    behind = [card for card in series if card.commits_behind]
    if not behind:
        return f"{whole} at the newest commit"
    most = max(card.commits_behind for card in behind)
    if len(series) == 1:
        return f"{whole} when last measured, {count(most, 'commit')} ago"
    return f"{whole}; {len(behind)} {_are(len(behind))} behind, by up to {count(most, 'commit')}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _it(number: int) -> str:
    return "it" if number == 1 else "they"


def broken_words(card: SeriesCard, now: datetime, *, of_several: bool = False) -> str:
    """ "fastpack broken since 57673e67be (Attend in half precision; A. Author, 23 h ago): …".

    Args:
        of_several: whether its target has other series, so that set and dtype are named too.
    """
    target = one_line(card.key.target, 60)
    if of_several:
        target += f" ({card.key.benchmark_label}, {card.latest.configuration.dtype})"
    last = [one for one in card.incidents if one.state in _LASTING]
    if not last:
        state = "broken" if card.latest.effective_outcome is Outcome.FAILED else "not runnable"
        return f"{target} is {state} at {card.latest.commit.short}"
    incident = max(last, key=lambda one: commit_date(one.first_bad))
    since = origin_words(incident, now)
    if incident.cause is Cause.NOT_RUNNABLE:
        return f"{target} cannot be run since {since}"
    return f"{target} broken since {since}: {cause_words(incident)}"


def origin_words(incident: Incident, now: datetime) -> str:
    """The first bad commit with its subject, author and age."""
    commit = incident.first_bad.commit
    author = one_line(commit.author, 60) or "unknown author"
    age = format_age(commit_date(incident.first_bad), now)
    return f"{commit.short} ({one_line(commit.subject, 80)}; {author}, {age})"
