import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from esm import Alphabet

from virnucpro_monitor.errors import ConfigurationError, TargetError
from virnucpro_monitor.runner.adapter_names import parse_adapter
from virnucpro_monitor.runner.adapters import (
    BuiltinAdapter,
    LoadRequest,
    ModelSubject,
    SeedInterfaceAdapter,
)
from virnucpro_monitor.runner.loading import find_adapter, load_subject
from virnucpro_monitor.validation.subject import PackedBatch, embed_packed, embed_unpacked

CONVERTER = Alphabet.from_architecture("ESM-1b").get_batch_converter()
WIDTH = 4


def request(checkout: Path, **fields: Any) -> LoadRequest:
    values: dict[str, Any] = {
        "checkout": checkout,
        "package": None,
        "model_name": "tiny",
        "weights": "synthetic",
        "checkpoint": checkout / "none.pt",
        "regression": checkout / "none-regression.pt",
        "torch_home": checkout / "home",
        "device": "cpu",
        "dtype": torch.float32,
        "backend": "auto",
        "token_budget": 12,
    }
    return LoadRequest(**(values | fields))


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn_layer_norm = torch.nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.self_attn_layer_norm(x)


class Trunk(torch.nn.Module):
    """Numbers hidden layers its own way: layer i under i, not i + 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens = torch.nn.Embedding(33, WIDTH)
        self.layers = torch.nn.ModuleList([Layer(), Layer()])
        self.emb_layer_norm_after = torch.nn.LayerNorm(WIDTH)

    def run(self, tokens: torch.Tensor, asked: list[int]) -> dict[int, torch.Tensor]:
        found, x = {}, self.embed_tokens(tokens)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            found[index] = x
        found[len(self.layers)] = self.emb_layer_norm_after(x)
        return {layer: found[layer] for layer in asked}


class Wrapper(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Trunk()
        self.attention_impl = "own_attention"

    def forward(self, tokens: torch.Tensor, repr_layers: list[int]) -> Any:
        return {"representations": self.model.run(tokens, repr_layers)}

    def forward_packed(
        self, ids: torch.Tensor, bounds: torch.Tensor, longest: int, repr_layers: list[int]
    ) -> Any:
        return {"representations": self.model.run(ids, repr_layers)}


class PaddedWrapper(Wrapper):
    """Its packed path pads, and keeps time first inside, as fair-esm does."""

    def forward_packed(
        self, ids: torch.Tensor, bounds: torch.Tensor, longest: int, repr_layers: list[int]
    ) -> Any:
        ends = bounds.tolist()
        padded = torch.ones(len(ends) - 1, longest, dtype=torch.long)
        for row, (start, end) in enumerate(itertools.pairwise(ends)):
            padded[row, : end - start] = ids[start:end]
        found = self.model.run(padded.T, repr_layers)
        rows = [
            {layer: x[: end - start, row] for layer, x in found.items()}
            for row, (start, end) in enumerate(itertools.pairwise(ends))
        ]
        return {
            "representations": {
                layer: torch.cat([row[layer] for row in rows]) for layer in repr_layers
            }
        }


class LoopingWrapper(Wrapper):
    """Its packed path goes through the layers once for each sequence, time first."""

    def forward_packed(
        self, ids: torch.Tensor, bounds: torch.Tensor, longest: int, repr_layers: list[int]
    ) -> Any:
        found = [
            self.model.run(ids[start:end, None], repr_layers)
            for start, end in itertools.pairwise(bounds.tolist())
        ]
        return {
            "representations": {
                layer: torch.cat([one[layer][:, 0] for one in found]) for layer in repr_layers
            }
        }


def make_subject(model: Any, tmp_path: Path, collator: Any = None) -> ModelSubject:
    return ModelSubject(model, CONVERTER, collator, request(tmp_path))


PACK = PackedBatch(
    input_ids=torch.tensor([0, 5, 6, 2, 0, 7, 2]),
    cu_seqlens=torch.tensor([0, 4, 7], dtype=torch.int32),
    max_seqlen=4,
    sequence_ids=("a", "b"),
)


@pytest.mark.parametrize("model", [Wrapper, PaddedWrapper, LoopingWrapper])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layers_are_numbered_as_fair_esm_does(
    model: type[Wrapper], layer: int, tmp_path: Path
) -> None:
    wrapper = model()
    subject = make_subject(wrapper, tmp_path)
    trunk = wrapper.model
    with torch.no_grad():
        x = trunk.embed_tokens(PACK.input_ids)
        for index in range(layer):
            x = trunk.layers[index](x)
        expected = trunk.emb_layer_norm_after(x) if layer == 2 else x
    packed = embed_packed(subject, PACK, layer)
    assert torch.equal(packed, expected)
    assert torch.equal(embed_unpacked(subject, PACK.input_ids[:4], layer), expected[:4])
    assert subject.num_layers == 2
    assert subject.backend == "own_attention"


@pytest.mark.parametrize("model", [Wrapper, PaddedWrapper, LoopingWrapper])
def test_several_layers_come_from_one_pass(model: type[Wrapper], tmp_path: Path) -> None:
    wrapper = model()
    subject = make_subject(wrapper, tmp_path)
    layers = [0, 1, 2]
    packed = {layer: embed_packed(subject, PACK, layer) for layer in layers}
    alone = {layer: embed_unpacked(subject, PACK.input_ids[:4], layer) for layer in layers}
    passes = []
    wrapper.model.emb_layer_norm_after.register_forward_hook(lambda *_: passes.append(1))
    found = subject.embed_packed_layers(PACK, layers)
    assert all(torch.equal(found[layer], packed[layer]) for layer in layers)
    at_once = len(passes)
    embed_packed(subject, PACK, 2)
    assert at_once == len(passes) - at_once  # a padded fallback counts its sequences
    found = subject.embed_unpacked_layers(PACK.input_ids[:4], layers)
    assert all(torch.equal(found[layer], alone[layer]) for layer in layers)


class AddingLayer(Layer):
    """Adds to its input in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(self.self_attn_layer_norm(x))


