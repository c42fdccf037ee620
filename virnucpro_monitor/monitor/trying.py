"""Try an adapter: load a model with it in a process of its own and judge it; nothing is stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro_monitor.data.benchmarks import benchmark_digest
from virnucpro_monitor.disks import path_from
from virnucpro_monitor.errors import ConfigurationError, TargetError
from virnucpro_monitor.monitor.hiding import secret_places
from virnucpro_monitor.monitor.running import request_of
from virnucpro_monitor.records import (
    BenchmarkSet,
    Commit,
    Culprit,
    Failure,
    ProteinSequence,
    RunReport,
    Target,
    Verdict,
    read_limits,
    read_packs,
)
from virnucpro_monitor.runner.adapter_names import (
    ADAPTERS,
    SHIPPED,
    parse_adapter,
    with_oracle,
    without_file,
)
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.oracle_names import parse_oracle
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.validation.protocol import load_protocol

if TYPE_CHECKING:
    from virnucpro_monitor.records.progress import Progress
    from virnucpro_monitor.runner.sources import Source

SEQUENCES = (
    ProteinSequence(id="short", residues="MKTAY"),
    ProteinSequence(id="middle", residues="MVLSPADKTNVKAAWGKVGAHAG"),
    ProteinSequence(id="long", residues="MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQ"),
)

OnProgress = Callable[[str, int, int], None]


def _ignore(what: str, done: int, total: int) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAdapter:
    """An adapter that can be named.

    Attributes:
        options: allowed values by option, the default first.
        missing: what `pip install` takes where its package is not there; empty where nothing lacks.
    """

    name: str
    about: str
    options: dict[str, tuple[str, ...]]
    missing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of trying an adapter on a few sequences.

    Attributes:
        model: the size of ESM-2 that the adapter was asked for.
        family: whose tokens the model reads.
        oracle: what it was held against.
        width: channels of an embedding, None where a run did not tell.
        num_layers: as the adapter numbers them.
        lengths: tokens of each sequence alone, BOS and EOS included.
        num_packs: that they were put into.
    """

    adapter: str
    model: str
    family: str
    oracle: str
    backend: str
    width: int | None
    num_layers: int | None
    lengths: tuple[int, ...]
    num_packs: int
    verdict: Verdict
    duration_s: float


def known_adapters() -> list[KnownAdapter]:
    """The monitor's own adapters, and those of entry points; none is imported."""
    from importlib.util import find_spec

    found = [
        KnownAdapter(
            name=name,
            about=one.about,
            options=dict(one.options),
            missing="" if one.needs is None or find_spec(one.needs) else one.install,
        )
        for name, one in SHIPPED.items()
    ]
    found += [
        KnownAdapter(name=one.name, about=one.value, options={}, missing="")
        for one in entry_points(group=ADAPTERS)
        if one.name not in SHIPPED
    ]
    return found


def here(adapter: str) -> str:
    """An adapter's name with its file's path made absolute, as seen from the working folder.

    Raises:
        ConfigurationError: the name is not well formed, or there is no such file.
    """
    parsed = parse_adapter(adapter)
    if parsed.file is None:
        return with_oracle(adapter, None)
    path = path_from(parsed.file).resolve()
    if not path.is_file():
        raise ConfigurationError(f"There is no file {parsed.file} for the adapter {adapter!r}.")
    return with_oracle(f"{path}{adapter.removeprefix(parsed.file)}", None)


def check_file_of(adapter: str) -> None:
    """Read the file that an adapter is held against, if any: a trial has no sequences of it.

    Raises:
        WeightsError: it cannot be read, or cannot be an oracle.
    """
    oracle = parse_oracle(parse_adapter(adapter).oracle)
    if oracle.kind == "file":
        from virnucpro_monitor.validation.other_oracles import check_oracle_file

        check_oracle_file(Path(oracle.place))


def check_adapter(settings: Settings, adapter: str, on_progress: OnProgress = _ignore) -> Trial:
    """Load a model with an adapter and embed three sequences both ways.

    Raises:
        TargetError: it cannot be loaded, or does not give embeddings of the model's shape.
        MonitorError: weights or device cannot be used.
    """
    adapter = here(adapter)
    check_file_of(adapter)
    # Three sequences that no file of embeddings knows.
    target = Target(name="adapter", location="", adapter=without_file(adapter))
    return _trial(settings, target, _try(settings, target, _three(), on_progress, probes=False))


