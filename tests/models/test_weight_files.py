"""The same weights in every package's format: read, written, and told apart by what they hold."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.models.weight_files import write_esm_efficient, write_hugging_face
from virnucpro_monitor.models.weights import (
    Weights,
    checkpoint_digest,
    load_checkpoint,
    resolve_weights,
)

SMALL = "esm2_t6_8M_UR50D"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return resolve_weights(SMALL, "synthetic", cache_folder=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def source(plain: Weights) -> Any:
    return load_checkpoint(SMALL, plain.path)[0]


@pytest.fixture(scope="module")
def folder(source: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("formats") / "esm2"
    write_hugging_face(source, path)
    return path


def in_shards(folder: Path) -> Path:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    named = {}
    for number, names in enumerate((sorted(tensors)[:40], sorted(tensors)[40:])):
        shard = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard)
        named |= dict.fromkeys(names, shard)
    index = json.dumps({"metadata": {}, "weight_map": named})
    (folder / "model.safetensors.index.json").write_text(index)
    return folder


def as_pickled(folder: Path) -> Path:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def without_heads(folder: Path) -> Path:
    """As `EsmModel.save_pretrained` writes it."""
    path = folder / "model.safetensors"
    tensors = {n: t for n, t in load_file(path).items() if n.startswith("esm.")}
    save_file({name.removeprefix("esm."): tensor for name, tensor in tensors.items()}, path)
    return folder


def one_file(folder: Path) -> Path:
    moved = folder.with_name("weights.safetensors")
    shutil.move(folder / "model.safetensors", moved)
    return moved


def esm_efficient(folder: Path) -> Path:
    model = load_checkpoint(SMALL, resolve_weights(SMALL, str(folder), cache_folder=folder).path)[0]
    path = folder / "8M.safetensors"
    write_esm_efficient(model, path, SMALL)
    return path


def unchanged(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    "make", [unchanged, in_shards, as_pickled, without_heads, one_file, esm_efficient]
)
def test_every_format_has_one_digest_and_gives_fair_esm_s_model(
    make: Callable[[Path], Path], plain: Weights, source: Any, folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(folder, tmp_path / "given")
    given = make(copied)
    cache = tmp_path / "cache"
    found = resolve_weights(SMALL, str(given), cache_folder=cache)
    assert found.digest == plain.digest
    assert found.source == given.name
    assert found.path.name == f"{SMALL}.pt"
    assert found.path.is_relative_to(cache)
    model = load_checkpoint(SMALL, found.path)[0]
    expected = dict(source.named_parameters())
    if make in (without_heads, esm_efficient):
        expected = {name: one for name, one in expected.items() if "head" not in name}
    for name, parameter in expected.items():
        assert torch.equal(model.get_parameter(name), parameter), name
    rotation = model.layers[5].self_attn.rot_emb.inv_freq
    assert torch.equal(rotation, source.layers[5].self_attn.rot_emb.inv_freq)
    # A second time it is there, and it is not there for other content.
    written = found.path.stat().st_mtime_ns
    assert resolve_weights(SMALL, str(given), cache_folder=cache) == found
    assert found.path.stat().st_mtime_ns == written


def test_written_weights_are_as_readable_as_any_file_of_the_user(
    source: Any, tmp_path: Path
) -> None:
    plain_file = tmp_path / "plain"
    plain_file.touch()
    write_hugging_face(source, tmp_path / "folder")
    write_esm_efficient(source, tmp_path / "one.safetensors", "esm2_t6_8M_UR50D")
    for file in (tmp_path / "folder/model.safetensors", tmp_path / "one.safetensors"):
        assert file.stat().st_mode == plain_file.stat().st_mode


def test_what_decides_an_embedding_decides_the_digest(plain: Weights, tmp_path: Path) -> None:
    import argparse

    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(plain.path, weights_only=True)
    path = tmp_path / f"{SMALL}.pt"

    def digest_with(**changed: torch.Tensor) -> str:
        torch.save({**content, "model": {**content["model"], **changed}}, path)
        return checkpoint_digest(path)

    encoder = "encoder.sentence_encoder"
    bias = content["model"][f"{encoder}.layers.0.fc1.bias"]
    assert digest_with() == plain.digest
    assert digest_with(**{"encoder.lm_head.bias": torch.ones(33)}) == plain.digest
    assert digest_with(**{f"{encoder}.layers.0.fc1.bias": bias + 1e-3}) != plain.digest
    wide = {name: tensor.double() for name, tensor in content["model"].items()}
    assert digest_with(**wide) == plain.digest
    content["cfg"]["model"].token_dropout = False
    assert digest_with() != plain.digest


def test_hugging_face_itself_reads_what_is_written(source: Any, folder: Path) -> None:
    transformers = pytest.importorskip("transformers", "5.3")
    theirs, told = transformers.EsmForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert all(name.endswith("inv_freq") for name in told["missing_keys"])  # it computes those
    assert not told["unexpected_keys"]
    ids = torch.tensor([[0, 20, 15, 11, 5, 19, 2]])
    with torch.no_grad():
        logits = theirs.eval()(ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.allclose(logits, source(ids)["logits"], atol=1e-4)


def settings(**changed: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changed))

    return spoil


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        held = load_file(path)
        change(held)
        save_file(held, path)

    return spoil


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (cut_short, "model.safetensors cannot be read: it is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has neither model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as settings"),
        (settings(model_type="bert"), "of type 'bert' with rotary positions, which is no ESM-2"),
        (
            settings(position_embedding_type="absolute"),
            "of type 'esm' with absolute positions, which is no ESM-2",
        ),
        (settings(num_attention_heads=10), "of 10 attention heads, which is not esm2_t6_8M"),
        (
            tensors(lambda held: held.pop("esm.encoder.layer.3.output.dense.bias")),
            r"does not fit esm2_t6_8M_UR50D: it has no layers.3.fc2.bias",
        ),
        (
            tensors(
                lambda held: held.update(
                    {"esm.encoder.layer.9.output.dense.bias": torch.zeros(320)}
                )
            ),
            r"does not fit esm2_t6_8M_UR50D, which has no layers.9.fc2.bias",
        ),
        (
            tensors(lambda held: held.update({"classifier.weight": torch.zeros(1)})),
            "holds no ESM-2: classifier.weight has no counterpart",
        ),
    ],
)
def test_what_is_no_esm2_is_one_sentence(
    spoil: Callable[[Path], None], sentence: str, folder: Path, tmp_path: Path
) -> None:
    given = Path(shutil.copytree(folder, tmp_path / "given"))
    spoil(given)
    with pytest.raises(WeightsError, match=sentence) as caught:
        resolve_weights(SMALL, str(given), cache_folder=tmp_path / "cache")
    assert "\n" not in str(caught.value)