def test_a_hidden_state_is_seen_before_the_layer_adds_to_it(tmp_path: Path) -> None:
    wrapper = Wrapper()
    wrapper.model.layers = torch.nn.ModuleList([AddingLayer(), AddingLayer()])
    subject = make_subject(wrapper, tmp_path)
    with torch.no_grad():
        expected = wrapper.model.embed_tokens(PACK.input_ids)
    assert torch.equal(subject.embed_packed_layers(PACK, [0, 1])[0], expected)


class DroppingCollator:
    """Answers each call with one pack; what does not fit is lost. No flush()."""

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def __call__(self, batch: list[dict[str, str]]) -> dict[str, Any]:
        parts: list[torch.Tensor] = []
        names = []
        for item in batch:
            tokens = CONVERTER([(item["id"], item["sequence"])])[2][0]
            if sum(map(len, parts)) + len(tokens) > self.budget and parts:
                break
            parts.append(tokens)
            names.append(item["id"])
        lengths = torch.tensor([0, *map(len, parts)])
        return {
            "input_ids": torch.cat(parts),
            "cu_seqlens": lengths.cumsum(0).int(),
            "max_seqlen": max(map(len, parts)),
            "sequence_ids": names,
        }


class BufferingCollator(DroppingCollator):
    """Answers {} until flush()."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self.buffer: list[dict[str, str]] = []

    def __call__(self, batch: list[dict[str, str]]) -> dict[str, Any]:
        self.buffer += batch
        return {}

    def flush(self) -> Iterator[dict[str, Any]]:
        for item in self.buffer:
            yield super().__call__([item])


@pytest.mark.parametrize(("collator", "num_packs"), [(DroppingCollator, 2), (BufferingCollator, 4)])
def test_every_kind_of_collator_gives_all_sequences(
    collator: type[DroppingCollator], num_packs: int, tmp_path: Path
) -> None:
    subject = make_subject(Wrapper(), tmp_path, lambda _, budget: collator(budget))
    packs = list(subject.pack([("a", "MKT"), ("b", "MKTA"), ("c", "MK"), ("d", "M")]))
    assert [name for pack in packs for name in pack.sequence_ids] == ["a", "b", "c", "d"]
    assert len(packs) == num_packs
    assert all(pack.input_ids.numel() <= 12 for pack in packs)
    subject.token_budget = 6  # as out of memory leaves it
    packs = list(subject.pack([("a", "MKT"), ("b", "MKTA"), ("c", "MK"), ("d", "M")]))
    assert [pack.sequence_ids for pack in packs] == [("a",), ("b",), ("c",), ("d",)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cu_seqlens": torch.tensor([0, 3])}, "for 2 sequences"),
        ({"input_ids": None}, "not as agreed"),
        ({"max_seqlen": "long"}, "not as agreed"),
        ({"max_seqlen": 10**30}, "max_seqlen is 1e"),
        ({"max_seqlen": float("inf")}, "not as agreed"),
        ({"cu_seqlens": torch.tensor([0.0, torch.nan, 10.0])}, "must hold whole numbers"),
        ({"input_ids": torch.zeros(10)}, "must hold whole numbers"),
    ],
)
def test_a_pack_that_breaks_the_agreement_is_refused(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    def make(_: Any, budget: int) -> Any:
        return lambda batch: DroppingCollator(budget)(batch) | change

    subject = make_subject(Wrapper(), tmp_path, make)
    with pytest.raises(TargetError, match=sentence):
        list(subject.pack([("a", "MKT"), ("b", "MKT")]))


def test_wrong_shapes_and_missing_layers_are_named(tmp_path: Path) -> None:
    class Short(Wrapper):
        def forward_packed(self, *arguments: Any, **options: Any) -> Any:
            return {"representations": {2: torch.zeros(3, WIDTH)}}

    class Whole(Wrapper):
        def forward_packed(self, *arguments: Any, **options: Any) -> Any:
            return {"representations": {2: torch.zeros(7, WIDTH, dtype=torch.long)}}

    class Nothing(Wrapper):
        def forward_packed(self, *arguments: Any, **options: Any) -> Any:
            return {"representations": {}}

    class Words(Wrapper):
        def forward_packed(self, *arguments: Any, **options: Any) -> Any:
            return {"representations": {2: "embeddings"}}

    for model, sentence in [
        (Words(), "gives str, not embeddings of a float dtype"),
        (Short(), r"shape \(3, 4\) for 7 tokens"),
        (Whole(), "not embeddings of a float dtype"),
        (Nothing(), r"no representations\[2\]"),
    ]:
        with pytest.raises(TargetError, match=sentence):
            embed_packed(make_subject(model, tmp_path), PACK, 2)


_LOADING = """
import torch

