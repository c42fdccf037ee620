"""A model that only embeds, by an adapter in the watched repository or beside the monitor."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from tests.runner.conftest import MakePlan
from tests.runner.test_venv import _BACKEND, _SETUP
from tests.runner.tiny_target import TinyRepository
from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.records import Culprit, Outcome, Target
from virnucpro_monitor.runner.adapters import LoadRequest
from virnucpro_monitor.runner.code_digest import adapter_path, adapter_source
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.embedder import Embedder, EmbedderSubject
from virnucpro_monitor.runner.loading import load_subject

ADAPTER = """
import torch
from virnucpro_monitor.runner.warm import build_model

SHIFT = 0.0


class Model:
    backend = "one by one"

    def __init__(self, model):
        self.model = model.eval()
        self.layers = list(range(model.num_layers + 1))

    def alone(self, ids):
        found = self.model(ids[None], repr_layers=self.layers)["representations"]
        return {layer: rows[0] for layer, rows in found.items()}

    def together(self, ids, cu_seqlens, max_seqlen):
        parts = [self.alone(ids[a:b]) for a, b in zip(cu_seqlens[:-1], cu_seqlens[1:])]
        return {layer: torch.cat([one[layer] for one in parts]) + SHIFT for layer in self.layers}


class Adapter:
    def load(self, request):
        return Model(build_model(request.checkpoint, request.regression)[0])
"""


@pytest.mark.usefixtures("shared_workers")
def test_two_functions_in_a_file_of_the_repository_are_enough(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    hashes = [
        tiny.commit({"tools/monitor.py": ADAPTER}),
        tiny.commit({"tools/monitor.py": ADAPTER.replace("SHIFT = 0.0", "SHIFT = 0.1")}),
        tiny.commit({"tools/monitor.py": "raise RuntimeError('no')"}),
    ]
    target = Target(
        name="tiny",
        location=str(tiny.folder),
        adapter="tools/monitor.py:Adapter",
        paths=("tinytarget",),  # the adapter's file counts as well
    )
    right, wrong, broken = (one.run for one in run_commits(make_plan(hashes, target=target)))
    assert right.outcome is Outcome.PASSED
    assert right.configuration.backend == "one by one"
    assert wrong.outcome is Outcome.FAILED
    assert wrong.culprit is Culprit.PACKED
    assert broken.outcome is Outcome.ERROR
    assert "RuntimeError: no" in broken.reason


BAD = """
import torch
from virnucpro_monitor.runner.warm import build_model


class Model:
    def __init__(self, request):
        self.model = build_model(request.checkpoint, request.regression)[0].eval()

    def alone(self, ids):
        found = self.model(ids[None], repr_layers=[6])
        return {6: self.given(found["representations"][6][0], found["logits"][0])}

    def together(self, ids, cu_seqlens, max_seqlen):
        parts = [self.alone(ids[a:b])[6] for a, b in zip(cu_seqlens[:-1], cu_seqlens[1:])]
        return {6: torch.cat(parts)}


class Right(Model):
    given = staticmethod(lambda rows, logits: rows)


class Logits(Model):
    given = staticmethod(lambda rows, logits: logits)


class Raising(Model):
    given = staticmethod(lambda rows, logits: rows[1000])
