"""A package's releases as a line of commits: each is a version, in version order.

A release has no files of its own here. It is checked out as a requirement file that names it and
what is to be installed with it, and measured in an environment of its own. An index never changes
what a version is, so the version is the commit's name.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from virnucpro_monitor.disks import writing
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.records import Commit, Target, content_digest
from virnucpro_monitor.runner.adapter_names import is_plain
from virnucpro_monitor.runner.pip import InstallerError, is_offered, offered_versions
from virnucpro_monitor.runner.venv import PACKAGE_PREFIX, RELEASE_FILE, is_package, needs_of
from virnucpro_monitor.scratch import scratch_folder


class Releases:
    """The releases of one package within a target's range.

    Args:
        extra: requirements that are installed with each release.
        versions: all that the index offers, in version order.
        may_ask: whether the index may be asked for a version that it does not list.
    """

    def __init__(
        self, name: str, wanted: SpecifierSet, extra: Sequence[str], versions: Sequence[str],
        cache_folder: Path, *, may_ask: bool = False,
    ) -> None:  # fmt: skip
        self.location = f"{PACKAGE_PREFIX}{name}"
        self._name = name
        self._wanted = wanted
        self._extra = tuple(extra)
        self._versions = tuple(versions)
        self._cache_folder = cache_folder
        self._may_ask = may_ask

    @classmethod
    def open(cls, target: Target, cache_folder: Path, *, fetch: bool = True) -> "Releases":
        """Ask the index what releases there are.

        Where the index cannot be reached, what it said before is taken.

        Args:
            fetch: False to take what is kept already.

        Raises:
            ConfigurationError: the package's name, range or extra requirements are not well formed.
            RepositoryError: there is no such package, or no release in the range.
        """
        name = package_name(target.location)
        wanted = read_range(target.branch)
        extra = read_requirements(target.requirements)
        kept = _kept(name, cache_folder)
        if fetch or not kept.is_file():
            try:
                found = _in_order(offered_versions(name, pre=bool(wanted.prereleases)))
            except InstallerError as error:
                if not kept.is_file():
                    raise RepositoryError(f"The releases of {name}: {error}") from error
            else:
                with (
                    writing("The cache of releases", kept),
                    scratch_folder(kept.parent, f".{kept.name}.") as fresh,
                ):
                    fresh.write_text(json.dumps(found), encoding="utf-8")
                    fresh.replace(kept)
        try:
            versions = [str(one) for one in json.loads(kept.read_text(encoding="utf-8"))]
        except (OSError, ValueError) as error:
            raise RepositoryError(
                f"The list of releases in {kept} cannot be read: delete it."
            ) from error
        return cls(name, wanted, extra, versions, cache_folder, may_ask=fetch)

    @staticmethod
    def is_here(location: str, cache_folder: Path) -> bool:
        """Whether the releases are known without asking the index."""
        return _kept(package_name(location), cache_folder).is_file()

    def resolve(self, revision: str, say: Callable[[str], None] | None = None) -> str:
        """The version that is meant: "5.3.0", "v5.3.0", "HEAD" for the newest, or a range's newest.

        Raises:
            RepositoryError: there is no such release.
        """
        if revision == "HEAD" or revision[:1] in "<>=!~":
            return self._newest(self._wanted if revision == "HEAD" else read_range(revision))
        try:
            wanted = Version(revision)
        except InvalidVersion as error:
            raise RepositoryError(
                f"{revision!r} is not a release of {self._name}: give a version, as in "
                f"{self._versions[-1] if self._versions else '1.0'}."
            ) from error
        for version in self._versions:
            if Version(version) == wanted:
                return version
        if self._may_ask and is_offered(self._name, str(wanted)):
            return str(wanted)  # yanked: who asks for it gets a row that says so
        raise RepositoryError(f"There is no release {revision} of {self._name} for this Python.")

    def _newest(self, wanted: SpecifierSet) -> str:
        inside = [one for one in self._versions if wanted.contains(one)]
        if not inside:
            raise RepositoryError(f"No release of {self._name} for this Python is {wanted}.")
        return inside[-1]

    def resolve_branch(self, branch: str | None) -> str:
        """The newest release of a range; None means the target's own."""
        return self._newest(self._wanted if branch is None else read_range(branch))

    def history(self, tip: str) -> tuple[str, ...]:
        """The range's releases up to `tip`, which need not be inside, in version order."""
        last = Version(self.resolve(tip))
        return tuple(
            one
            for one in self._versions
            if Version(one) == last or (Version(one) < last and self._wanted.contains(one))
        )

    def between(
        self, base: str, tip: str, *, paths: Sequence[str] = (), first_parent: bool = True
    ) -> tuple[str, ...]:
        """Releases after `base`, up to `tip`, in version order."""
        first = Version(base)
        return tuple(one for one in self.history(tip) if Version(one) > first)

    def merge_base(self, one: str, other: str) -> str:
        """The older of two releases."""
        return min(one, other, key=Version)

    def branches_with(self, commit: str) -> tuple[str, ...]:
        """None: there are no branches beside the range."""
        return ()

    def commits(self, hashes: Sequence[str], history: Sequence[str] = ()) -> tuple[Commit, ...]:
        """Releases as commits, in the order given; `history` gives each its position."""
        positions = {name: index for index, name in enumerate(history)}
        return tuple(
            Commit(
                hash=name,
                subject=f"{self._name} {name}",
                position=positions.get(name),
                on_branch=name in positions or not positions,
            )
            for name in hashes
        )

    def files(self, commit: str) -> dict[str, str]:
        """The one file that a release is checked out as."""
        return {RELEASE_FILE: self.tree(commit)}

    def read_text(self, commit: str, path: str) -> str:
        """That file.

        Raises:
            RepositoryError: another path.
        """
        if path != RELEASE_FILE:
            raise RepositoryError(f"A release has no file {path!r}.")
        return "".join(f"{line}\n" for line in (f"{self._name}=={commit}", *self._extra))

    def tree(self, commit: str) -> str:
        """Digest of a release and what is installed with it."""
        return content_digest(self.read_text(commit, RELEASE_FILE))

    @contextmanager
    def checkout(self, commit: str) -> Iterator[tuple[Path, str]]:
        """A folder with the requirement file, for as long as the context lasts; and no note."""
        parent = self._cache_folder / "releases" / "checkouts"
        with scratch_folder(parent, f"{self._name}-{commit}-") as folder:
            with writing("The cache of releases", folder):
                folder.mkdir()
                text = self.read_text(commit, RELEASE_FILE)
                folder.joinpath(RELEASE_FILE).write_text(text, encoding="utf-8")
            yield folder, ""


