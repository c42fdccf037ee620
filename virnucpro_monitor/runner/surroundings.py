"""Would a commit be measured today in the environment that a stored run was measured in?

What a worker will import is known only once it has, so a stored run is asked: is each distribution
that it used still there in the same version? A fact that one side does not know is no difference:
rows from before it was recorded keep standing.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace

from virnucpro_monitor.errors import RepositoryError
from virnucpro_monitor.records import Environment, Run
from virnucpro_monitor.runner.packages import installed_packages
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.runner.venv import environment_folder, needed_text, search_path

_OF_PACKAGES = {"torch": "torch", "fair_esm": "fair-esm", "flash_attn": "flash-attn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """An interpreter on this machine.

    Attributes:
        environment: its facts; empty where they are not known before a commit is measured.
        installed: version by distribution; None where the interpreter is still to be made.
    """

    environment: Environment
    installed: Mapping[str, str] | None

    def fit(self, run: Run) -> bool:
        """Whether nothing has changed since `run` that could change its result."""
        used = run.environment
        if used is None:
            return True  # it never came to measuring
        here = self.environment
        facts = [
            (getattr(used, field.name), getattr(here, field.name))
            for field in dataclasses.fields(used)
            if field.name not in ("packages", "parts")
        ]
        parts, used_parts = here.parts or {}, used.parts or {}
        facts += [(used_parts[name], parts[name]) for name in parts.keys() & used_parts.keys()]
        if any(one and other and one != other for one, other in facts):
            return False
        if self.installed is None:
            return True
        if used.packages is not None:
            return all(self.installed.get(one) == used.packages[one] for one in used.packages)
        known = [(name, getattr(used, field)) for field, name in _OF_PACKAGES.items()]
        return all(self._has(name, version) for name, version in known if version)

    def _has(self, name: str, version: str) -> bool:
        """Whether a package is there in a version that a module told: it may name a build more."""
        there = (self.installed or {}).get(name, "")
        return version.partition("+")[0] == there.partition("+")[0]


class Interpreters:
    """The surroundings that each commit of a plan would be measured in.

    Args:
        base: those of our own interpreter.
    """

    def __init__(self, plan: RunPlan, base: Surroundings) -> None:
        self._plan = plan
        self._base = base
        self._private: dict[str | None, Surroundings] = {}  # by the requirement file's text

    def of(self, commit: str) -> Surroundings:
        repository, target = self._plan.repository, self._plan.target
        if repository is None:
            return self._base
        try:
            text = needed_text(target, lambda path: repository.read_text(commit, path))
        except RepositoryError:
            text = None  # it cannot be measured anyway
        else:
            if text is None:
                return self._base
        if text not in self._private:
            self._private[text] = self._look(text)
        return self._private[text]

    def _look(self, text: str | None) -> Surroundings:
        unknown = replace(
            self._base.environment, torch="", cuda=None, flash_attn=None, fair_esm=None
        )
        folder = None if text is None else environment_folder(text, self._plan.cache_folder)
        if folder is None or not folder.joinpath("complete").exists():
            return Surroundings(environment=unknown, installed=None)
        installed = installed_packages(search_path(folder))
        return Surroundings(environment=unknown, installed=installed)
