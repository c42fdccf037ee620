"""Which gates inform for a target and do not fail it: said, taken back, and put to use."""

from datetime import UTC, datetime

from virnucpro_monitor.errors import MissingDatabase, NotFoundError
from virnucpro_monitor.monitor.naming import choose_target
from virnucpro_monitor.records import PolicyRule
from virnucpro_monitor.store.engine import Engine, open_engine
from virnucpro_monitor.store.notes_reader import load_policy
from virnucpro_monitor.store.writer import Writer
from virnucpro_monitor.validation.policy import check_rule


def list_policy(engine: Engine, target: str, *, withdrawn: bool = False) -> list[PolicyRule]:
    """The rules of a target, oldest first; those that were taken back only if asked for.

    Raises:
        NotFoundError: there is no such target.
    """
    return load_policy(engine, choose_target(engine, target).name, withdrawn=withdrawn)


def let_inform(engine: Engine, target: str, gate: str, *, who: str, why: str) -> PolicyRule:
    """Let a gate inform for a target from its next run on, in place of an earlier word on it.

    Raises:
        NotFoundError: there is no such target.
        ConfigurationError: no such gate, one that always fails, or nobody or nothing is named.
    """
    check_rule(gate, who, why)
    rule = PolicyRule(
        target=choose_target(engine, target).name,
        gate=gate,
        who=who.strip(),
        why=why.strip(),
        created_at=datetime.now(UTC),
    )
    Writer(engine).set_policy(rule)
    return rule


def let_fail(engine: Engine, target: str, gate: str, *, who: str) -> None:
    """Take back that a gate only informs.

    Raises:
        NotFoundError: there is no such target, or the gate fails it already.
    """
    name = choose_target(engine, target).name
    if not Writer(engine).withdraw_policy(name, gate, who, datetime.now(UTC)):
        raise NotFoundError(f"No policy of {name} lets the gate {gate!r} inform.")


def policy_of(url: str, target: str) -> list[PolicyRule]:
    """The standing rules of a target; none where it, or the database, does not exist yet."""
    try:
        engine = open_engine(url, read_only=True)
    except MissingDatabase:
        return []
    try:
        return load_policy(engine, target)
    except NotFoundError:
        return []
    finally:
        engine.dispose()
