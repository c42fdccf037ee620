"""One target for each environment: what is watched, with other versions of what it runs on.

Each is a target of its own, and so a series of its own: NAME-torch-2.10.0, NAME-torch-2.14.1. NAME
alone, where no target is called so, means all of them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, canonicalize_version

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
    packages = Counter(canonicalize_name(versions[0][0]) for versions in choices)
    twice = [package for package, times in packages.items() if times > 1]
    if twice:
        raise ConfigurationError(
            f"An environment has one version of {twice[0]}: name all of them at once, as in "
            f"'{twice[0]}=1.0,2.0'."
        )
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
    once: dict[str, tuple[str, str]] = {}
    for name, version in found:
        once.setdefault(canonicalize_version(version), (name, version))
    return list(once.values())


def _one(target: Target, chosen: Sequence[tuple[str, str]]) -> Target:
    if not chosen:
        return target
    wanted = [f"{package}=={version}" for package, version in chosen]
    read_requirements("\n".join(wanted))
    _refuse_conflicts(target, chosen)
    name = "-".join([target.name, *map(_in_name, wanted)])
    return replace(with_requirements(target, wanted), name=name)


def _refuse_conflicts(target: Target, chosen: Sequence[tuple[str, str]]) -> None:
    """Refuse versions that what the target asks for with each commit rules out."""
    of_package = is_package(target.location)
    lines = (target.requirements or "").splitlines() if of_package else needs_of(target)[1]
    versions = {
        canonicalize_name(package): version
        for package, version in chosen
        if not version.endswith(".*")
    }  # which of those it is, the installer says
    for asked in map(Requirement, read_requirements("\n".join(lines))):
        version = versions.get(canonicalize_name(asked.name))
        if version and not asked.specifier.contains(version, prereleases=True):
            raise ConfigurationError(
                f"An environment cannot have {asked} and {asked.name} {version}: leave the first "
                f"out, or name another version in the matrix."
            )


def environments_of(name: str, known: Iterable[Target]) -> tuple[Target, ...]:
    """The targets that `with_environments` made of one called so; none where there are none."""
    found = [one for one in known if _is_environment(one, name)]
    alike = {replace(one, name="", requirements=None) for one in found}
    return tuple(found) if len(alike) == 1 else ()


def _is_environment(target: Target, name: str) -> bool:
    """Whether a target is called after one and after its own last pins, as `_one` does it."""
    pins = [_in_name(line) for line in (target.requirements or "").splitlines()]
    return any(target.name == "-".join([name, *pins[first:]]) for first in range(len(pins)))


def _in_name(pin: str) -> str:
    """A pin as a target's name has it: "torch==2.13.0+cpu" is "torch-2.13.0-cpu"."""
    return re.sub(r"[^\w.-]+", "-", pin.replace("*", "x"))
