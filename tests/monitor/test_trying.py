"""A trial of an adapter: what is asked of the runner, and what is told of its report."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from tests.store.builders import BENCHMARK, CONFIGURATION, TARGET, make_commit, make_report
from virnucpro_monitor.data.benchmarks import benchmark_digest
from virnucpro_monitor.errors import ConfigurationError, TargetError
from virnucpro_monitor.monitor import trying, validating
from virnucpro_monitor.monitor.hiding import secret_places
from virnucpro_monitor.monitor.running import request_of
from virnucpro_monitor.records import Culprit, Failure, Outcome, RunReport
from virnucpro_monitor.records.progress import Progress
from virnucpro_monitor.runner.adapter_names import SHIPPED
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.settings import Settings, load_settings
from virnucpro_monitor.validation.protocol import load_protocol

PACKS = {"packs": {"width": 320, "num_layers": 6, "num_packs": 2}}


@dataclass
class Asked:
    """The plans that the runner was given, and the report that it gives back."""

    report: RunReport
    plans: list[RunPlan]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        db=f"sqlite:///{tmp_path / 'monitor.db'}", cache_dir=tmp_path / "cache", device="cpu",
        dtype="float32", backend="sdpa", token_budget=512, timeout_s=90.0, network=True,
        confine=False,
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked(make_report(documents=PACKS, duration_s=2.5), [])

    def run_commits(
        plan: RunPlan, *, on_progress: Callable[[Progress], None], on_message: Any
    ) -> Iterator[RunReport]:
        asked.plans.append(plan)
        on_progress(
            Progress(
                commit=plan.commits[0], benchmark=BENCHMARK.label, phase="probes", done=3, total=7
            )
        )
        if on_message is not None:
            on_message("Making an environment.")
        yield asked.report

    monkeypatch.setattr(trying, "run_commits", run_commits)
    return asked


def test_three_sequences_are_asked_for_and_told(settings: Settings, asked: Asked) -> None:
    seen: list[tuple[str, int, int]] = []
    found = trying.check_adapter(settings, "hf-esm:way=mask", lambda *one: seen.append(one))
    (plan,) = asked.plans
    assert (plan.target.name, plan.target.location) == ("adapter", "")
    assert plan.target.adapter == "hf-esm:way=mask"
    assert plan.repository is None
    (commit,) = plan.commits
    assert (commit.hash, commit.subject) == ("0" * 40, "hf-esm:way=mask")
    (benchmark,) = plan.benchmarks
    assert benchmark.label == "three@1"
    assert [len(one.residues) for one in benchmark.sequences] == [5, 23, 56]
    assert [one.id for one in benchmark.sequences] == ["short", "middle", "long"]
    assert benchmark.digest == benchmark_digest(benchmark.sequences)
    assert plan.request == request_of(settings)
    assert plan.protocol == load_protocol(None)
    assert (plan.timeout_s, plan.network, plan.confine) == (90.0, True, False)
    assert plan.cache_folder == settings.cache_folder
    assert plan.memory_limit_gib == settings.memory_limit_gib
    assert plan.hidden == secret_places(settings)
    assert (plan.probes, plan.reuse, plan.workers) == (False, False, 1)
    assert seen == [("probes", 3, 7)]

    run = asked.report.run
    assert (found.adapter, found.model) == ("hf-esm:way=mask", settings.model)
    assert (found.backend, found.width, found.num_layers) == (CONFIGURATION.backend, 320, 6)
    assert (found.num_packs, found.duration_s) == (2, 2.5)
    assert found.lengths == tuple(len(one.residues) + 2 for one in BENCHMARK.sequences)
    verdict = found.verdict
    for name in ("outcome", "packed_outcome", "unpacked_outcome", "reason", "figures", "gates"):
        assert getattr(verdict, name) == getattr(run, name), name
    assert (verdict.culprit, verdict.documents) == (Culprit.NONE, PACKS)
    assert verdict.sequences == tuple(asked.report.sequences)


def test_a_target_is_tried_at_its_commit(settings: Settings, asked: Asked) -> None:
    said: list[str] = []
    source: Any = object()
    target = replace(TARGET, adapter="hf-esm")
    found = trying.check_target(settings, target, source, make_commit(3), said.append)
    (plan,) = asked.plans
    assert (plan.target, plan.repository, plan.commits) == (target, source, (make_commit(3),))
    assert plan.benchmarks[0].label == "three@1"
    assert (plan.probes, said) == (False, ["Making an environment."])
    assert found.adapter == "hf-esm"


def test_a_set_is_judged_with_every_probe(settings: Settings, asked: Asked) -> None:
    run = replace(asked.report.run, outcome=Outcome.FAILED, culprit=Culprit.PACKED)
    asked.report = replace(asked.report, run=run)
    verdict = trying.validate_adapter(settings, "hf-esm", BENCHMARK)
    (plan,) = asked.plans
    assert (plan.target.name, plan.target.location) == ("adapter", "")
    assert (plan.target.adapter, plan.benchmarks, plan.probes) == ("hf-esm", (BENCHMARK,), True)
    assert (verdict.outcome, verdict.culprit) == (Outcome.FAILED, Culprit.PACKED)


TRACE = """Traceback (most recent call last):
  File "adapters.py", line 3, in load
    call()
  File "between.py", line 5, in pass_on
    call()
  File "mine.py", line 9, in alone
    raise ValueError
