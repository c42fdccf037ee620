"""What both sides are held against, by choice."""

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from tests.runner.conftest import MODEL, SEQUENCES, SMALL, MakePlan
from tests.runner.test_embedder import ADAPTER
from tests.runner.tiny_target import TinyRepository
from virnucpro_monitor.errors import ConfigurationError, WeightsError
from virnucpro_monitor.models import weight_digests
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights
from virnucpro_monitor.records import Outcome, Run, RunReport, Target, read_oracle
from virnucpro_monitor.runner import oracles
from virnucpro_monitor.runner.adapter_names import parse_adapter, with_oracle, without_file
from virnucpro_monitor.runner.code_digest import code_digest
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.hub_models import pinned_folder
from virnucpro_monitor.runner.oracle_names import OracleName, oracle_here, parse_oracle
from virnucpro_monitor.runner.oracles import open_oracle
from virnucpro_monitor.validation.other_oracles import check_oracle_file, file_oracle
from virnucpro_monitor.validation.tokens import encode

pytestmark = pytest.mark.usefixtures("shared_workers")

IN_ANY_DTYPE = ADAPTER.replace("regression)[0]", "regression)[0].to(request.dtype)")
# Equal on both sides, and wrong on both: as a rescale that both leave out.
ALIKE_WRONG = IN_ANY_DTYPE.replace("rows[0] for", "rows[0] / 0.88 for")
JUDGED = ("oracle", "ceiling", "baseline")

Measure = Callable[[str, str], RunReport]


@pytest.fixture
def measure(tiny: TinyRepository, make_plan: MakePlan) -> Measure:
    def run(adapter: str, oracle: str) -> RunReport:
        commit = tiny.commit({"tools/monitor.py": adapter})
        name = with_oracle("tools/monitor.py:Adapter", oracle)
        target = Target(name="tiny", location=str(tiny.folder), adapter=name)
        (report,) = run_commits(make_plan([commit], target=target))
        return report

    return run


@pytest.fixture
def embeddings(cache_folder: Path) -> dict[str, np.ndarray]:
    """[residues, 320] of each sequence by fair-esm itself."""
    weights = resolve_weights(MODEL, "synthetic", cache_folder=cache_folder)
    model, _ = load_checkpoint(MODEL, weights.path)
    with torch.inference_mode():
        return {
            one.id: model(encode(one.residues)[None], repr_layers=[6])["representations"][6][
                0, 1:-1
            ].numpy()
            for one in SEQUENCES
        }


def gates(run: Run) -> dict[str, bool | None]:
    return {gate.name: gate.passed for gate in run.gates}


def test_its_own_path_in_fp64_judges_all_but_what_both_sides_share(measure: Measure) -> None:
    right = measure(IN_ANY_DTYPE, "self-fp64")
    assert right.run.outcome is Outcome.PASSED, right.run.reason
    assert read_oracle(right.documents) == "self-fp64"
    assert [gates(right.run)[name] for name in JUDGED] == [True] * 3
    # FP32 against FP64, which no two FP32 passes of one model would show.
    distances = [one.unpacked_relative_l2 for one in right.sequences]
    assert all(distance is not None and 1e-8 < distance < 2e-6 for distance in distances)

    wrong = measure(IN_ANY_DTYPE.replace("SHIFT = 0.0", "SHIFT = 0.1"), "self-fp64").run
    assert (wrong.outcome, wrong.culprit) == (Outcome.FAILED, "packed")
    # It is unpacked's own FP64: that packed is the wrong one of the two does not follow from it.
    assert wrong.reason.startswith("Packed does not give what unpacked gives, which counts as")

    shared = measure(ALIKE_WRONG, "self-fp64").run
    assert shared.outcome is Outcome.PASSED
    assert "against self-fp64, which has any fault that both sides share" in shared.reason
    fixed = measure(ADAPTER, "self-fp64").run  # an adapter that knows FP32 alone
    assert fixed.outcome is Outcome.ERROR
    assert "The oracle self-fp64 needs the model in FP64" in fixed.reason
    seen = measure(ALIKE_WRONG, "fair-esm").run
    assert (seen.outcome, seen.culprit) == (Outcome.FAILED, "both")