class Model(torch.nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, dtype=dtype))
        self.num_layers = 1

    def forward_packed(self):
        pass

class VarlenCollator:
    pass

def load_esm2_model(model_name, device{extra}):
    return Model({dtype}), None
"""


@pytest.fixture
def imports() -> Iterator[None]:
    """Undo what importing a target changes."""
    path, modules, home = list(sys.path), set(sys.modules), os.environ.get("TORCH_HOME")
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    os.environ.pop("TORCH_HOME", None)
    if home is not None:
        os.environ["TORCH_HOME"] = home


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize(
    ("extra", "dtype", "asked", "given"),
    [
        ("", "torch.float32", torch.float32, torch.float32),
        ("", "torch.float32", torch.float16, torch.float16),
        (", dtype=None", "dtype", torch.bfloat16, torch.bfloat16),
        (
            ", enable_fp16=True",
            "torch.float16 if enable_fp16 else torch.float32",
            torch.float32,
            torch.float32,
        ),
        ("", "torch.float16", torch.float16, torch.float16),
    ],
)
def test_the_dtype_is_asked_for_in_the_loaders_own_way(
    extra: str, dtype: str, asked: torch.dtype, given: torch.dtype, tmp_path: Path
) -> None:
    (tmp_path / "pack.py").write_text(_LOADING.format(extra=extra, dtype=dtype))
    assert SeedInterfaceAdapter().load(request(tmp_path, dtype=asked)).dtype is given
    assert os.environ["TORCH_HOME"] == str(tmp_path / "home")


@pytest.mark.usefixtures("imports")
def test_weights_that_were_rounded_on_loading_are_not_passed_off_as_exact(tmp_path: Path) -> None:
    (tmp_path / "pack.py").write_text(_LOADING.format(extra="", dtype="torch.float16"))
    with pytest.raises(TargetError, match="run it with --dtype float16"):
        SeedInterfaceAdapter().load(request(tmp_path))


@pytest.mark.usefixtures("imports")
def test_a_wrong_call_of_the_rotation_is_refused_in_fair_esms_words(tmp_path: Path) -> None:
    code = _LOADING.format(extra="", dtype="torch.float32").replace(
        "        self.num_layers = 1",
        "        self.num_layers = 1\n"
        "        self.rotary = __import__('esm').rotary_embedding.RotaryEmbedding(4)\n"
        "        Model.made = self",
    )
    (tmp_path / "pack.py").write_text(code)
    SeedInterfaceAdapter().load(request(tmp_path, dtype=torch.float16))
    model = sys.modules["pack"].Model.made
    rows = torch.ones(1, 3, 4, dtype=torch.float16)
    assert model.rotary(rows, rows)[0].dtype is torch.float16
    with pytest.raises(TypeError, match=r"RotaryEmbedding\.forward\(\) takes 3 positional"):
        model.rotary(rows, rows, 3)


@pytest.mark.usefixtures("imports")
def test_a_package_init_that_needs_another_package_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("import not_installed_anywhere\n")
    (package / "model.py").write_text(_LOADING.format(extra="", dtype="torch.float32"))
    SeedInterfaceAdapter().load(request(tmp_path))
    assert "needs 'not_installed_anywhere'" in capsys.readouterr().err


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize("missing", ["pack.gone", "not_installed_anywhere"])
def test_what_the_module_itself_needs_must_be_there(tmp_path: Path, missing: str) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    code = _LOADING.format(extra="", dtype="torch.float32")
    (package / "model.py").write_text(f"import {missing}\n{code}")
    with pytest.raises(TargetError, match=r"ModuleNotFoundError: No module named"):
        SeedInterfaceAdapter().load(request(tmp_path))


def test_adapters_are_found_by_name_or_place() -> None:
    assert isinstance(find_adapter("seed-interface"), SeedInterfaceAdapter)
    place = "virnucpro_monitor.runner.adapters:BuiltinAdapter"
    assert isinstance(find_adapter(place), BuiltinAdapter)
    with pytest.raises(TargetError, match="There is no adapter 'nothing'"):
        find_adapter("nothing")
    with pytest.raises(TargetError, match=r"\): did you mean hf-esm\?$"):
        find_adapter("hf_esm")
    with pytest.raises(TargetError, match=r"given\.py' names a file alone: .* given\.py:CLASS"):
        find_adapter("given.py")
    with pytest.raises(TargetError, match="cannot be imported"):
        find_adapter("no_such_module:thing")


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [
        ("Gone", r"cannot be imported \(module 'given' has no attribute 'Gone'\)\.$"),
        ("NOTHIN", r"has no attribute 'NOTHIN'\): did you mean nothing\?$"),
        ("NUMBER", "NUMBER of given.py is not callable"),
        ("nothing", "gives int, which has no method load"),
        ("Model", r"takes no argument: let Model take one, the LoadRequest"),
        ("two", r"cannot be made \(.*missing 2 required positional arguments"),
    ],
)
def test_what_is_no_adapter_is_named(attribute: str, sentence: str, tmp_path: Path) -> None:
    text = "NUMBER = 3\ndef nothing(): return 3\ndef two(a, b): pass\n"
    text += "class Model:\n def alone(self): pass\n def together(self): pass\n"
    tmp_path.joinpath("given.py").write_text(text)
    with pytest.raises(TargetError, match=sentence):
        find_adapter(f"given.py:{attribute}", tmp_path)


def test_what_takes_a_request_makes_the_model_itself(tmp_path: Path) -> None:
    tmp_path.joinpath("direct.py").write_text("def make(request): return request.dtype\n")
    adapter = find_adapter("direct.py:make", tmp_path)
    assert adapter.load(request(tmp_path)) is torch.float32  # type: ignore[comparison-overlap]
    with pytest.raises(TargetError, match="gives dtype, which has no alone and no together: give"):
        load_subject("direct.py:make", request(tmp_path))


@pytest.mark.parametrize(
    ("name", "place", "options", "oracle"),
    [
        ("hf-esm", "", {}, "fair-esm"),
        ("hf-esm:way=mask,oracle=none", "", {"way": "mask"}, "none"),
        ("hf-esmc:way=padded", "", {"way": "padded"}, "none"),
        ("tools/a.py:Model", "tools/a.py", {}, "fair-esm"),
        ("tools/a.py:Model:oracle=none", "tools/a.py", {}, "none"),
        ("package.module:make:oracle=none", "package.module", {}, "none"),
        ("somebodys:speed=1", "", {"speed": "1"}, "fair-esm"),
    ],
)
def test_a_name_is_taken_apart(name: str, place: str, options: dict[str, str], oracle: str) -> None:
    found = parse_adapter(name)
    assert (found.place, dict(found.options), found.oracle) == (place, options, oracle)
    assert bool(found.place) != bool(found.name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.py:Model:speed=1", "names a place, which takes no option but oracle and family: speed"),
        ("hf-esm:oracle=mine", "'mine' is no oracle: use fair-esm, self-fp64"),
    ],
)
def test_a_name_that_is_none_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        parse_adapter(name)
