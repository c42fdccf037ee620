"""Starts on a Dask cluster that are quick to measure."""

from pathlib import Path

from tests.runner.conftest import SMALL
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from tests.store.builders import make_environment
from virnucpro_monitor.records import Request, Target
from virnucpro_monitor.records.messages import Ready
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.validation.protocol import load_protocol

REQUEST = Request(model="esm2_t6_demo", weights="synthetic", device="cpu", dtype="float32")
READY = Ready(
    weights_digest="1" * 64,
    checkpoint="/w.pt",
    regression="/r.pt",
    torch_home="/home",
    environment=make_environment(host="one", torch="2.11.0", gpu="H200"),
    installed={},
)


def make_plan(tmp_path: Path, cache_folder: Path, num_commits: int) -> RunPlan:
    """So many healthy commits, each of which is measured."""
    tiny = TinyRepository(tmp_path / "repository")
    for number in range(num_commits):
        tiny.commit({**HEALTHY, MODEL_FILE: f"{HEALTHY[MODEL_FILE]}\n# {number}\n"})
    target = Target(name="clustered", location=str(tiny.folder))
    repository = Repository.open(target.location, cache_folder)
    history = repository.history("HEAD")
    return RunPlan(
        target=target,
        repository=repository,
        commits=repository.commits(history, history),
        benchmarks=(SMALL,),
        request=REQUEST,
        protocol=load_protocol("1"),
        cache_folder=cache_folder,
        probes=False,
        force=True,
    )
