import argparse
import hashlib
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import esm
import pytest
import torch

from virnucpro_monitor import scratch
from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.models import weight_digests
from virnucpro_monitor.models.synthetic import calibration_for, synthetic_state, with_outliers
from virnucpro_monitor.models.weight_digests import file_digest
from virnucpro_monitor.models.weights import (
    DEMO_MODEL,
    MODEL_SHAPES,
    checkpoint_digest,
    load_checkpoint,
    model_shape,
    resolve_weights,
    synthesize,
)

SMALL = "esm2_t6_8M_UR50D"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / f"{SMALL}.pt"
    synthesize(SMALL, path)
    return path


def test_synthesising_the_smallest_model_is_quick_and_repeatable(
    checkpoint: Path, tmp_path: Path
) -> None:
    again = tmp_path / "other" / f"{SMALL}.pt"
    started = time.process_time()
    synthesize(SMALL, again)
    assert time.process_time() - started < 2
    assert again.read_bytes() == checkpoint.read_bytes()
    other_seed = tmp_path / "seed" / f"{SMALL}.pt"
    synthesize(SMALL, other_seed, seed=1)
    assert other_seed.read_bytes() != checkpoint.read_bytes()


def test_fair_esms_own_loader_reads_it_to_the_same_model(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a target does it: by name, from a private TORCH_HOME."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in (f"{SMALL}.pt", f"{SMALL}-contact-regression.pt"):
        (folder / name).symlink_to(checkpoint.with_name(name))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs, _ = esm.pretrained.load_model_and_alphabet(SMALL)
    ours, alphabet = load_checkpoint(SMALL, checkpoint)
    assert not ours.training
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(expected[name], part) for name, part in ours.state_dict().items())
    assert (alphabet.cls_idx, alphabet.padding_idx, alphabet.mask_idx) == (0, 1, 32)


def test_weights_stored_in_half_precision_are_widened(checkpoint: Path, tmp_path: Path) -> None:
    content = read(checkpoint)
    content["model"] = {name: tensor.half() for name, tensor in content["model"].items()}
    path = tmp_path / f"{SMALL}.pt"
    torch.save(content, path)
    model, _ = load_checkpoint(SMALL, path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_synthetic_weights_are_made_once(tmp_path: Path) -> None:
    first = resolve_weights(SMALL, "synthetic", cache_folder=tmp_path)
    modified = first.path.stat().st_mtime_ns
    second = resolve_weights(SMALL, "synthetic", cache_folder=tmp_path)
    assert first == second
    assert second.path.stat().st_mtime_ns == modified
    assert first.source == "synthetic"
    assert first.path.stem == SMALL
    assert len(first.digest) == 64
    other = resolve_weights(SMALL, "synthetic", cache_folder=tmp_path, seed=1)
    assert other.digest != first.digest


def test_outlier_channels_are_those_of_trained_weights(tmp_path: Path) -> None:
    """The residual stream reaches a hundred, and the other channels still tell residues apart."""
    found = resolve_weights(SMALL, "synthetic-outliers", cache_folder=tmp_path)
    assert found.source == "synthetic-outliers"
    model, alphabet = load_checkpoint(SMALL, found.path)
    converter = alphabet.get_batch_converter()
    pairs = [("a", "MKTAYIAKQRQISFVKSHFSRQ"), ("b", "MKTAYIAKQRQISFVKSHFSRW")]
    _, _, tokens = converter(pairs)
    layers = list(range(model.num_layers + 1))
    with torch.no_grad():
        rows = model(tokens, repr_layers=layers)["representations"]
    largest = [float(rows[layer].abs().max()) for layer in layers]
    assert largest[1] < 30 < 60 < largest[model.num_layers - 1] < 200
    # After the final LayerNorm they are as large as the others.
    assert largest[-1] < 15
    apart = (rows[layers[-1]][0, 1:-1] - rows[layers[-1]][1, 1:-1]).norm()
    assert float(apart / rows[layers[-1]][0, 1:-1].norm()) > 0.05


def test_outliers_leave_the_draws_of_synthetic_weights_as_they_are() -> None:
    """Stored runs and oracles are filed under the digest of `synthetic`."""
    plain, _ = synthetic_state(2, 40, 4, 0, calibration_for(2))
    outliers, _ = synthetic_state(2, 40, 4, 0, with_outliers(calibration_for(2)))
    changed = {name for name in plain if not torch.equal(plain[name], outliers[name])}
    assert {name.rpartition(".layers.")[2] for name in changed} == {
        "0.fc2.bias",
        "1.fc2.bias",
        "1.self_attn_layer_norm.weight",
        "1.final_layer_norm.weight",
        "encoder.sentence_encoder.emb_layer_norm_after.weight",
    }
    assert torch.equal(
        plain["encoder.sentence_encoder.layers.0.fc2.bias"][3:],
        outliers["encoder.sentence_encoder.layers.0.fc2.bias"][3:],
    )


def test_a_path_without_contact_head_gets_one(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{SMALL}.pt"
    shutil.copy(checkpoint, path)
    found = resolve_weights(SMALL, str(path), cache_folder=tmp_path / "cache")
    assert found.source == path.name
    assert found.path == path
    head = torch.load(found.regression_path, weights_only=True)["model"]
    assert head["contact_head.regression.weight"].shape == (1, 6 * 20)


def test_official_weights_come_from_torch_homes_cache(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    shutil.copytree(checkpoint.parent, tmp_path / "hub" / "checkpoints")
    found = resolve_weights(SMALL, "official", cache_folder=tmp_path)
    assert found.source == "official"
    assert found.digest == checkpoint_digest(checkpoint)


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"no network.*'synthetic'"):
        resolve_weights(SMALL, "official", cache_folder=tmp_path)


def test_the_digest_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(b"one")
    first = file_digest(path)
    monkeypatch.setattr(weight_digests.hashlib, "file_digest", None)
    assert file_digest(path) == first
    monkeypatch.undo()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert file_digest(path) != first


def test_a_read_only_folder_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.pt"
    path.write_bytes(b"one")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(scratch.os, "open", refuse)
    assert len(file_digest(path)) == 64
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_models_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"Unknown model 'esm2_t7'.*esm2_t6_8M_UR50D"):
        model_shape("esm2_t7")


def test_the_six_sizes_and_the_demos_have_their_heads() -> None:
    assert [shape.head_dim for shape in MODEL_SHAPES.values()] == [16, 24, 32, 64, 64, 128, 16]


def test_the_demos_model_has_no_official_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is asked of the network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(WeightsError, match="no official weights of esm2_t6_demo"):
        resolve_weights(DEMO_MODEL, "official", cache_folder=tmp_path)


def read(path: Path) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


class Exploit:
    def __reduce__(self) -> Any:
        return (os.system, ("touch exploited",))


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_a_checkpoint(path: Path) -> None:
    path.write_text("hello")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def malicious(path: Path) -> None:
    torch.save({"cfg": Exploit(), "model": {}}, path)


def malicious_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Exploit()))


