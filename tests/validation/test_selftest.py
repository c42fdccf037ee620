"""The kill matrix: every injected fault is killed, with the right side and signature."""

import pytest
import torch
from esm.model.esm2 import ESM2
from torch.nn import functional

from tests.validation.conftest import MODEL
from virnucpro_monitor.errors import DeviceError, FaultNotInPlaceError, ProtocolError
from virnucpro_monitor.models import esm2_flash, kernels
from virnucpro_monitor.models.esm2_flash import ESM2WithFlashAttention
from virnucpro_monitor.models.rotary import rotate
from virnucpro_monitor.models.weights import DEMO_MODEL
from virnucpro_monitor.records import Culprit, Outcome
from virnucpro_monitor.validation import measure, selftest
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.faults import FAULTS
from virnucpro_monitor.validation.faulty_subject import Fault, FaultySubject, fault_installed
from virnucpro_monitor.validation.harmless import CONTROLS
from virnucpro_monitor.validation.kill_matrix import FaultResult
from virnucpro_monitor.validation.oracle import prepare_oracle
from virnucpro_monitor.validation.planting import Patch, Witness, idle_parts, planted
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.selftest import (
    healthy_variants,
    judge_fault,
    run_selftest,
    summarise,
)
from virnucpro_monitor.validation.selftest_material import (
    SELFTEST_TOKEN_BUDGET,
    SMALL_TOKEN_BUDGET,
    USUAL_LENGTHS,
    WHOLE_LENGTHS,
    Material,
    selftest_benchmark,
)
from virnucpro_monitor.validation.subject import embed_packed
from virnucpro_monitor.validation.validate import validate_subject

# Gates that must be among those that kill it: the ones made for that kind of fault.
KILLED_BY = {
    "cu_seqlens one late": {"leak"},
    "cu_seqlens one early": {"leak"},
    "two sequences merged": {"leak", "position"},
    "boundaries of two swapped": {"leak"},
    "one token of the neighbour attended to": {"leak"},
    "positions reset one token late": {"position"},
    "ids in the wrong order": {"tokens"},
    "0.88 missing": {"embedding"},
    "0.88 applied twice": {"embedding"},
    "observed-mask rescale missing": {"mask", "embedding"},
    "<mask> not zeroed": {"mask", "embedding"},
    "NaN in one residue": {"finite", "seed"},
    "one residue replaced after the last layer": {"residue"},
    "last pack's output returned": {"repeat"},
    "one sequence lost": {"coverage"},
    "one sequence doubled": {"coverage"},
    "tanh GELU": {"ceiling"},
    "a packed pass changes a matrix": {"weights"},
    "a leak of 1e-6 in long packs alone": {"leak"},
    "<mask> rescale by the pack's share in long packs alone": {"mask", "embedding"},
    "queries doubled among many sequences": {"probes"},
    "rows that nobody writes": {"unwritten"},
    "what a full buffer cannot hold is lost": {"collator"},
}


# The demo's model has four, and these name the sixth.
NEEDS_MORE_HEADS = {"three heads left out"}


@pytest.fixture(scope="module")
def material(weights, oracle_cache) -> Material:
    benchmark = selftest_benchmark()
    return Material(benchmark, prepare_oracle(MODEL, weights, benchmark, cache_folder=oracle_cache))


