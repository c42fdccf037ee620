"""Saying that an incident is known, and taking that back."""

from dataclasses import replace

from virnucpro_monitor.analysis.incidents import Incident, IncidentState
from virnucpro_monitor.errors import ConfigurationError, NotFoundError
from virnucpro_monitor.monitor.questions import find_incident
from virnucpro_monitor.records import Acknowledgement
from virnucpro_monitor.store.engine import Engine
from virnucpro_monitor.store.writer import Writer


def acknowledge(engine: Engine, note: Acknowledgement) -> Incident:
    """Store an acknowledgement, and return its incident as it stands then.

    Args:
        note: names the incident by its key, or the key's first digits. Its scope may be the
            target's name: it covers all that the same commit began there.

    Raises:
        NotFoundError: there is no such incident.
        ConfigurationError: it is fixed, nobody or nothing is named, or the note expired before it
            was written, or has a time without a zone.
    """
    if not note.why.strip():
        raise ConfigurationError("--why is empty: say what is known about the incident.")
    if not note.who.strip():
        raise ConfigurationError("Nobody is named: an acknowledgement is somebody's.")
    if note.expires_at is not None and note.expires_at.tzinfo is None:
        raise ConfigurationError(f"{note.expires_at} has no time zone: give one, such as UTC.")
    if note.expires_at is not None and note.expires_at <= note.created_at:
        raise ConfigurationError(f"{note.expires_at:%Y-%m-%d %H:%M} lies in the past.")
    incident = find_incident(engine, note.incident)
    if incident.fixed_by is not None:
        raise ConfigurationError(
            f"Incident {incident.key} was fixed by {incident.fixed_by.commit.short}: there is "
            "nothing left to acknowledge."
        )
    if incident.state is IncidentState.REWRITTEN:
        raise ConfigurationError(
            f"The commits of incident {incident.key} have left the branch: there is nothing left "
            "to acknowledge."
        )
    Writer(engine).acknowledge(replace(note, incident=incident.key))
    return find_incident(engine, incident.key)


def reopen(engine: Engine, key: str, *, who: str) -> tuple[Incident, Acknowledgement]:
    """Withdraw the acknowledgement of an incident.

    It may have been written for another incident of the same commit, whose key it carries: that
    one is reopened with it.

    Returns:
        The incident as it stands then, and the acknowledgement that was withdrawn.

    Raises:
        NotFoundError: there is no such incident, or it is not acknowledged.
    """
    incident = find_incident(engine, key)
    given = incident.acknowledgement
    if given is None or given.withdrawn_at is not None:
        raise NotFoundError(f"Incident {incident.key} is not acknowledged.")
    Writer(engine).withdraw_acknowledgements(given.incident, who)
    return find_incident(engine, incident.key), given
