"""One target for each environment: what is watched, with other versions of what it runs on.

Each is a target of its own, and so a series of its own: NAME-torch-2.10.0, NAME-torch-2.14.1. NAME
alone, where no target is called so, means all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner.releases import read_requirements
from virnucpro_monitor.runner.venv import is_package, join_requirements, needs_of


def with_requirements(target: Target, lines: Sequence[str]) -> Target:
    """A target with further requirements, installed with each of its commits."""
    if not lines:
        return target
    if is_package(target.location):
        joined = "\n".join([*filter(None, (target.requirements,)), *lines])
        return replace(target, requirements=joined)
    file, present = needs_of(target)
    return replace(target, requirements=join_requirements(file, [*present, *lines]))


def with_environments(target: Target, axes: Sequence[str]) -> tuple[Target, ...]:
    """A target for each combination of "package=version,version,…"; itself where no axis is given.

    Raises:
        ConfigurationError: an axis is not well formed.
    """
    choices = [_versions(axis) for axis in axes]
    return tuple(_one(target, chosen) for chosen in product(*choices))


def _versions(axis: str) -> list[tuple[str, str]]:
    package, equals, versions = axis.partition("=")
    found = [
        (package.strip(), one.strip()) for one in versions.strip("=").split(",") if one.strip()
    ]
    if not (package.strip() and equals and found):
        raise ConfigurationError(
            f"{axis!r} names no environments: write it as in 'torch=2.10.0,2.14.1'."
        )
    return found


def _one(target: Target, chosen: Sequence[tuple[str, str]]) -> Target:
    if not chosen:
        return target
    wanted = [f"{package}=={version}" for package, version in chosen]
    read_requirements("\n".join(wanted))
    name = "-".join([target.name, *(f"{package}-{version}" for package, version in chosen)])
    return replace(with_requirements(target, wanted), name=name)


def environments_of(name: str, known: Iterable[Target]) -> tuple[Target, ...]:
    """The targets that `with_environments` made of one called so; none where there are none."""
    found = [one for one in known if one.requirements and one.name.startswith(f"{name}-")]
    alike = {replace(one, name="", requirements=None) for one in found}
    return tuple(found) if len(alike) == 1 else ()
