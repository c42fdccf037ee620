"""The engine on the CPU, against unmodified fair-esm in FP32 and FP64."""

import copy
import warnings

import pytest
import torch
from torch import Tensor

from tests.models.errors import relative_l2
from virnucpro_monitor.errors import ConfigurationError, DeviceError
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention, load_esm2_model
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights

SMALL = "esm2_t6_8M_UR50D"
MEDIUM = "esm2_t12_35M_UR50D"
MASK, PADDING = 32, 1


def make_tokens(length: int, *, masked: bool = False, seed: int = 0) -> Tensor:
    """<cls>, `length` random residues, some of them <mask> if wanted, <eos>."""
    generator = torch.Generator().manual_seed(1000 * seed + length)
    residues = torch.randint(4, 24, (length,), generator=generator)
    if masked:
        residues[torch.rand(length, generator=generator) < 0.3] = MASK
        residues[-1] = MASK
    return torch.cat((torch.tensor([0]), residues, torch.tensor([2])))


def make_pack(sequences: list[Tensor]) -> tuple[Tensor, Tensor, int]:
    lengths = torch.tensor([tokens.numel() for tokens in sequences])
    cu_seqlens = torch.cat((torch.zeros(1), lengths.cumsum(0))).int()
    return torch.cat(sequences), cu_seqlens, int(lengths.max())


@pytest.fixture(scope="module")
def model() -> ESM2WithFlashAttention:
    return load_esm2_model(SMALL, "cpu", weights="synthetic")[0]