ValueError"""


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (None, "It broke."),
        (Failure(kind="crash", message="", traceback=TRACE), "It broke."),
        (Failure(kind="exception", message="", traceback=""), "It broke."),
        (Failure(kind="exception", message="", traceback=TRACE),
         'It broke. (File "mine.py", line 9, in alone)'),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_names_the_place_in_ones_own_code(
    failure: Failure | None, told: str, settings: Settings, asked: Asked
) -> None:
    run = replace(asked.report.run, outcome=Outcome.ERROR, reason="It broke.", figures=None)
    asked.report = replace(asked.report, run=run, failure=failure)
    with pytest.raises(TargetError) as caught:
        trying.check_adapter(settings, "hf-esm")
    assert str(caught.value) == told


def test_a_file_is_named_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    assert trying.here("hf-esm:way=mask") == "hf-esm:way=mask"
    assert trying.here("module:Mine") == "module:Mine"
    assert trying.here("mine.py:Mine") == f"{tmp_path / 'mine.py'}:Mine"
    assert trying.here("mine.py:Mine:oracle=none") == f"{tmp_path / 'mine.py'}:Mine:oracle=none"
    with pytest.raises(ConfigurationError) as caught:
        trying.here("other.py:Mine")
    assert str(caught.value) == "There is no file other.py for the adapter 'other.py:Mine'."


def test_adapters_of_entry_points_are_listed_behind_the_shipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gone" else name)
    shipped = {**SHIPPED, "lacks": replace(SHIPPED["hf-esm"], needs="gone", install="gone>=2")}
    monkeypatch.setattr(trying, "SHIPPED", shipped)
    points = [EntryPoint("hf-esm", "x:Y", "g"), EntryPoint("own", "mine:Mine", "g")]
    monkeypatch.setattr(trying, "entry_points", lambda group: points if group else [])
    found = {one.name: one for one in trying.known_adapters()}
    assert list(found) == [*shipped, "own"]
    for name, one in shipped.items():
        told = found[name]
        assert (told.about, told.options) == (one.about, dict(one.options))
        assert told.missing == ("gone>=2" if name == "lacks" else "")
    assert found["own"] == trying.KnownAdapter(
        name="own", about="mine:Mine", options={}, missing=""
    )


def test_the_largest_of_what_is_known_of_all() -> None:
    assert trying.largest([1.0, 3.0, 2.0]) == 3.0
    assert trying.largest([1.0, None]) is None
    assert trying.largest([]) is None


def test_calibrating_hands_on_what_it_has_loaded(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The FP32 reference is given where the dtype is FP32, and the checkpoint read for it alone."""
    given: dict[str, Any] = {}
    benchmark, subject, oracle, model, made = (object() for _ in range(5))

    class Weights:
        path = tmp_path / "weights.pt"

    class Loaded:
        def to(self, device: str) -> object:
            assert device == "cpu"
            return model

    def prepare(settings: Settings, benchmark: object, budget: int, on_progress: Any) -> Any:
        given["prepared"] = (settings.dtype, benchmark, budget)
        on_progress("FP32 oracle", 1, 2)
        return subject, oracle, Weights()

    def calibrate(*arguments: Any, on_progress: Callable[[int, int], None], **rest: Any) -> Any:
        on_progress(4, 5)
        given["asked"] = (arguments, rest)
        return made

    def load_checkpoint(name: str, path: Path) -> Any:
        given["read"] = (name, path)
        return Loaded(), None

    monkeypatch.setattr(validating, "selftest_benchmark", lambda: benchmark)
    monkeypatch.setattr(validating, "_prepare", prepare)
    monkeypatch.setattr(validating, "calibrate", calibrate)
    monkeypatch.setattr(validating, "load_checkpoint", load_checkpoint)
    path, seen = tmp_path / "limits.json", []
    asked = {"num_runs": 9, "on_progress": lambda *one: seen.append(one)}
    assert validating.calibrate_builtin(settings, path, **asked) is made
    assert given["prepared"] == ("float32", benchmark, 512)
    assert given["read"] == (settings.model, Weights.path)
    base = load_protocol(None)
    together = (subject, benchmark, oracle, base, path)
    assert given["asked"] == (together, {"num_runs": 9, "reference": model})
    assert seen == [("FP32 oracle", 1, 2), ("healthy runs", 4, 5)]
    half = settings.model_copy(update={"dtype": "float16"})
    del given["read"]
    assert validating.calibrate_builtin(half, path, **asked) is made
    assert given["asked"] == (together, {"num_runs": 9, "reference": None})
    assert "read" not in given