def package_name(location: str) -> str:
    """NAME of `pypi:NAME`.

    Raises:
        ConfigurationError: it cannot be one.
    """
    name = location.removeprefix(PACKAGE_PREFIX)
    try:
        return str(canonicalize_name(name, validate=True))
    except InvalidName as error:
        raise ConfigurationError(
            f"{name!r} is not a package's name: write it as in "
            f"`virnucpro-monitor targets add NAME pypi:PACKAGE --releases RANGE`."
        ) from error


def read_range(text: str | None) -> SpecifierSet:
    """A range of releases, as in ">=4.53,<6"; None means all.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        return SpecifierSet(text or "")
    except InvalidSpecifier as error:
        raise ConfigurationError(
            f"{text!r} is not a range of releases: write it as in '>=4.53,<6'."
        ) from error


def read_requirements(text: str | None) -> tuple[str, ...]:
    """What is installed with each release, one requirement a line.

    Raises:
        ConfigurationError: a line is none.
    """
    lines = tuple(line.strip() for line in (text or "").splitlines() if line.strip())
    for line in lines:
        try:
            Requirement(line)
        except InvalidRequirement as error:
            raise ConfigurationError(
                f"{line!r} is not a requirement: write it as in 'torch==2.13.0'."
            ) from error
    return lines


def check_words(target: Target) -> None:
    """Raise `ConfigurationError` where what a target asks for is not well formed."""
    if not is_package(target.location):
        read_requirements("\n".join(needs_of(target)[1]))
        return
    package_name(target.location)
    read_range(target.branch)
    read_requirements(target.requirements)
    if is_plain(target.adapter, "seed-interface"):
        raise ConfigurationError(
            "The releases of a package are loaded by an adapter: name one of "
            "`virnucpro-monitor adapter list` by `virnucpro-monitor targets add … --adapter NAME`."
        )


def _in_order(versions: Sequence[str]) -> list[str]:
    known = []
    for text in versions:
        try:
            known.append((Version(text), text))
        except InvalidVersion:  # from before there was a form for them; pip does not install it
            continue
    return [text for _, text in sorted(known)]


def _kept(name: str, cache_folder: Path) -> Path:
    return cache_folder / "releases" / f"{name}.json"
