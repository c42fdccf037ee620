"""The adapters for packages that the CI does without, on modules of the same interface.

The packages themselves are run by `python -m tests.benchmarks.encoders`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.runner import esm_stand_ins as stand_ins
from tests.runner.test_adapters import request
from tests.runner.test_encoders import MODEL, distance, exact, pack
from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.models.weights import Weights, load_checkpoint, resolve_weights
from virnucpro_monitor.runner.adapter_names import SHIPPED
from virnucpro_monitor.runner.loading import find_adapter, load_subject

ALL = list(range(7))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return resolve_weights(MODEL, "synthetic", cache_folder=tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what an adapter puts in front of the search path, and the modules found there."""
    path, before = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in ("flash_attn", "fastplms", "convert"):
            del sys.modules[name]


def install(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of the package that an adapter needs, as a module or in the checkout."""
    if name == "esm-efficient":
        stand_ins.install(monkeypatch, "esme.esm", ESM2=stand_ins.EsmeModel)
    elif name == "faesm":
        from transformers import EsmModel

        stand_ins.install(monkeypatch, "faesm.esm", FAEsmModel=EsmModel, flash_attn_installed=False)
    elif name == "fastplms":
        stand_ins.write_files(folder / "src" / "fastplms", stand_ins.FASTPLMS)
    else:
        stand_ins.install(monkeypatch, "transformer_engine")
        stand_ins.write_files(folder / "models" / "esm2", stand_ins.NV_RECIPE)


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("esm-efficient", "exact"),
        ("faesm", "sdpa-padded"),
        ("fastplms", "sdpa-padded"),
        ("nv-esm-thd", "thd"),
    ],
)
def test_each_is_fair_esm_in_every_layer(
    name: str, backend: str, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    install(name, tmp_path, monkeypatch)
    asked = request(tmp_path, model_name=MODEL, checkpoint=weights.path, token_budget=100)
    subject = load_subject(name, asked)
    assert (subject.num_layers, subject.backend) == (6, backend)
    batch = pack()
    if name == "esm-efficient":  # its stand-in knows no masks
        batch = batch.with_tokens(batch.input_ids.masked_fill(batch.input_ids == 32, 24))
    wanted = exact(weights, batch)
    together = subject.embed_packed_layers(batch, ALL)
    assert max(distance(together[layer], wanted[layer]) for layer in ALL) < 1e-5
    first = int(batch.cu_seqlens[1])
    alone = subject.embed_unpacked_layers(batch.input_ids[:first], ALL)
    assert max(distance(alone[layer], wanted[layer][:first]) for layer in ALL) < 1e-5


def test_esm_cpp_gives_the_logits_of_fair_esm(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.install(monkeypatch, "esm_cpp", Model=stand_ins.CppModel, current_isa=lambda: "plain")
    asked = request(tmp_path, model_name=MODEL, checkpoint=weights.path, token_budget=100)
    subject = load_subject("esm-cpp", asked)
    assert (subject.num_layers, subject.backend) == (6, "logits-plain")
    batch, model = pack(), load_checkpoint(MODEL, weights.path)[0]
    parts = batch.input_ids.tensor_split(batch.cu_seqlens[1:-1].long())
    with torch.no_grad():
        wanted = torch.cat([model(ids[None])["logits"][0] for ids in parts])
    assert torch.allclose(subject.embed_packed_layers(batch, [6])[6], wanted, atol=1e-4)
    assert torch.allclose(
        subject.embed_unpacked_layers(parts[0], [6])[6], wanted[: len(parts[0])], atol=1e-4
    )
    half = request(
        tmp_path, model_name=MODEL, checkpoint=weights.path, dtype=torch.bfloat16, token_budget=100
    )
    with pytest.raises(TargetError, match="on the CPU in float32"):
        load_subject("esm-cpp", half)


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"seed-interface", "builtin"}))
def test_a_package_that_is_not_there_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = SHIPPED[name].needs or ""
    for module in [one for one in sys.modules if one.partition(".")[0] == needed]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(TargetError) as caught:
        find_adapter(name).load(request(tmp_path))
    sentence = f"The adapter {name} needs {needed}, which is not installed: pip install "
    assert str(caught.value) == f"{sentence}{SHIPPED[name].install}."


def test_what_its_release_of_transformers_lacks_is_named_with_one_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAESM 0.1.1 with transformers 4.57 and later."""
    package = tmp_path / "faesm"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    package.joinpath("esm.py").write_text("from collections import NoSuchName\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TargetError) as caught:
        find_adapter("faesm").load(request(tmp_path))
    assert str(caught.value) == (
        "The adapter faesm needs faesm, which cannot be imported with what is installed here "
        "(cannot import name 'NoSuchName' from 'collections'): pip install faesm "
        "'transformers<4.54'."
    )
    for name in ("faesm", "faesm.esm"):
        sys.modules.pop(name, None)


def test_a_recipe_s_repository_must_have_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins.install(monkeypatch, "transformer_engine")
    with pytest.raises(TargetError, match=r"has no modeling_esm_te.py: watch the repository of"):
        load_subject("nv-esm-thd", request(tmp_path))