def of_another_kind(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def a_list(path: Path) -> None:
    torch.save([1, 2], path)


def of_another_model(path: Path) -> None:
    content = read(path)
    content["cfg"]["model"].encoder_layers = 12
    torch.save(content, path)


def incomplete(path: Path) -> None:
    content = read(path)
    content["model"].popitem()
    torch.save(content, path)


def of_another_shape(path: Path) -> None:
    content = read(path)
    content["model"]["encoder.sentence_encoder.emb_layer_norm_after.bias"] = torch.zeros(7)
    torch.save(content, path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (corrupt, "cannot be read"),
        (not_a_checkpoint, "cannot be read"),
        (empty, "cannot be read"),
        (malicious, "was refused"),
        (malicious_pickle, "cannot be read|was refused"),
        (of_another_kind, "not an ESM-2 checkpoint"),
        (a_list, "not an ESM-2 checkpoint"),
        (of_another_model, "12 layers.*which is not esm2_t6_8M_UR50D"),
        (incomplete, "does not fit"),
        (of_another_shape, "does not fit"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_checkpoints_are_refused_in_one_sentence(
    spoil: Any,
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{SMALL}.pt"
    shutil.copy(checkpoint, path)
    spoil(path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_checkpoint(SMALL, path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploited").exists()


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No checkpoint at"):
        resolve_weights(SMALL, str(tmp_path / "none.pt"), cache_folder=tmp_path)
    with pytest.raises(WeightsError, match="No checkpoint at"):
        load_checkpoint(SMALL, tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"1 2 zz", b"x" * 100_000])
def test_a_damaged_note_of_a_digest_is_passed_over(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    note = tmp_path / "model.pt.sha256"
    note.write_bytes(content)
    expected = hashlib.sha256(b"weights").hexdigest()
    assert file_digest(path) == expected
    status = path.stat()
    assert note.read_text() == f"{status.st_size} {status.st_mtime_ns} {expected}"
    note.write_text(f"{status.st_size} {status.st_mtime_ns} {'z' * 64}")
    assert file_digest(path) == expected
