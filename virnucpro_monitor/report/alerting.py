"""A pass of alerts in the report's words, sent by Apprise: for the command line and after a run."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from virnucpro_monitor.errors import LockedError, MonitorError
from virnucpro_monitor.host.alert_file import AlertFile, Channel, alert_path, read_alert_file
from virnucpro_monitor.monitor.alerting import AlertPass, pass_alerts
from virnucpro_monitor.monitor.opening import open_database
from virnucpro_monitor.records import Alert, AlertKind, Target
from virnucpro_monitor.report.alert_words import (
    describe_happening,
    message_body,
    message_title,
    trial_facts,
    unknown_names,
)
from virnucpro_monitor.report.notify import send_message
from virnucpro_monitor.report.text import count
from virnucpro_monitor.settings import Settings


def send_alerts(channel: Channel, alerts: Sequence[Alert]) -> str:
    """Bring alerts to a channel as one message; gives what went wrong, or an empty text."""
    title = message_title(alerts, channel.rules.title)
    return send_message(channel.url, title, message_body(alerts))


def send_trial(channel: Channel) -> str:
    """Send a message that says it is a trial; gives what went wrong, or an empty text."""
    trial = Alert(
        kind=AlertKind.HEARD,
        target="trial of <mask>",
        keys=(),
        summary="trial",
        facts=trial_facts(),
        created_at=datetime.now(UTC),
    )
    return send_alerts(channel, [trial])


def run_alert_pass(
    db: str | None,
    file: AlertFile,
    target: str | None = None,
    *,
    now: datetime | None = None,
    ask_repositories: bool = True,
) -> AlertPass:
    """As `pass_alerts`, with the words and the sender of this room.

    Args:
        db: an SQLAlchemy URL; None for the settings' database.

    Raises:
        NotFoundError: that target is not in the database.
        LockedError: another pass is at work.
        StoreError: the database cannot be written.
    """
    with open_database(db, read_only=False) as engine:
        return pass_alerts(
            engine,
            file,
            target,
            describe=describe_happening,
            send=send_alerts,
            now=now,
            ask_repositories=ask_repositories,
        )


def alert_after_run(settings: Settings, target: Target, say: Callable[[str], None]) -> None:
    """Tell what a start has found, where channels are set up; says what went wrong, and no more."""
    try:
        file = read_alert_file(alert_path(settings))
        if file is None or not file.channels:
            return
        done = run_alert_pass(settings.database_url, file, target.name, ask_repositories=False)
        for line in [*template_problems(file), *pass_lines(done)]:
            say(line)
    except LockedError:
        return  # that one has them all
    except MonitorError as error:
        say(f"No alert was sent: {error}")
    except Exception as error:  # of whatever kind: the results are stored, and the run is over
        say(f"No alert was sent: unexpected {type(error).__name__}.")


def template_problems(file: AlertFile) -> list[str]:
    """Titles of channels that cannot be filled; the usual one is taken there."""
    return [
        f"The title of channel {channel.rules.name} in {file.path} has {', '.join(names)!r}, which "
        f"is no name that it can hold: the usual title is taken."
        for channel in file.channels
        if (names := unknown_names(channel.rules.title))
    ]


def pass_lines(done: AlertPass) -> list[str]:
    """What a pass did, in lines for a person; nothing where there was nothing to do."""
    lines = [*done.problems, *(alert.summary for alert in done.alerts)]
    for one in done.delivered:
        what = count(len(one.alerts), "alert")
        if one.problem:
            lines.append(
                f"{what} for {one.channel} not delivered: {one.problem}. It is tried again."
            )
        else:
            lines.append(f"{what} sent to {one.channel}.")
    return lines