def check_target(
    settings: Settings,
    target: Target,
    repository: "Source",
    commit: Commit,
    say: Callable[[str], None],
) -> Trial:
    """As `check_adapter`, with one commit of a target and its environment.

    Args:
        say: receives a sentence while an environment is made, which may take minutes.

    Raises:
        TargetError: the commit cannot be loaded.
        MonitorError: weights or device cannot be used.
    """
    report = _try(
        settings,
        replace(target, adapter=without_file(target.adapter)),
        _three(),
        _ignore,
        probes=False,
        repository=repository,
        commit=commit,
        say=say,
    )
    return _trial(settings, target, report)


def with_weights_to_spare(settings: Settings, adapter: str) -> Settings:
    """Settings that ask for no weights of ESM-2 where a model may have its own.

    So it is where it is held against something else than fair-esm or Hugging Face's model, and
    nobody has named weights: the adapter finds synthetic ones then, should it ask.
    """
    oracle = parse_oracle(parse_adapter(adapter).oracle).kind
    if oracle in ("fair-esm", "hf") or "weights" in settings.model_fields_set:
        return settings
    spared = {**dict(settings), "weights": "synthetic"}
    return Settings.model_construct(settings.model_fields_set, **spared)


def validate_adapter(
    settings: Settings, adapter: str, benchmark: BenchmarkSet, on_progress: OnProgress = _ignore
) -> Verdict:
    """Judge the model that an adapter loads on one benchmark set, with every probe.

    Raises:
        TargetError: it cannot be loaded, or does not give embeddings of the model's shape.
        MonitorError: protocol, weights or device cannot be used.
    """
    target = Target(name="adapter", location="", adapter=here(adapter))
    report = _try(settings, target, benchmark, on_progress, probes=True)
    return _verdict_of(report)


def _three() -> BenchmarkSet:
    return BenchmarkSet(
        name="three", version=1, digest=benchmark_digest(SEQUENCES), sequences=SEQUENCES
    )


def _try(
    settings: Settings,
    target: Target,
    benchmark: BenchmarkSet,
    on_progress: OnProgress,
    *,
    probes: bool,
    repository: "Source | None" = None,
    commit: Commit | None = None,
    say: Callable[[str], None] | None = None,
) -> RunReport:
    def show(progress: "Progress") -> None:
        on_progress(progress.phase, progress.done, progress.total)

    plan = RunPlan(
        target=target,
        repository=repository,
        commits=(commit or Commit(hash="0" * 40, subject=target.adapter),),
        benchmarks=(benchmark,),
        request=request_of(settings),
        protocol=load_protocol(settings.protocol or None),
        cache_folder=settings.cache_folder,
        folder=Path.cwd() if repository is None else None,
        timeout_s=settings.timeout_s,
        memory_limit_gib=settings.memory_limit_gib,
        network=settings.network,
        confine=settings.confine,
        hidden=secret_places(settings),
        probes=probes,
        confirm=False,
        reuse=False,
        workers=1,
    )
    (report,) = run_commits(plan, on_progress=show, on_message=say)
    return report


def _verdict_of(report: RunReport) -> Verdict:
    run = report.run
    if not run.outcome.has_verdict or run.figures is None:
        raise TargetError(_sentence(report.failure, run.reason))
    return Verdict(
        outcome=run.outcome,
        packed_outcome=run.packed_outcome,
        unpacked_outcome=run.unpacked_outcome,
        culprit=run.culprit or Culprit.NONE,
        reason=run.reason,
        figures=run.figures,
        gates=run.gates,
        sequences=tuple(report.sequences),
        documents=report.documents,
    )


def _sentence(failure: Failure | None, reason: str) -> str:
    """What went wrong, with the place in somebody's own code that a traceback's end names."""
    if failure is None or failure.kind != "exception":
        return reason
    frames = [line.strip() for line in failure.traceback.splitlines() if line.startswith("  File ")]
    return f"{reason} ({frames[-1]})" if frames else reason


def _trial(settings: Settings, target: Target, report: RunReport) -> Trial:
    verdict = _verdict_of(report)
    packs, named = read_packs(verdict.documents), parse_adapter(target.adapter)
    limits = read_limits(verdict.documents)  # of the model's own family, where it names one
    return Trial(
        adapter=target.adapter,
        model=settings.model,
        family=named.family if limits is None else limits.family,
        oracle=named.oracle,
        backend=report.run.configuration.backend,
        width=packs.width,
        num_layers=packs.num_layers,
        lengths=tuple(one.length + 2 for one in verdict.sequences),
        num_packs=packs.num_packs,
        verdict=verdict,
        duration_s=report.run.duration_s or 0.0,
    )


def largest(values: Sequence[float | None]) -> float | None:
    """The largest value, None where one is missing or there is none."""
    known = [value for value in values if value is not None]
    return max(known, default=None) if len(known) == len(values) else None