@pytest.fixture(scope="module")
def narrow() -> BuiltinSubject:
    """A model with the layers and heads of the others, a quarter as wide."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fair = ESM2(num_layers=6, embed_dim=80, attention_heads=20).eval()
    model = ESM2WithFlashAttention(fair, fair.alphabet)
    return BuiltinSubject(
        model, fair.alphabet.get_batch_converter(), model_name="narrow", token_budget=120
    )


@pytest.fixture(scope="module")
def demo_material(demo_weights, oracle_cache) -> Material:
    benchmark = selftest_benchmark()
    oracle = prepare_oracle(DEMO_MODEL, demo_weights, benchmark, cache_folder=oracle_cache)
    return Material(benchmark, oracle)


def judge(fault: Fault, subject, benchmark_set, oracle, protocol):
    with fault_installed(fault):
        return validate_subject(
            FaultySubject(subject, fault), benchmark_set, oracle=oracle, protocol=protocol
        )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_killed_and_named(fault: Fault, request: pytest.FixtureRequest) -> None:
    """With the demo's model, a fifth as wide as 8M and held to limits that are wider still."""
    size = "" if fault.name in NEEDS_MORE_HEADS else "demo_"
    subject = request.getfixturevalue(f"{size}subject")
    material = request.getfixturevalue(f"{size}material")
    before = {name: tensor.clone() for name, tensor in subject.tensors().items()}
    verdict, witness = judge_fault(fault, subject, material, load_protocol())
    result = summarise(fault, verdict, "float32", witness)
    # A weight that the fault changed is mended.
    assert all(torch.equal(tensor, before[name]) for name, tensor in subject.tensors().items())
    if fault.kind == "range":
        # Synthetic weights do not reach this far; those with outliers do.
        assert result.idle
        return
    assert result.idle == ()
    assert result.killed_by, fault.name
    assert KILLED_BY.get(fault.name, set()) <= set(result.killed_by)
    assert result.culprit is Culprit.PACKED
    # None where the coverage gate names it, or where no name is known.
    assert result.signature == fault.signature, result.reason
    assert result.group == fault.group or fault.group is None, result.reason
    assert result.reason.startswith("Packed is the wrong side")


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_no_harmless_change_fires(control: Fault, subject, benchmark_set, oracle, protocol) -> None:
    verdict = judge(control, subject, benchmark_set, oracle, protocol)
    assert verdict.outcome is Outcome.PASSED, verdict.reason


@pytest.mark.parametrize("variant", list(healthy_variants(5)), ids=lambda variant: variant.name)
def test_no_gate_fires_on_the_healthy_model(
    variant: Fault, subject, benchmark_set, oracle, protocol
) -> None:
    verdict = judge(variant, subject, benchmark_set, oracle, protocol)
    assert verdict.outcome is Outcome.PASSED, verdict.reason


def test_a_fault_is_taken_out_again(subject, benchmark_set, oracle, protocol) -> None:
    for fault in FAULTS[:14]:
        packs = list(FaultySubject(subject, fault).pack([("a", "MKTAYIAK"), ("b", "DERKH")]))
        embed_packed(FaultySubject(subject, fault), packs[0])
    plain = Fault(name="healthy", kind="healthy")
    assert judge(plain, subject, benchmark_set, oracle, protocol).outcome is Outcome.PASSED


def test_the_lists_are_long_enough() -> None:
    assert len([fault for fault in FAULTS if fault.spoils is not None]) == 1
    assert len(FAULTS) >= 70
    assert len(CONTROLS) >= 12
    assert len({fault.name for fault in (*FAULTS, *CONTROLS)}) == len(FAULTS) + len(CONTROLS)


def test_the_report_counts_and_passes(subject, benchmark_set, oracle, protocol) -> None:
    chosen = [f for f in FAULTS if f.name in ("0.88 missing", "<mask> not zeroed")]
    seen: list[str] = []
    report = run_selftest(
        subject,
        benchmark_set,
        oracle,
        protocol,
        num_healthy_runs=2,
        faults=chosen,
        controls=CONTROLS[3:4],
        on_row=lambda done, total, row: seen.append(row.name),
    )
    assert report.passed
    assert (report.num_killed, report.num_killed_by_seed) == (2, 1)
    assert [c.killed_by for c in report.controls] == [()]
    assert report.healthy["ceiling"] > 1
    missing = report.faults[0]
    assert missing.effect == missing.margin > 1e3
    # The limit is 3 x the worst value of the evidence, rounded up.
    assert missing.effect_gate not in (None, "seed")
    assert 0.25 < missing.floor <= 1 / 3
    assert seen == ["healthy", "healthy 1", "0.88 missing", "<mask> not zeroed", "packs shuffled"]


