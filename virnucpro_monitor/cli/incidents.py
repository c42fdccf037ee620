"""`virnucpro-monitor incidents list/ack/reopen`: what is bad, and who knows of it."""

import getpass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from virnucpro_monitor.cli.options import (
    DatabaseOption,
    JsonOption,
    TargetOption,
    print_json,
    say,
)
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Acknowledgement

if TYPE_CHECKING:
    from virnucpro_monitor.analysis.incidents import Incident

STATES = ("open", "acknowledged", "not_seen", "rewritten", "fixed")

KeyArgument = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="An incident's key, or its first digits.", show_default=False
    ),
]
WhoOption = Annotated[
    str | None, typer.Option("--who", metavar="NAME", help="Your name [default: your login].")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Incidents: list, acknowledge, reopen.")
    group.command("list")(list_incidents)
    group.command("ack")(acknowledge)
    group.command("reopen")(reopen)
    app.add_typer(group, name="incidents")


def list_incidents(
    target: TargetOption = None,
    benchmark: Annotated[
        str | None,
        typer.Option("--benchmark", metavar="NAME", help="A set's name, or NAME@VERSION."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help=f"{', '.join(STATES)}; repeatable."),
    ] = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List incidents, oldest first; those that recovered too."""
    from virnucpro_monitor.cli.regressions import print_incidents
    from virnucpro_monitor.monitor.naming import choose_target
    from virnucpro_monitor.monitor.opening import open_database
    from virnucpro_monitor.monitor.questions import load_incidents
    from virnucpro_monitor.report.text import count
    from virnucpro_monitor.report.values import incident_values
    from virnucpro_monitor.report.words import STATE_WORDS

    for name in state or ():
        if name not in STATES:
            raise ConfigurationError(f"{name!r} is no state: use {', '.join(STATES)}.")
    with open_database(db) as engine:
        chosen = choose_target(engine, target).name if target else None
        incidents = load_incidents(engine, target=chosen, benchmark=benchmark)
    shown = [incident for incident in incidents if not state or incident.state in state]
    if as_json:
        print_json([incident_values(incident) for incident in shown])
        return
    if not shown:
        say("No incident." if not incidents else "No incident in that state.")
        return
    print_incidents(shown)
    counts = [
        f"{sum(one.state is state for one in incidents)} {words}"
        for state, words in STATE_WORDS.items()
    ]
    say(f"{count(len(incidents), 'incident')}: {', '.join(counts)}.")
    for incident in shown:
        if incident.reopened_because:
            say(f"{incident.key}: {incident.reopened_because}")


def acknowledge(
    key: KeyArgument,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="What is known about it.")],
    who: WhoOption = None,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            metavar="TEXT",
            help="What it covers, in your words; the target's name covers every incident that the "
            "same commit began there.",
        ),
    ] = "",
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires",
            metavar="DATE|AGE",
            help="Until when it holds: 2027-01-31, or 30d from now.",
        ),
    ] = None,
    reopen_if_worse_than: Annotated[
        float | None,
        typer.Option(
            "--reopen-if-worse-than",
            metavar="E",
            min=0,
            max=2,
            help="An error 1 - cos above which a later run reopens it.",
        ),
    ] = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Acknowledge an incident: you know of it, and say why it may stay for now."""
    from virnucpro_monitor.monitor import acknowledging
    from virnucpro_monitor.monitor.opening import open_database

    now = datetime.now(UTC)
    with open_database(db, read_only=False) as engine:
        note = Acknowledgement(
            incident=key,
            who=_person(who),
            why=why.strip(),
            scope=scope.strip(),
            created_at=now,
            expires_at=None if expires is None else parse_expiry(expires, now),
            reopen_if_worse_than=reopen_if_worse_than,
        )
        incident = acknowledging.acknowledge(engine, note)
    _report(incident, as_json)


def reopen(
    key: KeyArgument,
    who: WhoOption = None,
    db: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw the acknowledgement of an incident."""
    from virnucpro_monitor.monitor import acknowledging
    from virnucpro_monitor.monitor.opening import open_database

    with open_database(db, read_only=False) as engine:
        incident, given = acknowledging.reopen(engine, key, who=_person(who))
    if given.incident != incident.key:
        say(f"That acknowledgement was written for incident {given.incident} too.")
    _report(incident, as_json)


def parse_expiry(text: str, now: datetime) -> datetime:
    """A date, or an age such as "30d" counted from now on.

    Raises:
        ConfigurationError: it is neither, or lies in the past.
    """
    from virnucpro_monitor.monitor.naming import parse_moment

    moment = parse_moment(text, now)
    if moment is None:
        raise ConfigurationError(f"{text!r} is no date: write 2027-01-31, or 30d for 30 days.")
    if text[-1] in "dwy":
        moment = now + (now - moment)
    if moment <= now + timedelta(seconds=0):
        raise ConfigurationError(f"--expires {text} lies in the past.")
    return moment


def _person(who: str | None) -> str:
    name = (who or "").strip()
    if name:
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # a user without a name, as in a container
        raise ConfigurationError("Your login has no name: say who you are by --who.") from error


def _report(incident: "Incident", as_json: bool) -> None:
    from virnucpro_monitor.report.sentences import incident_sentence
    from virnucpro_monitor.report.values import incident_values

    if as_json:
        print_json(incident_values(incident))
        return
    typer.echo(f"{incident.key}  {incident.state}: {incident_sentence(incident)}")
    given = incident.acknowledgement
    if given is not None and not incident.reopened_because:
        until = f", until {given.expires_at:%Y-%m-%d %H:%M %Z}" if given.expires_at else ""
        typer.echo(f"Acknowledged by {given.who}{until}: {given.why}")
    if incident.reopened_because:
        typer.echo(incident.reopened_because)
