"""The FP32 oracle: fair-esm's own numbers, cached whole or not at all."""

import json
import multiprocessing
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.validation.conftest import MODEL, SEQUENCES, make_benchmark
from virnucpro_monitor.errors import DiskError, WeightsError
from virnucpro_monitor.models.weights import Weights, load_checkpoint
from virnucpro_monitor.records import BenchmarkSet
from virnucpro_monitor.validation import oracle as oracles
from virnucpro_monitor.validation.oracle import (
    Oracle,
    TornOracleError,
    oracle_digest,
    oracle_folder,
    prepare_oracle,
)


def folder_of(weights: Weights, benchmark: BenchmarkSet, cache: Path) -> Path:
    return oracle_folder(cache, oracle_digest(MODEL, weights.digest, benchmark.digest))


@pytest.fixture
def cached(oracle: Oracle, weights: Weights, benchmark_set, oracle_cache, tmp_path) -> Path:
    """A private copy of the cache, to damage."""
    shutil.copytree(oracle_cache, tmp_path / "cache")
    return folder_of(weights, benchmark_set, tmp_path / "cache")


def test_it_is_fair_esm_itself(oracle: Oracle, weights: Weights) -> None:
    model, alphabet = load_checkpoint(MODEL, weights.path)
    convert = alphabet.get_batch_converter()
    for index, (name, text) in enumerate(SEQUENCES.items()):
        tokens = convert([(name, text)])[2]
        with torch.no_grad():
            rows = model(tokens, repr_layers=[6])["representations"][6][0, 1 : len(text) + 1]
        assert torch.equal(oracle.residues_of(index), rows)
        assert torch.allclose(oracle.pooled_of(index), rows.double().mean(0), atol=1e-14, rtol=0)
    assert np.array_equal(oracle.embedding, model.embed_tokens.weight.detach().numpy())


def test_residues_stay_on_disk(oracle: Oracle) -> None:
    stored = np.load(oracle.residues_path, mmap_mode="r")
    assert stored.shape == (sum(len(text) for text in SEQUENCES.values()), 320)
    assert stored.dtype == np.float32
    held = [getattr(oracle, name) for name in ("pooled", "embedding")]
    assert sum(array.nbytes for array in held) < stored.nbytes


def test_a_file_that_goes_away_meanwhile_is_named(cached: Path) -> None:
    opened = Oracle.open(cached)
    (cached / "residues.npy").unlink()
    with pytest.raises(oracles.TornOracleError, match=r"residues\.npy cannot be read any more"):
        opened.residues_of(0)


def test_one_residue_is_the_row_of_all(oracle: Oracle) -> None:
    stored = np.load(oracle.residues_path)
    for index in (0, len(oracle.starts) - 2):
        first, end = oracle.starts[index : index + 2]
        for row in (first, end - 1):
            assert np.array_equal(oracle.residue_of(index, row - first).numpy(), stored[row])


def test_a_file_that_is_cut_short_meanwhile_is_named(cached: Path) -> None:
    opened = Oracle.open(cached)
    assert opened.residues_path is not None
    with opened.residues_path.open("r+b") as file:
        file.truncate(opened.residues_path.stat().st_size - 64)
    with pytest.raises(oracles.TornOracleError, match=r"it is not [0-9]+ bytes long"):
        opened.residue_of(0, 0)