def test_a_survivor_and_a_firing_control_fail_the_report(
    subject, benchmark_set, oracle, protocol
) -> None:
    harmless = Fault(name="no fault at all")
    harmful = Fault(name="not harmless", kind="control", patches=FAULTS[8].patches)
    report = run_selftest(
        subject,
        benchmark_set,
        oracle,
        protocol,
        num_healthy_runs=1,
        faults=[harmless],
        controls=[harmful],
    )
    assert not report.passed
    assert not report.faults[0].as_expected
    assert not report.controls[0].as_expected


def test_a_disarmed_fault_fails_the_report(subject, benchmark_set, oracle, protocol) -> None:
    """It would be killed by another part of it, and still proves nothing of this one."""
    never = Patch(esm2_flash, "packed_attention", lambda original, *given: None)
    missing = FAULTS[8].patches
    disarmed = Fault(name="half disarmed", patches=lambda model: [*missing(model), never])
    report = run_selftest(
        subject,
        benchmark_set,
        oracle,
        protocol,
        num_healthy_runs=1,
        faults=[disarmed],
        controls=[Fault(name="idle", kind="control", on_batch=lambda batch: batch)],
    )
    assert report.faults[0].killed_by
    assert report.faults[0].idle == ("esm2_flash.packed_attention",)
    assert report.controls[0].idle == ("on_batch",)
    assert not report.passed
    assert not report.faults[0].as_expected
    assert not report.controls[0].as_expected


