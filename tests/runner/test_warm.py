import subprocess
import sys
from pathlib import Path

import esm.pretrained
import pytest
import torch

from virnucpro_monitor.models.weights import Weights, resolve_weights
from virnucpro_monitor.runner.warm import (
    build_model,
    install_loader,
    install_tokenizer,
    make_torch_home,
)

MODEL = "esm2_t6_8M_UR50D"  # of which fair-esm has a function


@pytest.fixture(scope="module")
def weights(cache_folder: Path) -> Weights:
    return resolve_weights(MODEL, "synthetic", cache_folder=cache_folder)


@pytest.fixture
def plain_model(
    weights: Weights, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> torch.nn.Module:
    """What fair-esm's own hub loader gives from the private TORCH_HOME."""
    home = make_torch_home(
        cache_folder, MODEL, weights.path, weights.regression_path, weights.digest
    )
    monkeypatch.setenv("TORCH_HOME", str(home))
    model, _ = esm.pretrained.load_model_and_alphabet_hub(MODEL)
    return model


def test_the_mapped_model_is_the_hub_loaders(
    weights: Weights, plain_model: torch.nn.Module
) -> None:
    mapped, alphabet = build_model(weights.path, weights.regression_path)
    assert alphabet.all_toks == esm.Alphabet.from_architecture("ESM-1b").all_toks
    assert mapped.training == plain_model.training
    state, expected = mapped.state_dict(), plain_model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert {p.dtype for p in mapped.parameters()} == {torch.float32}
    assert len(list(mapped.parameters())) == len(list(plain_model.parameters()))
    assert [p.requires_grad for p in mapped.parameters()] == [
        p.requires_grad for p in plain_model.parameters()
    ]
    tokens = torch.tensor([[0, 5, 6, 7, 2]])
    with torch.no_grad():
        assert torch.equal(mapped(tokens)["logits"], plain_model(tokens)["logits"])


def test_writing_into_a_mapped_model_leaves_the_file_alone(weights: Weights) -> None:
    before = weights.path.read_bytes()
    model, _ = build_model(weights.path, weights.regression_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    assert weights.path.read_bytes() == before


def test_the_loader_is_replaced_for_one_model_alone(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(esm.pretrained, "load_model_and_alphabet_hub", asked.append)
    install_loader(MODEL, weights.path, weights.regression_path)
    model, _ = getattr(esm.pretrained, MODEL)()
    assert model.num_layers == 6
    esm.pretrained.esm2_t12_35M_UR50D()
    assert asked == ["esm2_t12_35M_UR50D"]


def test_building_a_model_imports_no_compiler(weights: Weights) -> None:
    """Which takes a process a second, and each commit has several processes."""
    code = (
        "import sys; from pathlib import Path; from virnucpro_monitor.runner.warm import *;"
        "from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention;"
        "ESM2WithFlashAttention(*build_model(Path(sys.argv[1]), Path(sys.argv[2])));"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    paths = [str(weights.path), str(weights.regression_path)]
    assert subprocess.run([sys.executable, "-c", code, *paths], check=False).returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "MKTAYIAKQRQISFVKSHFSRQ",
        "LAGVSERTIDPKQNFYMHWCXBUZO.-LLLLAALAGG",
        "",
        "MK<mask>TA<mask><mask>",
        "MK TA  YI ",
        "mkta",
        "MK*TA",
        "<cls>MK<eos>",
    ],
)
def test_the_quick_tokenizer_is_fair_esms(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alphabet = esm.Alphabet.from_architecture("ESM-1b")
    other = esm.Alphabet(["L", "A", "LA", "."])  # one token spelt by others
    expected = [one.tokenize(text) for one in (alphabet, other)]
    monkeypatch.setattr(esm.Alphabet, "tokenize", esm.Alphabet.tokenize)  # put back afterwards
    install_tokenizer()
    assert [one.tokenize(text) for one in (alphabet, other)] == expected


def test_a_plain_text_is_taken_apart_without_fair_esm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esm.Alphabet, "tokenize", esm.Alphabet.tokenize)  # put back afterwards
    alphabet = esm.Alphabet.from_architecture("ESM-1b")
    install_tokenizer()
    # fair-esm's own way passes each text through this.
    monkeypatch.setattr(alphabet, "_tokenize", pytest.fail)
    monkeypatch.setattr("esm.data.itertools", None)
    assert alphabet.encode("MKX") == [alphabet.get_idx(one) for one in "MKX"]
    with pytest.raises(AttributeError):
        alphabet.tokenize("MK<mask>")


def test_a_fair_esm_of_the_targets_own_tokenizes_as_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def tokenize(self: esm.Alphabet, text: str) -> list[str]:
        return ["<unk>"] * len(text)

    monkeypatch.setattr(esm.Alphabet, "tokenize", tokenize)
    install_tokenizer()
    assert esm.Alphabet.from_architecture("ESM-1b").tokenize("MK") == ["<unk>", "<unk>"]