def test_it_is_computed_once(
    oracle: Oracle, weights, benchmark_set, oracle_cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(oracles, "write_oracle", refuse)
    again = prepare_oracle(MODEL, weights, benchmark_set, cache_folder=oracle_cache)
    assert again.digest == oracle.digest


def test_other_weights_benchmark_or_definition_are_another_oracle(
    weights: Weights, benchmark_set, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {
        oracle_digest(MODEL, weights.digest, benchmark_set.digest),
        oracle_digest(MODEL, "other", benchmark_set.digest),
        oracle_digest(MODEL, weights.digest, "other"),
        oracle_digest("esm2_t12_35M_UR50D", weights.digest, benchmark_set.digest),
    }
    monkeypatch.setattr(oracles, "DEFINITION", "another")
    digests.add(oracle_digest(MODEL, weights.digest, benchmark_set.digest))
    assert len(digests) == 5


@pytest.mark.parametrize("name", ["pooled.npy", "residues.npy", "embedding.npy", "oracle.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_torn_file_is_noticed_and_made_anew(
    cached: Path, weights, benchmark_set, name: str, damage: str
) -> None:
    path = cached / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    if (damage, name) == ("flipped", "oracle.json"):
        path.write_bytes(content.replace(b'"files"', b'"f1les"'))
    with pytest.raises(TornOracleError):
        Oracle.open(cached)
    again = prepare_oracle(MODEL, weights, benchmark_set, cache_folder=cached.parent.parent)
    assert again.pooled.shape == (len(SEQUENCES), 320)


def _prepare(cache: Path, weights: Weights, barrier, results) -> None:
    torch.set_num_threads(1)
    benchmark = make_benchmark({"a": "MKTAYIAK", "b": "DERKH"})
    barrier.wait()
    results.put(prepare_oracle(MODEL, weights, benchmark, cache_folder=cache).pooled.sum())


def test_two_writers_do_not_disturb_each_other(weights: Weights, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    writers = [
        context.Process(target=_prepare, args=(tmp_path, weights, barrier, results))
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    sums = [results.get(timeout=600) for _ in writers]
    for writer in writers:
        writer.join(timeout=600)
        assert writer.exitcode == 0
    assert sums[0] == sums[1]
    left = sorted(path.name for path in (tmp_path / "oracle").iterdir())
    assert len(left) == 1, left


def test_an_interrupted_writer_leaves_nothing_behind(
    weights: Weights, benchmark_set, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_oracle(MODEL, weights, benchmark_set, cache_folder=tmp_path, on_progress=stop)
    assert list((tmp_path / "oracle").iterdir()) == []


def test_progress_counts_sequences(weights: Weights, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    benchmark = make_benchmark({"a": "MKT", "b": "MKTA"})
    prepare_oracle(
        MODEL,
        weights,
        benchmark,
        cache_folder=tmp_path,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]


def test_weights_that_give_nan_are_refused(weights: Weights, benchmark_set, tmp_path) -> None:
    content = torch.load(weights.path, weights_only=False)
    content["model"]["encoder.sentence_encoder.layers.0.fc1.bias"][0] = float("nan")
    path = tmp_path / weights.path.name
    torch.save(content, path)
    broken = replace(weights, path=path, digest="broken")
    with pytest.raises(WeightsError, match="not finite"):
        prepare_oracle(MODEL, broken, benchmark_set, cache_folder=tmp_path / "cache")


def test_the_facts_say_what_it_was_made_from(oracle: Oracle, weights, benchmark_set, oracle_cache):
    facts = json.loads(
        (folder_of(weights, benchmark_set, oracle_cache) / "oracle.json").read_text()
    )
    assert facts["weights_digest"] == weights.digest
    assert facts["benchmark_digest"] == benchmark_set.digest
    assert "TF32 off" in facts["definition"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_stands_in_the_folders_place_is_replaced(
    kind: str, weights: Weights, benchmark_set: BenchmarkSet, tmp_path: Path
) -> None:
    folder = folder_of(weights, benchmark_set, tmp_path)
    folder.parent.mkdir()
    if kind == "file":
        folder.write_text("in the way")
    else:
        folder.symlink_to(tmp_path / "nowhere")
    opened = prepare_oracle(MODEL, weights, benchmark_set, cache_folder=tmp_path)
    assert opened.digest == folder.name
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_cache_that_is_no_folder_is_named(
    weights: Weights, benchmark_set: BenchmarkSet, tmp_path: Path
) -> None:
    (tmp_path / "oracle").write_text("in the way")
    with pytest.raises(DiskError, match=r"The oracle cannot be written: .*/oracle is in the way"):
        prepare_oracle(MODEL, weights, benchmark_set, cache_folder=tmp_path)


def test_what_a_killed_computation_left_is_swept(
    weights: Weights, benchmark_set: BenchmarkSet, tmp_path: Path
) -> None:
    code = (
        "import os, sys; from pathlib import Path; from virnucpro_monitor.scratch import *;"
        "claim = scratch_folder(Path(sys.argv[1]), '.c689-'); folder = claim.__enter__();"
        "folder.mkdir();"
        "(folder / 'residues.npy').write_bytes(bytes(1000)); os.kill(os.getpid(), 9)"
    )
    folder = folder_of(weights, benchmark_set, tmp_path)
    subprocess.run([sys.executable, "-c", code, str(folder.parent)], check=False)
    assert len(list(folder.parent.iterdir())) == 2
    prepare_oracle(MODEL, weights, benchmark_set, cache_folder=tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
