from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.data.benchmarks import benchmark_digest
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence, Request, Target
from virnucpro_monitor.runner.cgroup import JobGroup
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.confinement import LOCKS_SIGNALS, landlock_version
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.validation.protocol import load_protocol

# On an older kernel than Linux 6.12 the stand-ins for attacks would succeed: nothing there is to be
# tried, and `doctor` and each run say what stays open.
collect_ignore = [] if landlock_version() >= LOCKS_SIGNALS else ["test_confinement.py"]
# A container may be allowed no control groups.
if (_group := JobGroup.make()) is None:
    collect_ignore.append("test_cgroup.py")
else:
    _group.remove()

SEQUENCES = (
    ProteinSequence(id="a", residues="MKTAYIAKQR"),
    ProteinSequence(id="b", residues="VLSPADKTNVKAAWGKV"),
    ProteinSequence(id="c", residues="MVHLT"),
)
SMALL = BenchmarkSet(
    name="small", version=1, digest=benchmark_digest(SEQUENCES), sequences=SEQUENCES
)
MODEL = "esm2_t6_demo"

MakePlan = Callable[..., RunPlan]


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    """A repository whose one commit is healthy."""
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "Add packed inference")
    return repository


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and oracles are made once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    """A Dask cluster of two workers, each a process of one thread."""
    import distributed  # slow to import, and few modules need it

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as it:
        yield it


@pytest.fixture
def make_plan(tiny: TinyRepository, cache_folder: Path) -> MakePlan:
    """Plans over the tiny repository, quick ones: three short sequences and no probes."""

    def make(hashes: Sequence[str], *, target: Target | None = None, **choices: object) -> RunPlan:
        target = target or Target(name="tiny", location=str(tiny.folder))
        repository = Repository.open(target.location, cache_folder)
        history = repository.history("HEAD")
        settings: dict[str, object] = {
            "benchmarks": (SMALL,),
            "request": Request(model=MODEL, weights="synthetic"),
            "probes": False,
            "timeout_s": 900.0,  # no test waits for it
        }
        return RunPlan(
            target=target,
            repository=repository,
            commits=repository.commits(list(hashes), history),
            protocol=load_protocol(),
            cache_folder=cache_folder,
            **(settings | choices),
        )

    return make
