"""The adapters for public packages, against fair-esm."""

import json
from pathlib import Path

import pytest
import torch

from tests.runner.test_adapters import request
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.weights import Weights, load_checkpoint, resolve_weights
from virnucpro_monitor.runner.layouts import (
    embed_padded,
    owner_ids,
    pad,
    padded_batches,
    position_ids,
)
from virnucpro_monitor.runner.loading import find_adapter, load_subject
from virnucpro_monitor.validation.subject import PackedBatch
from virnucpro_monitor.validation.tokens import encode

MODEL = "esm2_t6_8M_UR50D"
TEXTS = ("MKTAYIAKQRQISFVK", "DERKH", "MVL<mask>PADKTN<mask>KAA".replace("<mask>", "X"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return resolve_weights(MODEL, "synthetic", cache_folder=tmp_path_factory.mktemp("cache"))


def pack() -> PackedBatch:
    """Three sequences, the last with two <mask> tokens."""
    parts = [encode(text) for text in TEXTS]
    parts[-1][parts[-1] == 24] = 32  # X -> <mask>
    lengths = torch.tensor([0, *(len(part) for part in parts)])
    return PackedBatch(
        input_ids=torch.cat(parts),
        cu_seqlens=lengths.cumsum(0).int(),
        max_seqlen=int(lengths.max()),
        sequence_ids=("a", "b", "c"),
    )


def exact(weights: Weights, batch: PackedBatch) -> dict[int, torch.Tensor]:
    """By unmodified fair-esm, one sequence at a time: {layer: [tokens, D]}."""
    model, _ = load_checkpoint(MODEL, weights.path)
    layers = list(range(7))
    with torch.no_grad():
        found = [
            model(ids[None], repr_layers=layers)["representations"]
            for ids in batch.input_ids.tensor_split(batch.cu_seqlens[1:-1].long())
        ]
    return {layer: torch.cat([one[layer][0] for one in found]) for layer in layers}


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def test_hugging_face_s_esm_padded_is_fair_esm(weights: Weights, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    asked = request(tmp_path, model_name=MODEL, checkpoint=weights.path, token_budget=100)
    subject = load_subject("hf-esm", asked)
    assert (subject.num_layers, subject.backend) == (6, "padded")
    batch = pack()
    wanted = exact(weights, batch)
    together = subject.embed_packed_layers(batch, list(range(7)))
    assert max(distance(together[layer], wanted[layer]) for layer in wanted) < 1e-5
    last = batch.input_ids[-int(batch.cu_seqlens.diff()[-1]) :]
    alone = subject.embed_unpacked_layers(last, [0, 6])
    assert max(distance(alone[layer], wanted[layer][-len(last) :]) for layer in alone) < 1e-5
    # Its weights are the checkpoint's under fair-esm's names.
    state = load_checkpoint(MODEL, weights.path)[0].state_dict()
    tensors = subject.tensors()
    assert len(tensors) == 6 * 16 + 3
    assert all(torch.equal(tensors[name], state[name]) for name in tensors)


def test_packed_keywords_without_flash_attention_are_ignored(
    weights: Weights, tmp_path: Path
) -> None:
    """transformers takes them and heeds them under flash attention only: sequences are mixed."""
    pytest.importorskip("transformers")
    asked = request(tmp_path, model_name=MODEL, checkpoint=weights.path, token_budget=100)
    subject = load_subject("hf-esm:way=kwargs,attention=sdpa", asked)
    batch = pack()
    together = subject.embed_packed_layers(batch, [6])
    assert distance(together[6], exact(weights, batch)[6]) > 0.1


def test_half_precision_keeps_the_rotation_in_float32(weights: Weights, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    asked = request(
        tmp_path, model_name=MODEL, checkpoint=weights.path, dtype=torch.bfloat16, token_budget=100
    )
    subject = load_subject("hf-esm", asked)
    rotations = [
        buffer
        for name, buffer in subject._embedder._model.named_buffers()  # type: ignore[attr-defined]
        if name.endswith("inv_freq")
    ]
    assert rotations
    assert {one.dtype for one in rotations} == {torch.float32}


def test_a_missing_package_is_one_sentence(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(TargetError, match=r"needs transformers, which .*install"):
        find_adapter("hf-esm").load(request(tmp_path))


def test_layouts_of_a_pack() -> None:
    ids = torch.tensor([5, 6, 7, 8, 9, 4])
    bounds = torch.tensor([0, 3, 5, 6], dtype=torch.int32)
    batch, mask = pad(ids, bounds)
    assert batch.tolist() == [[5, 6, 7], [8, 9, 1], [4, 1, 1]]
    assert mask.sum(dim=1).tolist() == [3, 2, 1]
    assert torch.equal(batch[mask], ids)
    assert position_ids(bounds).tolist() == [0, 1, 2, 0, 1, 0]
    assert position_ids(bounds, "running").tolist() == [0, 1, 2, 3, 4, 5]
    assert owner_ids(bounds).tolist() == [0, 0, 0, 1, 1, 2]


def test_a_padded_batch_is_never_mostly_padding_but_where_it_is_small() -> None:
    assert padded_batches([64, 32, 16, 5]) == [[0, 1, 2, 3]]
    assert padded_batches([1024, 258]) == [[0], [1]]
    assert padded_batches([10, 402, 8, 162, 152]) == [[1], [3, 4], [0, 2]]
    assert padded_batches([129, 31]) == [[0, 1]]
    assert padded_batches([1024] * 5) == [[0, 1, 2, 3], [4]]


def test_several_padded_batches_come_back_in_the_pack_s_order() -> None:
    bounds = torch.tensor([0, 10, 412, 420, 582], dtype=torch.int32)
    ids = torch.arange(582)
    seen = []

    def embed(batch: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        seen.append(mask.sum(dim=1).tolist())
        assert bool((batch[~mask] == 1).all())
        return [batch[..., None], batch[mask][:, None]]  # one takes the padding out itself

    found = embed_padded(ids, bounds, embed)
    assert seen == [[402], [162], [10, 8]]
    assert all(torch.equal(rows[:, 0], ids) for rows in found.values())


@pytest.mark.usefixtures("quick_probes")
def test_esm_c_is_equal_and_nobody_can_say_whether_it_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shared_workers: None
) -> None:
    pytest.importorskip("transformers", "5.24")
    fasta = tmp_path / "two.fasta"
    fasta.write_text(">a\nMKTAYIAKQR\n>b\nMVLSPADK\n")
    told = ["validate", str(fasta), "--adapter", "hf-esmc", "--model", MODEL, "--device", "cpu"]
    assert run_command([*told, "--weights", "synthetic", "--dtype", "float32", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["reason"].startswith("Packed equals unpacked, correctness unknown")
    judged = {gate["name"]: gate["passed"] for gate in verdict["gates"]}
    assert [judged[name] for name in ("oracle", "ceiling", "baseline")] == [None, None, None]
    assert judged["leak"] is True
    assert verdict["documents"]["oracle"] == {"kind": "none", "digest": ""}
    assert all(one["packed_relative_l2"] is None for one in verdict["sequences"])


def test_another_family_reads_its_own_tokens_and_fills_esm2_s_places(tmp_path: Path) -> None:
    """ProtT5 has no <cls>, reads no masks, and ends with token 1: its encoder itself says so."""
    transformers = pytest.importorskip("transformers")
    from virnucpro_monitor.runner.encoders.hf_t5 import HfT5Adapter

    subject = load_subject("hf-t5", request(tmp_path, model_name=MODEL, token_budget=100))
    batch, model = pack(), HfT5Adapter().synthesize(MODEL)
    assert isinstance(model, transformers.T5EncoderModel)
    vocabulary = {letter: 3 + place for place, letter in enumerate("ALGVSRETDIPKFQNYMHWCX")}
    assert len(TEXTS) == len(batch.cu_seqlens) - 1
    together = subject.embed_packed_layers(batch, [0, 6])
    for number, text in enumerate(TEXTS):
        ids = torch.tensor([[*(vocabulary[letter] for letter in text), 1]])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        start, end = (int(one) for one in batch.cu_seqlens[number : number + 2])
        for layer, rows in together.items():
            assert distance(rows[start + 1 : end], states[layer][0]) < 1e-5
        alone = subject.embed_unpacked_layers(batch.input_ids[start:end], [6])[6]
        assert distance(alone[1:], states[6][0]) < 1e-5