def test_a_file_by_sequence_id_is_an_oracle(
    measure: Measure, embeddings: dict[str, np.ndarray], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, **embeddings)
    report = measure(ADAPTER, f"file:{rows}")
    assert report.run.outcome is Outcome.PASSED, report.run.reason
    assert read_oracle(report.documents) == f"file:{rows}"
    assert f"all gates that need no probes hold against file:{rows}" in report.run.reason
    both = measure(ALIKE_WRONG, f"file:{rows}").run
    assert (both.outcome, both.culprit) == (Outcome.FAILED, "both")

    pooled = tmp_path / "pooled.parquet"
    names = list(embeddings)
    values = [embeddings[name].mean(axis=0).tolist() for name in names]
    parquet.write_table(pa.table({"id": names, "embedding": values}), pooled)
    report = measure(ADAPTER, f"file:{pooled}")
    assert report.run.outcome is Outcome.PASSED, report.run.reason
    assert [gates(report.run)[name] for name in JUDGED] == [True] * 3


def test_another_content_of_the_file_is_measured_again(
    tiny: TinyRepository,
    make_plan: MakePlan,
    embeddings: dict[str, np.ndarray],
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, **embeddings)
    commit = tiny.commit({"tools/monitor.py": ADAPTER})
    target = Target(
        name="tiny",
        location=str(tiny.folder),
        adapter=with_oracle("tools/monitor.py:Adapter", f"file:{path}"),
    )
    plan = make_plan([commit], target=target)
    (first,) = run_commits(plan)
    assert list(run_commits(plan, known=[first.run])) == []
    np.savez(path, **{name: rows / 2 for name, rows in embeddings.items()})
    (second,) = run_commits(plan, known=[first.run])
    assert (first.run.outcome, second.run.outcome) == (Outcome.PASSED, Outcome.FAILED)
    held = replace(target, adapter="tools/monitor.py:Adapter")  # another oracle, the same commit
    (third,) = run_commits(make_plan([commit], target=held), known=[first.run])
    assert third.run.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"a": np.ones(320)}, "has no embedding of 'b'"),
        ({"a": np.ones((9, 320))}, "has 9 rows for 'a', which has 10 residues"),
        ({"a": np.ones(320), "b": np.ones(33)}, r"shape \(33,\) for 'b': give every sequence"),
        ({"a": np.zeros(320, dtype=int)}, r"int64 of shape \(320,\) for 'a'"),
        ({"a": np.full(320, np.nan)}, "arrays give values that are not finite for 'a'"),
        ({"a": np.full(320, 1e300)}, "arrays give values that are not finite for 'a'"),
        ({"a": np.zeros(320)}, "arrays give nothing but zeros for 'a'"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(
    arrays: dict[str, np.ndarray], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "o.npz"
    np.savez(path, **arrays)
    with pytest.raises(WeightsError, match=sentence):
        file_oracle(path, SMALL, cache_folder=tmp_path / "cache")
    path.write_bytes(b"no archive")
    with pytest.raises(WeightsError, match=r"o\.npz cannot be read \(ValueError\): give a \.npz"):
        file_oracle(path, SMALL, cache_folder=tmp_path / "cache")


def test_any_byte_of_a_model_s_folder_is_another_oracle(
    tiny: TinyRepository, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    weights, settings = folder / "model.safetensors", folder / "1_Pooling" / "config.json"
    settings.parent.mkdir(parents=True)
    content = bytearray(3 * 1024**2)
    weights.write_bytes(content)
    settings.write_text("{}")
    monkeypatch.chdir(tmp_path)
    name = with_oracle("tools/monitor.py:Adapter", "hf:model@5.24.0")
    assert parse_adapter(name).oracle == f"hf:{folder}@5.24.0"
    target = Target(name="tiny", location=str(tiny.folder), adapter=name)
    commit = tiny.commit({"tools/monitor.py": ADAPTER})
    plan = make_plan([commit], target=target)
    named = parse_oracle(parse_adapter(name).oracle)

    def digests() -> tuple[str, str]:
        return code_digest(plan.repository, target, commit), oracles._digest_of(named)

    seen = [digests()]
    assert digests() == seen[0]
    content[len(content) // 2] = 1
    weights.write_bytes(content)
    seen.append(digests())
    settings.write_text("[]")
    seen.append(digests())
    settings.rename(folder / "config.json")
    seen.append(digests())
    assert [len(set(kind)) for kind in zip(*seen, strict=True)] == [4, 4]
    # Not read again by another process, as a note beside it tells.
    weight_digests._folder_digest.cache_clear()
    monkeypatch.setattr(weight_digests.hashlib, "file_digest", None)
    assert digests() == seen[-1]


def _bytes(save: Callable[..., None], *arguments: object, **arrays: object) -> bytes:
    file = io.BytesIO()
    save(*([*arguments, file] if save is parquet.write_table else [file, *arguments]), **arrays)
    return file.getvalue()


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _damaged(compressed: bool) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, a=np.arange(320.0), b=np.zeros(320))
    content = bytearray(file.getvalue())
    content[300:316] = b"\xff" * 16
    return bytes(content)


def _table(**columns: object) -> bytes:
    return _bytes(parquet.write_table, pa.table(columns))


ONE = [[1.0] * 320]


@pytest.mark.parametrize(
    ("suffix", "content", "sentence"),
    [
        ("npz", b"", r"cannot be read \(EOFError\): give a \.npz"),
        ("npz", _bytes(np.savez, a=np.zeros(320))[:-40], r"cannot be read \(BadZipFile\)"),
        ("npz", _damaged(False), r"cannot be read, at 'a' \(BadZipFile\)"),
        ("npz", _damaged(True), r"cannot be read, at 'a' \((error|BadZipFile)\)"),
        ("npz", _bytes(np.savez, a=np.array([None])), r"at 'a' \(ValueError\)"),
        ("npz", _bytes(np.savez, a=np.array(["x"])), r"has <U1 of shape \(1,\) for 'a'"),
        ("npz", _bytes(np.savez, a=np.zeros(3, np.longdouble)), "has float128 of .* for 'a'"),
        ("npz", _bytes(np.savez, a=np.zeros(0)), r"of shape \(0,\) for 'a'"),
        ("npz", _zip(a=b"text"), "has no array at 'a'"),
        ("npz", _zip(), "has no embedding: write it anew"),
        ("npz", _zip(**{"a": b"", "a.npy": b""}), "has the id 'a' more than once"),
        ("npz", _bytes(np.save, np.zeros(3))[::-1], r"cannot be read \(ValueError\)"),
        ("parquet", b"PAR1", r"cannot be read \(ArrowInvalid\)"),
        ("parquet", _table(id=["a"], embedding=[{"x": 1.0}]), r"at 'a' \(TypeError\)"),
        ("parquet", _table(id=["a"], embedding=[["x"]]), r"at 'a' \(ValueError\)"),
        ("parquet", _table(id=["a"], embedding=[None]), r"of shape \(\) for 'a'"),
        ("parquet", _table(id=["a", "a"], embedding=ONE * 2), "has the id 'a' more than once"),
        ("parquet", _table(name=["a"], embedding=ONE), "has the columns name, embedding: give id"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    suffix: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / f"o.{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        file_oracle(path, SMALL, cache_folder=tmp_path / "cache")
    with pytest.raises(WeightsError, match=sentence):
        check_oracle_file(path)


def test_every_id_is_read_in_any_order_of_bytes(tmp_path: Path) -> None:
    first = SEQUENCES[0]
    again = replace(SMALL, digest="again", sequences=(first, replace(first, id="again")))
    path = tmp_path / "o.npz"
    row = np.arange(1.0, 321.0)
    np.savez(path, **{first.id: row.astype(">f4"), "again": row * 1.0001})
    oracle = file_oracle(path, again, cache_folder=tmp_path / "cache")
    assert np.array_equal(oracle.pooled, [row, row * 1.0001])
    np.savez(path, **{first.id: row, "again": row[::-1]})
    with pytest.raises(WeightsError, match=r"different embeddings .* of 'again' and 'a' \("):
        file_oracle(path, again, cache_folder=tmp_path / "cache")


def test_another_width_is_named(measure: Measure, tmp_path: Path) -> None:
    path = tmp_path / "o.npz"
    np.savez(path, **{one.id: np.ones(33) for one in SEQUENCES})
    run = measure(ADAPTER, f"file:{path}").run
    assert run.outcome is Outcome.ERROR
    assert f"gives 64 channels, and file:{path} has 33" in run.reason


def test_a_model_of_the_hub_stays_the_files_that_it_was(tmp_path: Path) -> None:
    named = parse_oracle(f"hf:me/model#{'ab' * 20}@5.24.0")
    assert (named.place, named.revision, named.version) == ("me/model", "ab" * 20, "5.24.0")
    assert parse_oracle(named.text) == named
    folder = tmp_path / "snapshot"
    folder.mkdir()
    weights = folder / "model.safetensors"
    weights.write_bytes(b"some")
    asked = []

    def fetch() -> Path:
        asked.append(1)
        return folder

    def digest(of: OracleName = named) -> str:
        found, files = pinned_folder(of, tmp_path / "cache", fetch)
        assert found == folder
        return files

    first = digest()
    assert digest() == first
    assert len(asked) == 1  # nothing is fetched again
    os.utime(weights, (0, 0))
    assert digest() == first  # other times, the same bytes
    weights.write_bytes(b"more")
    with pytest.raises(
        ConfigurationError, match=r"has changed: model\.safetensors is not the file"
    ):
        digest()
    assert digest(parse_oracle(f"hf:me/model#{'cd' * 20}@5.24.0")) != first
    weights.unlink()
    with pytest.raises(ConfigurationError, match=r"has changed: model\.safetensors"):
        digest()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hf:me/model@5.24.0", r"pin the commit, as in hf:me/model#0123456789abcdef\w+@5\.24"),
        ("hf:me/model#main@5.24.0", "pin the commit"),
        ("hf:/no/such/folder@5.24.0", "There is no folder /no/such/folder"),
        ("mine", "'mine' is no oracle: use fair-esm, self-fp64"),
        ("file:x.csv", "is no oracle: use .*a .npz or .parquet file"),
        ("hf:EsmModel", "names no release of transformers: pin one"),
        ("file:gone.npz", "There is no file .*gone.npz"),
    ],
)
def test_what_is_no_oracle_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        oracle_here(name)


@pytest.mark.parametrize(
    ("adapter", "oracle", "name"),
    [
        ("hf-esm", "self-fp64", "hf-esm:oracle=self-fp64"),
        ("hf-esm:way=kwargs", "hf:EsmModel@5.24.0", "hf-esm:way=kwargs,oracle=hf:EsmModel@5.24.0"),
        ("m:Make:oracle=none", "self-fp64", "m:Make:oracle=self-fp64"),
        ("hf-esm:way=mask,oracle=none", "fair-esm", "hf-esm:way=mask"),
        ("hf-esmc", "none", "hf-esmc"),
        ("hf-esmc", None, "hf-esmc"),
    ],
)
def test_an_adapter_s_name_carries_its_oracle(adapter: str, oracle: str | None, name: str) -> None:
    assert with_oracle(adapter, oracle) == name
    found = parse_adapter(name)
    assert found.options == parse_adapter(adapter).options
    assert oracle in (None, found.oracle)
    of_file = "hf-esm:way=mask,oracle=file:/x/a=b,c:d.npz"
    assert parse_adapter(of_file).oracle == "file:/x/a=b,c:d.npz"
    assert without_file(of_file) == "hf-esm:way=mask,oracle=none"
    assert parse_oracle("hf:/models/m@v5.24").text == "hf:/models/m@5.24"


@pytest.mark.slow
def test_a_pinned_model_of_hugging_face_s_in_an_environment_of_its_own(
    embeddings: dict[str, np.ndarray], cache_folder: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    weights = resolve_weights(MODEL, "synthetic", cache_folder=cache_folder)
    name = f"hf:EsmModel@{transformers.__version__}"
    oracle = open_oracle(name, MODEL, weights, SMALL, cache_folder=tmp_path)
    assert oracle is not None
    assert (oracle.kind, oracle.weights_digest) == (name, weights.digest)
    for index, one in enumerate(SEQUENCES):
        exact = torch.from_numpy(embeddings[one.id])
        assert torch.allclose(oracle.residues_of(index), exact, rtol=0, atol=1e-4)
        assert not torch.equal(oracle.residues_of(index), torch.zeros_like(exact))