"""


@pytest.mark.usefixtures("shared_workers")
def test_each_bad_adapter_is_an_error_of_one_sentence_and_the_next_one_runs(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    sentences = {
        "": "Adapter 'made.py:Made' cannot be imported (module 'made' has no attribute 'Made')",
        "Raising": "IndexError: index 1000 is out of bounds",
        "Logits": "The target gives 33 channels, and esm2_t6_demo has 64: give the hidden",
    }
    lines = [f"Made = {name}\n" if name else "" for name in (*sentences, "Right")]
    hashes = [tiny.commit({"made.py": f"{BAD}\n\n{line}"}) for line in lines]
    target = Target(name="tiny", location=str(tiny.folder), adapter="made.py:Made")
    *bad, right = (one.run for one in run_commits(make_plan(hashes, target=target)))
    for run, sentence in zip(bad, sentences.values(), strict=True):
        assert run.outcome is Outcome.ERROR
        assert sentence in run.reason
        assert "\n" not in run.reason
    assert right.outcome is Outcome.PASSED, right.reason


def test_an_adapter_beside_the_monitor_reaches_a_private_environment(
    tiny: TinyRepository, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "peers"
    package.mkdir()
    package.joinpath("__init__.py").touch()
    package.joinpath("ours.py").write_text(ADAPTER)
    monkeypatch.syspath_prepend(tmp_path)
    adapter_source.cache_clear()
    commit = tiny.commit(
        {
            "need/pyproject.toml": _SETUP + '[project]\nname = "tiny-need"\nversion = "1.0"\n',
            "need/backend.py": _BACKEND,
            "needs.txt": "./need\n",
        }
    )
    target = Target(
        name="tiny",
        location=str(tiny.folder),
        adapter="peers.ours:Adapter",
        requirements="needs.txt",
    )
    (report,) = run_commits(make_plan([commit], target=target))
    assert report.run.outcome is Outcome.PASSED, report.run.reason


class Constant:
    """Gives the same rows whatever it is asked."""

    def __init__(self, given: object) -> None:
        self.given = given

    def alone(self, ids: torch.Tensor) -> object:
        return self.given

    def together(self, ids: torch.Tensor, cu_seqlens: torch.Tensor, max_seqlen: int) -> object:
        return self.given


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "alone gives nothing, not embeddings by layer: give {layer number: tensor"),
        (torch.zeros(4, 2), "alone gives a tensor: give {layer: embeddings} instead"),
        ({}, "alone gives an empty or wrong dict, not embeddings by layer"),
        ({"last": torch.zeros(4, 2)}, "alone gives 'last': Tensor, not embeddings by layer"),
        ({6: [0.0]}, "alone gives 6: list"),
        ({6: torch.zeros(1, 4, 2)}, r"shape \(1, 4, 2\) for 4 tokens in layer 6: give one"),
        ({6: torch.zeros(5, 2)}, r"shape \(5, 2\) for 4 tokens"),
        ({6: torch.zeros(4, 2).half()}, "not float32: bring the model to request.dtype"),
        ({6: torch.zeros(4, 2).long()}, "gives int64 in layer 6, which is no float dtype"),
        ({6: torch.zeros(4, 2, device="meta")}, "rows on meta, asked for cpu: bring the model"),
        ({6: torch.zeros(4, 2).to_sparse()}, "a sparse tensor in layer 6: make it dense"),
        ({-1: torch.zeros(4, 2)}, "gives layer -1: number the layers from 0"),
    ],
)
def test_what_is_no_embedding_is_named(given: object, sentence: str) -> None:
    embedder = Constant(given)
    assert isinstance(embedder, Embedder)
    with pytest.raises(TargetError, match=sentence):
        EmbedderSubject(
            embedder, model_name="m", device="cpu", dtype=torch.float32, token_budget=100
        )


def test_a_layer_that_is_not_given_is_named() -> None:
    embedder = Constant({6: torch.zeros(4, 2)})
    assert isinstance(embedder, Embedder)
    subject = EmbedderSubject(
        embedder, model_name="m", device="cpu", dtype=torch.float32, token_budget=100
    )
    assert subject.num_layers == 6
    tokens = torch.zeros(4, dtype=torch.int64)
    assert set(subject.embed_unpacked_layers(tokens, [6])) == {6}
    with pytest.raises(TargetError, match=r"alone gives no layer 3 \(it gives 6\)"):
        subject.embed_unpacked_layers(tokens, [3, 6])


def test_an_entry_point_s_module_is_found_by_another_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a package that is installed for its author's changes: its code lies elsewhere."""
    packages, code = tmp_path / "site-packages", tmp_path / "code"
    info = packages / "strange-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text(
        "[virnucpro_monitor.adapters]\nstrange = strange_code.own:Own\n"
    )
    code.joinpath("strange_code").mkdir(parents=True)
    code.joinpath("strange_code", "__init__.py").touch()
    code.joinpath("strange_code", "own.py").write_text(
        "import what_it_watches\n"
        "class Own:\n    embed_packed_layers = None\n    def __init__(self, request): ...\n"
    )
    tmp_path.joinpath("here").mkdir()
    tmp_path.joinpath("here", "what_it_watches.py").touch()  # beside it, not installed
    monkeypatch.syspath_prepend(packages)
    request = cast(LoadRequest, SimpleNamespace(checkout=tmp_path))
    assert adapter_path("strange") is None
    with pytest.raises(ModuleNotFoundError):
        load_subject("strange", request)
    with monkeypatch.context() as ours:
        ours.syspath_prepend(code)
        assert adapter_path("strange") == str(code)
        adapter_source.cache_clear()
        assert len(adapter_source("strange")) == 1  # a change of it is one of what decides
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert (
        type(load_subject("strange", request, [str(code), str(tmp_path / "here")])).__name__
        == "Own"
    )


def test_a_family_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath("own.py").write_text(
        "class Own:\n    family = 'e2'\n    alone = together = len\n"
        "    def __init__(self, request): ...\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    request = SimpleNamespace(
        checkout=tmp_path, model_name="m", device="cpu", dtype=torch.float32, token_budget=100
    )
    with pytest.raises(TargetError, match="has the family 'e2': give a Family of"):
        load_subject("own.py:Own", cast(LoadRequest, request))


def test_two_widths_of_one_layer_are_named() -> None:
    embedder = Constant({6: torch.zeros(4, 2)})
    assert isinstance(embedder, Embedder)
    subject = EmbedderSubject(
        embedder, model_name="m", device="cpu", dtype=torch.float32, token_budget=100
    )
    embedder.given = {6: torch.zeros(4, 3)}
    with pytest.raises(TargetError, match="gives 3 channels in layer 6, where it was 2 before"):
        subject.embed_unpacked_layers(torch.zeros(4, dtype=torch.int64), [6])


def test_a_file_of_this_machine_counts_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "adapter.py"
    found = []
    for text in ("x = 1", "x = 2"):
        file.write_text(text)
        adapter_source.cache_clear()
        found.append(adapter_source(f"{file}:Adapter"))
    assert found[0] != found[1]
    assert adapter_source("tools/adapter.py:Adapter") == ()
