"""What is judged at once, without a database, and which weights are made, part by part."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.monitor.test_wiring import Recorder
from virnucpro_monitor.errors import ConfigurationError, DiskError, ProtocolError
from virnucpro_monitor.monitor import validating, weight_making
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.validation.protocol import load_protocol


def calibrated(settings: Settings, device: str, weights_digest: str, folder: Path) -> Path:
    """A protocol's file that says for whose weights its limits are."""
    setup = {"model": settings.model, "dtype": settings.dtype, "device": device}
    content = {**load_protocol().content, "version": "own"}
    content["calibrated"] = {**setup, "weights_digest": weights_digest}
    path = folder / "own.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("device", "workers"), [("cpu", 1), ("cpu", 2), ("cuda:0", 1), ("cuda:1", 3)]
)
def test_who_judges_the_self_test_depends_on_the_device(
    device: str, workers: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_card, forked, threads = Recorder("on a card"), Recorder("forked"), Recorder()
    ran, bench = Recorder("report"), Recorder("bench")
    made = Recorder(("subject", "benchmark", "oracle", "protocol"))
    for name, stand_in in (
        ("on_a_card", on_a_card), ("forked", forked), ("run_selftest", ran),
        ("_of_selftest", made), ("Bench", bench),
    ):  # fmt: skip
        monkeypatch.setattr(validating, name, stand_in)
    monkeypatch.setattr(validating.torch, "set_num_threads", threads)
    chosen = settings.model_copy(update={"device": device})
    progress = Recorder()
    found: Any = validating.selftest_builtin(
        chosen, num_healthy_runs=4, workers=workers, on_progress=progress
    )
    assert found == "report"
    assert made.calls == [((chosen, progress), {})]
    ((given, named),) = ran.calls
    assert given == ("subject", "benchmark", "oracle", "protocol")
    assert named["num_healthy_runs"] == 4
    judges = None if device == "cpu" else "on a card"
    if (device, workers) == ("cpu", 2):
        assert (forked.calls, threads.calls) == ([((2,), {})], [((1,), {})])
        judges = "forked"
    else:
        assert (forked.calls, threads.calls) == ([], [])
    assert named["judges"] == judges
    if device == "cpu":
        assert on_a_card.calls == []
    else:
        (((make, processes), _),) = on_a_card.calls
        assert (processes, make()) == (workers, "bench")
        assert bench.calls == [(("subject", "benchmark", "oracle", "protocol"),
                                {"num_healthy_runs": 4})]  # fmt: skip
        assert made.calls[1][0][0] is chosen


def test_a_validation_says_how_many_sequences_are_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = SimpleNamespace(digest="d" * 64)
    prepare, validate = Recorder(("subject", "oracle", weights)), Recorder("verdict")
    monkeypatch.setattr(validating, "_prepare", prepare)
    monkeypatch.setattr(validating, "validate_subject", validate)
    limits = Recorder()
    monkeypatch.setattr(validating, "limits_for", limits)
    seen: list[Any] = []
    benchmark: Any = "benchmark"
    chosen = settings.model_copy(update={"token_budget": 77, "dtype": "bfloat16", "protocol": "1"})
    progress = lambda *one: seen.append(one)  # noqa: E731
    validating.validate_builtin(chosen, benchmark, progress)
    assert prepare.calls == [((chosen, "benchmark", 77, progress), {})]
    (((protocol, key), _),) = limits.calls
    assert (protocol.version, key) == ("1", validating.limits_key("bfloat16", "cpu"))
    validate.calls[0][1]["on_progress"](2, 9)
    assert seen == [("sequences", 2, 9)]


def test_limits_of_other_weights_are_refused_before_anything_is_judged(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = calibrated(settings, "cpu", "e" * 64, tmp_path)
    weights = SimpleNamespace(digest="d" * 64)
    monkeypatch.setattr(validating, "_prepare", Recorder(("subject", "oracle", weights)))
    judged = Recorder()
    monkeypatch.setattr(validating, "validate_subject", judged)
    monkeypatch.setattr(validating, "run_selftest", judged)
    chosen = settings.model_copy(update={"protocol": str(protocol)})
    with pytest.raises(ProtocolError, match=r"other weights of .* eeeeeeee, not dddddddd"):
        validating.validate_builtin(chosen, cast(Any, "benchmark"))
    with pytest.raises(ProtocolError, match="for other weights"):
        validating.selftest_builtin(chosen, num_healthy_runs=1)
    assert judged.calls == []


@pytest.mark.parametrize("wanted", weight_making.FORMATS)
def test_weights_are_read_by_the_settings_and_written_in_the_format_that_is_wanted(
    wanted: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimpleNamespace(path=tmp_path / "w.pt", digest="d" * 64)
    resolve, load = Recorder(found), Recorder(("model", "alphabet"))
    writers = {"hugging-face": Recorder(), "esm-efficient": Recorder()}
    for name, stand_in in (
        ("resolve_weights", resolve), ("load_checkpoint", load),
        ("write_hugging_face", writers["hugging-face"]),
        ("write_esm_efficient", writers["esm-efficient"]),
    ):  # fmt: skip
        monkeypatch.setattr(weight_making, name, stand_in)
    output = tmp_path / "made"
    assert weight_making.convert_weights(settings, output, wanted) == "d" * 64
    place = {"cache_folder": settings.cache_folder}
    assert resolve.calls == [((settings.model, settings.weights), place)]
    assert load.calls == [((settings.model, found.path), {})]
    more = () if wanted == "hugging-face" else (settings.model,)
    assert writers.pop(wanted).calls == [(("model", output, *more), {})]
    assert [one.calls for one in writers.values()] == [[]]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write_hugging_face", "write_esm_efficient"):
        monkeypatch.setattr(weight_making, name, full)
    with pytest.raises(DiskError, match=r"^The weights cannot be written: "):
        weight_making.convert_weights(settings, output, wanted)
    with pytest.raises(ConfigurationError) as caught:
        weight_making.convert_weights(settings, output, "pickle")
    assert str(caught.value) == "'pickle' is no format: use one of hugging-face, esm-efficient."


def test_weights_of_a_family_are_made_by_its_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SimpleNamespace(save_pretrained=Recorder())
    adapter = SimpleNamespace(synthesize=Recorder(model))
    find, resolve = Recorder(adapter), Recorder(SimpleNamespace(digest="d" * 64))
    shipped = {name: SimpleNamespace(family=name) for name in ("esm2", "esmc", "t5")}
    for name, stand_in in (
        ("find_adapter", find), ("resolve_weights", resolve), ("SHIPPED", shipped),
    ):  # fmt: skip
        monkeypatch.setattr(weight_making, name, stand_in)
    output = tmp_path / "made"
    assert weight_making.synthesize_family("tiny", "t5", output, 7) == "d" * 64
    assert find.calls == [(("t5",), {})]
    assert adapter.synthesize.calls == [(("tiny", 7), {})]
    assert model.save_pretrained.calls == [((output,), {})]
    assert resolve.calls == [(("tiny", str(output)), {})]
    for family in ("esm2", "nosuch"):
        with pytest.raises(ConfigurationError) as caught:
            weight_making.synthesize_family("tiny", family, output, 7)
        assert str(caught.value) == f"{family!r} is no family: use one of esmc, t5."

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model.save_pretrained = full
    with pytest.raises(DiskError, match=r"^The weights cannot be written: "):
        weight_making.synthesize_family("tiny", "t5", output, 7)