@pytest.mark.parametrize(
    "fault",
    [fault for fault in (*FAULTS, *CONTROLS) if fault.kind != "range"],
    ids=lambda fault: fault.name,
)
def test_every_fault_is_in_place_beside_the_kernels_too(
    fault: Fault, narrow, material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of half precision on a GPU, with plain arithmetic in place of the kernels.

    Whether a part is reached does not depend on how wide the model is.
    """
    monkeypatch.setattr(esm2_flash, "can_fuse", lambda device, dtype: True)
    monkeypatch.setattr(esm2_flash, "run_layers", run_layers_plainly)
    monkeypatch.setattr(kernels, "embed", embed_plainly)
    witness = Witness()
    benchmark, _ = material.part(fault.lengths or USUAL_LENGTHS)
    pairs = [(s.id, s.residues) for s in benchmark.sequences]
    many = [(f"tiny_{number}", "M<mask>" if number % 2 else "M") for number in range(50)]
    with fault_installed(fault, witness):
        faulty = FaultySubject(narrow, fault, witness)
        for asked in ([("one", "M")], [*pairs, ("masked", "MKTAYIA<mask>KQR")], many):
            for pack in faulty.pack(asked):
                for _ in range(2):
                    found = faulty.embed_packed_layers(pack, [narrow.num_layers])
                    rows = found[narrow.num_layers]
                    measure.cut_residues(rows, 0, int(pack.cu_seqlens[1]))
        faulty.mend()
    assert idle_parts(witness) == ()


def embed_plainly(tokens, table, masked, num_masked, length, *, scale):
    """`kernels.embed` without the kernel."""
    rows = table[tokens].masked_fill(masked[:, None], 0.0)
    return rows * scale / (1 - num_masked.float() / length)[:, None]


def run_layers_plainly(layers, final_norm, hidden, attend, wanted):
    """`fused.run_layers` without its kernels; reads of each norm what they read."""

    def normed(norm, x):
        return functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)

    cos, sin, positions, heads = attend.rotation
    cos, sin = cos[positions, None], sin[positions, None]
    found = {0: hidden}
    for number, layer in enumerate(layers, start=1):
        qkv = layer.qkv(normed(layer.attention_norm, hidden))
        q, k, v = qkv.view(len(hidden), 3, heads, -1).unbind(1)
        q, k = rotate(q * q.shape[-1] ** -0.5, cos, sin), rotate(k, cos, sin)
        hidden = hidden + layer.out(attend.attention(q, k, v).flatten(1))
        hidden = hidden + layer.fc2(functional.gelu(layer.fc1(normed(layer.mlp_norm, hidden))))
        found[number] = hidden
    found[len(layers)] = normed(final_norm, hidden)
    return {layer: found[layer] for layer in wanted}


def test_the_stand_in_for_the_kernels_is_right(subject, monkeypatch: pytest.MonkeyPatch) -> None:
    (pack,) = subject.pack([("a", "MKTAYIAKQRQ"), ("b", "DERKHGG")])
    layers = list(range(subject.num_layers + 1))
    plain = subject.embed_packed_layers(pack, layers)
    monkeypatch.setattr(esm2_flash, "can_fuse", lambda device, dtype: True)
    monkeypatch.setattr(esm2_flash, "run_layers", run_layers_plainly)
    monkeypatch.setattr(kernels, "embed", embed_plainly)
    beside = subject.embed_packed_layers(pack, layers)
    assert all(float((plain[n] - beside[n]).abs().max()) < 1e-5 for n in layers)


def test_a_renamed_function_is_told() -> None:
    patch = Patch(esm2_flash, "attention_of_packs", lambda original: None)
    with (
        pytest.raises(FaultNotInPlaceError, match=r"esm2_flash\.attention_of_packs is not a func"),
        planted([patch], Witness()),
    ):
        pass


def test_a_protocol_tighter_than_the_noise_is_refused(
    subject, benchmark_set, oracle, protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    from virnucpro_monitor.validation import validate

    monkeypatch.setattr(
        validate,
        "noise_of",
        lambda probes: {"packed_repeat": 0.0, "unpacked_repeat": 0.0, "reordered": 0.1},
    )
    with pytest.raises(ProtocolError, match=r"healthy model moves by 1\.0e-01"):
        run_selftest(subject, benchmark_set, oracle, protocol, faults=[], controls=[])


def test_a_change_that_brings_the_device_down_is_named(
    subject, benchmark_set, oracle, protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fault: Fault, *_: object) -> None:
        raise torch.AcceleratorError(f"CUDA error: of {fault.kind}\nSearch for it")

    monkeypatch.setattr(selftest, "judge_fault", fail)
    with pytest.raises(DeviceError, match=r"failed at 'healthy': CUDA error: of healthy\. It"):
        run_selftest(subject, benchmark_set, oracle, protocol, num_healthy_runs=1)


def result(**changes: object) -> FaultResult:
    values = {
        "name": "x",
        "kind": "arithmetic",
        "killed_by": (),
        "margin": None,
        "culprit": Culprit.NONE,
        "seed_killed": False,
        "below_noise": False,
        "effect": 0.4,
        "reason": "",
        **changes,
    }
    return FaultResult(**values)  # type: ignore[arg-type]


def test_only_arithmetic_below_the_noise_may_survive() -> None:
    assert result(below_noise=True).as_expected
    assert not result().as_expected
    assert not result(kind="fault").as_expected
    assert result(kind="control").as_expected
    assert not result(kind="control", killed_by=("seed",)).as_expected


def test_the_selftest_set_crosses_tile_edges_and_needs_two_packs(material) -> None:
    lengths = [len(s.residues) for s in selftest_benchmark().sequences]
    assert {*USUAL_LENGTHS, *WHOLE_LENGTHS, 62, 600} <= set(lengths)
    assert sum(length + 2 for length in USUAL_LENGTHS) > SMALL_TOKEN_BUDGET
    assert sum(length + 2 for length in WHOLE_LENGTHS) > SELFTEST_TOKEN_BUDGET
    letters = next(s.residues for s in selftest_benchmark().sequences if s.id == "letters")
    assert set("UZOBX") <= set(letters)


def test_a_part_is_the_oracle_of_its_own_sequences(material) -> None:
    part, oracle = material.part((63, 22))
    assert [len(s.residues) for s in part.sequences] == [63, 22]
    assert oracle.benchmark_digest == part.digest != material.benchmark.digest
    whole = {s.id: n for n, s in enumerate(material.benchmark.sequences)}
    for index, sequence in enumerate(part.sequences):
        rows = material.oracle.residues_of(whole[sequence.id])
        assert torch.equal(oracle.residues_of(index), rows)
        assert torch.allclose(oracle.pooled_of(index), rows.double().mean(0), atol=1e-6)
    assert material.part((63, 11)) == (material.benchmark, material.oracle)
