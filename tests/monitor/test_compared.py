"""How two commits are compared: which runs belong together, and by what they are held apart."""

from dataclasses import replace
from typing import Any

import pytest

from tests.monitor.stored import BAD, NARROW, OTHER, keep
from tests.store.builders import (
    BENCHMARK,
    make_commit,
    make_report,
    make_run,
)
from virnucpro_monitor.analysis.comparison import Noise, Thresholds
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.monitor import comparing, reading
from virnucpro_monitor.store.engine import Engine

SECOND, THIRD, FOURTH = (
    replace(BENCHMARK, name=name, digest=name[0] * 64) for name in ("second", "third", "fourth")
)


def test_one_commit_is_compared_in_two_environments(engine: Engine) -> None:
    ids = keep(
        engine,
        make_report(17), make_report(17, configuration=NARROW),
        make_report(17, benchmark=THIRD),
        make_report(17, target=OTHER, configuration=NARROW), make_report(17, target=OTHER),
        make_report(17, target=OTHER, benchmark=FOURTH), make_report(18), make_report(18, BAD),
    )  # fmt: skip
    commit = make_commit(17).hash
    found = comparing.compare_commits(engine, f"sample:{commit}", f"other:{commit}")
    assert (found.target, found.base, found.head) == ("other", make_commit(17), make_commit(17))
    pairs = {(one.base.run.id, one.head.run.id) for one in found.comparisons}
    assert pairs == {(ids[0], ids[4]), (ids[1], ids[3])}, "by set-up, whatever the target"
    assert [run.id for run in found.only_base] == [ids[2]]
    assert [run.id for run in found.only_head] == [ids[5]]
    one_target = comparing.compare_commits(engine, commit, make_commit(18).hash, target="sample")
    assert (one_target.target, one_target.base, one_target.head) == (
        "sample", make_commit(17), make_commit(18),
    )  # fmt: skip
    assert [(one.base.run.id, one.head.run.id) for one in one_target.comparisons] == [
        (ids[0], ids[7])
    ]
    assert comparing.compare_commits(engine, commit, target="sample") == one_target
    with pytest.raises(ConfigurationError, match="choose by --target"):
        comparing.compare_commits(engine, commit, commit)


def test_without_names_the_newest_run_is_compared_with_the_last_good_one(engine: Engine) -> None:
    keep(
        engine,
        make_report(0), make_report(2, BAD), make_report(0, benchmark=SECOND),
        make_report(1, benchmark=SECOND), make_report(0, target=OTHER),
        make_report(5, BAD, target=OTHER),
    )  # fmt: skip

    def places(**options: str) -> tuple[int | None, int | None, list[str]]:
        found = comparing.compare_commits(engine, **options)
        sets = [one.head.run.benchmark for one in found.comparisons]
        return found.base.position, found.head.position, sets

    assert places(target="sample") == (0, 2, ["seed"])
    assert places(target="sample", benchmark="second") == (0, 1, ["second"])
    assert places(target="sample", benchmark="second@1") == (0, 1, ["second"])
    assert places(target="other") == (0, 5, ["seed"])
    assert places(head="HEAD", base=make_commit(0).hash, target="sample") == (0, 2, ["seed"])


def test_a_comparison_goes_by_the_noise_of_healthy_runs_and_the_heads_protocol(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet, loud = ({"noise": {"reordered": value}} for value in (1e-5, 0.5))
    strict = {"thresholds": {"strict": 0.9999, "lenient": 0.99, "lenient_fraction": 0.5}}
    protocol = replace(make_report(0).protocol, digest="e" * 64, content=strict)
    keep(engine, make_report(20, documents=quiet),
         make_report(21, BAD, documents=loud, protocol=protocol))  # fmt: skip
    base, head = reading.load_history(engine)
    real = comparing.compare_runs
    asked: list[Any] = []

    def compare(*given: Any, **named: Any) -> Any:
        asked.append((given, named))
        return real(*given, **named)

    monkeypatch.setattr(comparing, "compare_runs", compare)
    found = comparing.compare_pair(engine, base, head)
    rows = [reading.load_sequences(engine, run) for run in (base, head)]
    assert asked == [
        (
            (base, rows[0], head, rows[1]),
            {
                "noise": Noise.of_documents([quiet["noise"]]),
                "thresholds": Thresholds(strict=0.9999, lenient=0.99, fraction=0.5),
                "base_measured": base,
                "head_measured": head,
            },
        )
    ]
    assert (found.base.run, found.head.run) == (base, head)


def test_a_runs_embeddings_are_its_own_two_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Any = lambda engine, run_id, name: (engine, run_id, name)  # noqa: E731
    monkeypatch.setattr(comparing.reader, "load_document", asked)
    monkeypatch.setattr(comparing, "read_embeddings", lambda documents: documents)
    engine: Any = "engine"
    assert comparing._embeddings_of(engine, make_run(3, id=7)) == {
        "embeddings": ("engine", 7, "embeddings"),
        "embedding data": ("engine", 7, "embedding data"),
    }