def assert_as_near_to_fp64_as_fair_esm(
    model_name: str, lengths: tuple[int, ...], at_least: int
) -> None:
    """On every layer, packed and alone.

    Whose rounding is smaller in one sequence of a few residues is chance, and differs between CPUs;
    so each length is judged by `at_least` sequences, and by as many as make 32 tokens, together.
    From 250 tokens on one is enough: FP64 takes most of the time.
    """
    path = resolve_weights(model_name, "synthetic").path
    fair, alphabet = load_checkpoint(model_name, path)
    exact = load_checkpoint(model_name, path)[0].double()
    ours = ESM2WithFlashAttention(fair, alphabet)
    layers = list(range(ours.num_layers + 1))
    for length in lengths:
        count = max(at_least if length < 250 else 1, 32 // (length + 2))
        sequences = [
            make_tokens(length, masked=(seed + length) % 2 == 0, seed=seed) for seed in range(count)
        ]
        packed = ours.forward_packed(*make_pack(sequences), repr_layers=layers)["representations"]
        batch = torch.stack(sequences)
        with torch.no_grad():
            fp64 = exact(batch, repr_layers=layers)["representations"]
        # One at a time, since a CPU may round the same row another way among more rows.
        theirs, alone = (
            [model(tokens[None], repr_layers=layers)["representations"] for tokens in sequences]
            for model in (fair.requires_grad_(False), ours)
        )
        for layer in layers:
            expected = fp64[layer].flatten(0, 1)
            reference = torch.cat([result[layer][0] for result in theirs])
            limit = 2 * relative_l2(reference, expected) + 1e-7
            for result in (packed[layer], torch.cat([one[layer][0] for one in alone])):
                assert relative_l2(result, expected) <= limit, f"{length} residues, layer {layer}"
                assert relative_l2(result, reference) < 1e-5


def test_fp32_is_as_near_to_fp64_as_fair_esm() -> None:
    assert_as_near_to_fp64_as_fair_esm(SMALL, (1, 2, 15, 62, 126, 255), at_least=1)


@pytest.mark.slow
@pytest.mark.parametrize("model_name", [SMALL, MEDIUM])
def test_fp32_is_as_near_to_fp64_as_fair_esm_at_every_length(model_name: str) -> None:
    lengths = (1, 2, 3, 14, 15, 30, 31, 62, 63, 126, 254, 255, 510, 511, 1022)
    assert_as_near_to_fp64_as_fair_esm(model_name, lengths, at_least=2)


def test_a_padded_batch_is_fair_esms() -> None:
    fair, alphabet = load_checkpoint(SMALL, resolve_weights(SMALL, "synthetic").path)
    ours = ESM2WithFlashAttention(fair, alphabet)
    sequences = [make_tokens(5), make_tokens(40, masked=True), make_tokens(17)]
    batch = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=PADDING)
    layers = list(range(ours.num_layers + 1))
    with torch.no_grad():
        theirs = fair(batch, repr_layers=layers)["representations"]
    result = ours(batch, repr_layers=layers)["representations"]
    for layer in layers:
        for row, tokens in enumerate(sequences):
            length = tokens.numel()
            assert relative_l2(result[layer][row, :length], theirs[layer][row, :length]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_neighbours_residues_change_nothing_on_any_layer(
    model: ESM2WithFlashAttention, dtype: torch.dtype
) -> None:
    model = ESM2WithFlashAttention(
        load_checkpoint(SMALL, resolve_weights(SMALL, "synthetic").path)[0], model.alphabet
    ).to(dtype)
    layers = list(range(model.num_layers + 1))
    sequences = [make_tokens(length) for length in (7, 62, 1, 30)]
    before = model.forward_packed(*make_pack(sequences), repr_layers=layers)["representations"]
    again = model.forward_packed(*make_pack(sequences), repr_layers=layers)["representations"]
    for changed in range(4):
        others = list(sequences)
        others[changed] = make_tokens(sequences[changed].numel() - 2, masked=True, seed=1)
        pack = make_pack(others)
        after = model.forward_packed(*pack, repr_layers=layers)["representations"]
        keep = torch.ones(pack[0].numel(), dtype=torch.bool)
        keep[int(pack[1][changed]) : int(pack[1][changed + 1])] = False
        for layer in layers:
            assert torch.equal(before[layer], again[layer])
            assert torch.equal(before[layer][keep], after[layer][keep])


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_keeps_fp32_positions(dtype: torch.dtype, limit: float) -> None:
    """Rounded tables would cost bfloat16 ten times this limit."""
    fair, alphabet = load_checkpoint(SMALL, resolve_weights(SMALL, "synthetic").path)
    exact = ESM2WithFlashAttention(fair, alphabet)
    half = ESM2WithFlashAttention(fair, alphabet).to(dtype)
    assert half.dtype == dtype
    tokens = make_tokens(400)
    expected = exact(tokens[None], repr_layers=[6])["representations"][6][0].mean(0)
    alone = half(tokens[None], repr_layers=[6])["representations"][6][0]
    packed = half.forward_packed(*make_pack([tokens]), repr_layers=[6])["representations"][6]
    assert packed.dtype == alone.dtype == dtype
    for result in (alone, packed):
        assert relative_l2(result.double().mean(0), expected) < limit


def test_the_base_model_is_not_shared() -> None:
    fair, alphabet = load_checkpoint(SMALL, resolve_weights(SMALL, "synthetic").path)
    expected = fair.embed_tokens.weight.clone()
    ours = ESM2WithFlashAttention(fair, alphabet)
    ours.embed_tokens.weight.zero_()
    ours.final_norm.bias.zero_()
    assert torch.equal(fair.embed_tokens.weight, expected)
    assert fair.emb_layer_norm_after.bias.abs().sum() > 0


def test_a_model_can_be_copied(model: ESM2WithFlashAttention) -> None:
    copied = copy.deepcopy(model)
    assert copied._graphs._run.__self__ is copied
    pack = make_pack([make_tokens(7)])
    expected = model.forward_packed(*pack, repr_layers=[6])["representations"][6]
    copied.embed_tokens.weight.zero_()
    again = model.forward_packed(*pack, repr_layers=[6])["representations"][6]
    assert torch.equal(expected, again)


TOKENS = torch.tensor([0, 5, 6, 2, 0, 7, 2])
BOUNDS = torch.tensor([0, 4, 7], dtype=torch.int32)


@pytest.mark.parametrize(
    ("input_ids", "cu_seqlens", "max_seqlen", "message"),
    [
        (TOKENS, BOUNDS.long(), 4, "cu_seqlens is torch.int64"),
        (TOKENS, BOUNDS + 1, 4, "cu_seqlens starts at 1"),
        (TOKENS, torch.tensor([0, 5, 4, 7], dtype=torch.int32), 5, "sequence 1: 5 to 4"),
        (TOKENS, torch.tensor([0, 4, 4, 7], dtype=torch.int32), 4, "sequence 1: 4 to 4"),
        (TOKENS, torch.tensor([0, 4, 6], dtype=torch.int32), 4, "ends at 6, the pack at 7"),
        (TOKENS, torch.tensor([0], dtype=torch.int32), 4, r"cu_seqlens has shape \(1,\)"),
        (TOKENS, BOUNDS[None], 4, r"cu_seqlens has shape \(1, 3\)"),
        (TOKENS, BOUNDS, 3, "max_seqlen is 3; the longest sequence has 4"),
        (TOKENS[None], BOUNDS, 4, r"input_ids has shape \(1, 7\)"),
        (TOKENS.float(), BOUNDS, 4, "input_ids is torch.float32"),
        (TOKENS, BOUNDS.to("meta"), 4, "cu_seqlens is on meta, input_ids on cpu"),
        (TOKENS.to("meta"), BOUNDS, 4, "the tokens are on meta, the model on cpu"),
    ],
)
def test_malformed_packs_are_named(
    model: ESM2WithFlashAttention,
    input_ids: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        model.forward_packed(input_ids, cu_seqlens, max_seqlen, repr_layers=[6])


def test_other_bad_input_is_named(model: ESM2WithFlashAttention) -> None:
    with pytest.raises(ValueError, match="there is no layer 7: choose from 0 to 6"):
        model.forward_packed(TOKENS, BOUNDS, 4, repr_layers=[7])
    with pytest.raises(ValueError, match=r"tokens has shape \(7,\)"):
        model(TOKENS)
    double = ESM2WithFlashAttention(
        load_checkpoint(SMALL, resolve_weights(SMALL, "synthetic").path)[0], model.alphabet
    ).double()
    with pytest.raises(ValueError, match=r"the model is torch\.float64"):
        double(TOKENS[None])


def test_nothing_asked_for_gives_nothing(model: ESM2WithFlashAttention) -> None:
    assert model.forward_packed(TOKENS, BOUNDS, 4) == {"representations": {}}


def test_loading_is_refused_where_it_cannot_work() -> None:
    with pytest.raises(DeviceError, match="'gpu' is not a device"):
        load_esm2_model(SMALL, "gpu", weights="synthetic")
    with pytest.raises(DeviceError, match="not supported"):
        load_esm2_model(SMALL, "meta", weights="synthetic")
    with pytest.raises(DeviceError, match="There is no cuda:99"):
        load_esm2_model(SMALL, "cuda:99", weights="synthetic")
    with pytest.raises(ConfigurationError, match="unsupported dtype float64"):
        load_esm2_model(SMALL, "cpu", weights="synthetic", dtype="float64")
    with pytest.raises(ConfigurationError, match="Unknown attention backend 'magic'"):
        load_esm2_model(SMALL, "cpu", weights="synthetic", backend="magic")
    with pytest.raises(ConfigurationError, match="need a CUDA device"):
        load_esm2_model(SMALL, "cpu", weights="synthetic", backend="flash-attn")


def test_an_old_gpu_falls_back_to_sdpa_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from virnucpro_monitor.models.packed_attention import choose_backend

    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.warns(UserWarning, match="Tesla T4 is too old"):
        assert choose_backend("auto", device, torch.float16) == "sdpa"
    with pytest.raises(ConfigurationError, match="Tesla T4 is too old"):
        choose_backend("torch-varlen", device, torch.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        assert choose_backend("auto", device, torch.float32) == "sdpa"
        assert choose_backend("torch-varlen", device, torch.bfloat16) == "torch-varlen"


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({"triton", "flash_attn"}, "triton"),
        ({"triton"}, "triton"),
        ({"flash_attn"}, "flash-attn"),
        (set(), "torch-varlen"),
    ],
)
def test_the_fastest_backend_that_is_installed_is_taken(
    installed: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_monitor.models import packed_attention

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(packed_attention, "_has_module", lambda name: name in installed)
    device = torch.device("cuda", 0)
    assert packed_attention.choose_backend("auto", device, torch.float16) == expected
    if "flash_attn" not in installed:
        with pytest.raises(ConfigurationError, match="'flash-attn' is not installed"):
            packed_attention.choose_backend("flash-attn", device, torch.float16)
