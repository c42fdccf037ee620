"""Faults as people make them, in the sample target: what the verdict says of each.

Each stands for a kind: a length, a letter, a pack shape or a moment that no benchmark set has.
"""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from esm.data import Alphabet

from tests.validation.conftest import MODEL
from virnucpro_monitor.cli.sample.repository import build_repository
from virnucpro_monitor.models.weights import DEMO_MODEL, Weights
from virnucpro_monitor.records import BenchmarkSet, Culprit, GateResult, Outcome, Verdict
from virnucpro_monitor.runner.adapters import LoadRequest, SeedInterfaceAdapter
from virnucpro_monitor.runner.reuse import ReusingSubject
from virnucpro_monitor.runner.warm import install_tokenizer, make_torch_home
from virnucpro_monitor.validation.oracle import Oracle, prepare_oracle
from virnucpro_monitor.validation.protocol import load_protocol
from virnucpro_monitor.validation.subject import Subject
from virnucpro_monitor.validation.validate import validate_subject

ALWAYS_PACKED = "Compute rotary angles in double precision again"
PADDED_WHEN_SHORT = "Add the module that the last commit left out"
ATTENTION, MODELS = "tinypack/models/attention.py", "tinypack/models/esm2_flash.py"
COLLATOR, EMBEDDING = "tinypack/data/collators.py", "tinypack/models/embedding.py"
ROTARY = "tinypack/models/rotary.py"
SDPA = "mixed[rows] = scaled_dot_product_attention(q, k, v).transpose(0, 1)"
LAST_LAYER = "        # The last hidden state is the one after the final LayerNorm.\n"
TOKENS = "rows = [self.batch_converter([pair])[2][0] for pair in pairs]"
PLANNED = "        if len(self.buffer) >= self.buffer_size:\n            self._plan()\n"
TABLES = "        tables = make_tables(number_positions(cu_seqlens), width)\n"
STALE_TABLES = (
    "        kept = self.__dict__.setdefault('kept', int(max_seqlen))\n"
    "        positions = number_positions(cu_seqlens).clamp(max=kept - 1)\n"
    "        tables = make_tables(positions, width)\n"
)
IN_TURN = "    for rows in sequences:\n"
UNWRITTEN = f"{IN_TURN}        rows = slice(rows.start, min(rows.stop, rows.start + 512))\n"
ROTATED = "return x * cos + torch.cat((-second, first), dim=-1) * sin"
IN_HALF = (ROTARY, ROTATED, "return (x * cos + torch.cat((-second, first), -1) * sin).to(x.dtype)")

Edit = tuple[str, str, str]


def attention(change: str) -> Edit:
    return (ATTENTION, SDPA, f"{change}\n        {SDPA}")


def leak(share: float) -> Edit:
    return (
        MODELS,
        LAST_LAYER,
        "        for slot in range(len(sequences) - 1):\n"
        f"            x[sequences[slot]] += {share} * x[sequences[slot + 1].start]\n"
        f"{LAST_LAYER}",
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "repository"
    build_repository(folder)
    return folder


@pytest.fixture(scope="module")
def known() -> dict[str, dict]:
    """Unpacked rows by dtype: fair-esm's own forward, the same in every case."""
    return {}


@contextmanager
def imported(folder: Path) -> Iterator[None]:
    """Let a checkout's package be imported, and forget it afterwards."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before
        for name in [name for name in sys.modules if name.partition(".")[0] == "tinypack"]:
            del sys.modules[name]


def check_out(repository: Path, subject: str, folder: Path, edits: tuple[Edit, ...]) -> None:
    def git(*arguments: str) -> bytes:
        return subprocess.run(
            ["git", "-C", str(repository), *arguments], check=True, capture_output=True
        ).stdout

    found = git("log", "--format=%H", f"--grep={subject}", "--fixed-strings").decode().split()
    with tarfile.open(fileobj=io.BytesIO(git("archive", found[0]))) as archive:
        archive.extractall(folder, filter="data")
    for name, old, new in edits:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has changed: mend this case"
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")


class Judge:
    """Judges the sample target with edits, as a worker does."""

    def __init__(self, model, repository, weights, benchmark_set, oracle, known, folder) -> None:
        self.model: str = model
        self.repository: Path = repository
        self.weights: Weights = weights
        self.benchmark: BenchmarkSet = benchmark_set
        self.oracle: Oracle = oracle
        self.known: dict[str, dict] = known
        self.folder: Path = folder

    def __call__(
        self, base: str, *edits: Edit, dtype: torch.dtype = torch.float32, reuse: bool = True
    ) -> Verdict:
        check_out(self.repository, base, self.folder / "checkout", edits)
        home = make_torch_home(
            self.folder,
            self.model,
            self.weights.path,
            self.weights.regression_path,
            self.weights.digest,
        )
        with imported(self.folder), pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCH_HOME", str(home))
            patch.setattr(Alphabet, "tokenize", Alphabet.tokenize)  # put back afterwards
            install_tokenizer()
            subject: Subject = SeedInterfaceAdapter().load(
                LoadRequest(
                    checkout=self.folder / "checkout",
                    package=None,
                    model_name=self.model,
                    weights="synthetic",
                    checkpoint=self.weights.path,
                    regression=self.weights.regression_path,
                    torch_home=home,
                    device="cpu",
                    dtype=dtype,
                    backend="auto",
                    token_budget=4096,
                )
            )
            if reuse:
                rows = self.known.setdefault(str(dtype), {})
                subject = ReusingSubject(subject, rows, {})
            verdict = validate_subject(
                subject, self.benchmark, oracle=self.oracle, protocol=load_protocol()
            )
            if isinstance(subject, ReusingSubject):
                rows |= subject.computed
        return verdict


@pytest.fixture
def judge(repository, demo_weights, benchmark_set, oracle_cache, known, tmp_path) -> Judge:
    """With the demo's model, whose verdicts take a fifth of the time."""
    oracle = prepare_oracle(DEMO_MODEL, demo_weights, benchmark_set, cache_folder=oracle_cache)
    return Judge(DEMO_MODEL, repository, demo_weights, benchmark_set, oracle, known, tmp_path)


@pytest.fixture
def judge_8m(repository, weights, benchmark_set, oracle, tmp_path) -> Judge:
    """With the smallest official size, which has limits of its own."""
    return Judge(MODEL, repository, weights, benchmark_set, oracle, {}, tmp_path)


def failing(verdict: Verdict) -> dict[str, GateResult]:
    return {gate.name: gate for gate in verdict.gates if gate.passed is False}


@pytest.mark.parametrize("base", [ALWAYS_PACKED, PADDED_WHEN_SHORT])
def test_the_healthy_target_passes(judge_8m: Judge, base: str) -> None:
    verdict = judge_8m(base)
    assert failing(verdict) == {}
    assert verdict.packed_outcome is verdict.unpacked_outcome is Outcome.PASSED
    told = {gate.name: gate.detail for gate in verdict.gates}
    assert "16 lengths from 1 to 1,022, 25 letters, 8 pack shapes" in told["probes"]
    assert "2,297 sequences" in told["collator"]
    assert "up to 256 tokens long, in packs with up to 513" in told["mask"]


def test_a_batch_padded_at_the_left_passes(judge: Judge) -> None:
    """Where its hidden rows lie is told by the tokens that it embedded."""
    padded = "padding_value=self.alphabet.padding_idx"
    verdict = judge(
        PADDED_WHEN_SHORT,
        (MODELS, padded, f"{padded}, padding_side='left'"),
        (MODELS, "torch.cat([row[: len(ids)] for", "torch.cat([row[-len(ids) :] for"),
    )
    assert failing(verdict) == {}, verdict.reason


# Of these the cause is named too; of the others the gate's sentence says all, or it is arithmetic
# that no name is known of.
CAUSES = {
    "a leak of 1e-7 in long packs": "leak",
    "the pack's mask share in long packs": "mask rescale of the pack",
    "a window of 512": "window",
    "one length loses a key": "last key dropped",
    "hundreds in a pack": "scale off",
    "a pack of one is causal": "causal",
    "rare letters read as X": "letters",
    "no EOS": "eos missing",
    "a table kept from the first pack": "rotary table short",
    "rows that nobody writes": "unwritten",
    "exactly 256 tokens lose a key": "last key dropped",
    "sequences of one length handed back in another order": "rows of others",
}

# And of these whom it strikes.
GROUPS = {
    "a window of 512": "long sequences",
    "one length loses a key": "one length",
    "exactly 256 tokens lose a key": "one length",
    "hundreds in a pack": "many in a pack",
    "a pack of one is causal": "alone",
}

PACKED_FAULTS = {
    "a leak of 1e-7 in long packs": (PADDED_WHEN_SHORT, [leak(1e-7)], {"leak"}),
    "the pack's mask share in long packs": (
        PADDED_WHEN_SHORT,
        [(EMBEDDING, "masked[rows].float().mean()", "masked.float().mean()")],
        {"embedding", "mask"},
    ),
    "a window of 512": (
        ALWAYS_PACKED,
        [
            (
                ATTENTION,
                "scaled_dot_product_attention(q, k, v)",
                "scaled_dot_product_attention(q, k, v, attn_mask="
                "torch.ones(2 * q.shape[1:2]).bool().tril(512).triu(-512))",
            )
        ],
        {"probes"},
    ),
    "one length loses a key": (
        ALWAYS_PACKED,
        [attention("k, v = (k[:, :-1], v[:, :-1]) if len(k[0]) == 65 else (k, v)")],
        {"probes"},
    ),
    "a pack of one is causal": (
        ALWAYS_PACKED,
        [
            (
                ATTENTION,
                "scaled_dot_product_attention(q, k, v)",
                "scaled_dot_product_attention(q, k, v, is_causal=len(sequences) == 1)",
            )
        ],
        {"probes"},
    ),
    "hundreds in a pack": (
        ALWAYS_PACKED,
        [attention("q = q * (1 + (len(sequences) > 150))")],
        {"probes"},
    ),
    "rare letters read as X": (
        ALWAYS_PACKED,
        [
            (
                COLLATOR,
                TOKENS,
                f"pairs = [(n, s.replace('O', 'X')) for n, s in pairs]\n        {TOKENS}",
            )
        ],
        {"collator"},
    ),
    "the buffer's rest is lost": (
        ALWAYS_PACKED,
        [(COLLATOR, PLANNED, f"{PLANNED}            del self.ready[1:]\n")],
        {"collator"},
    ),
    "no EOS": (
        ALWAYS_PACKED,
        [(COLLATOR, "[2][0] for", "[2][0][:-1] for")],
        {"tokens", "collator"},
    ),
    "a table kept from the first pack": (
        ALWAYS_PACKED,
        [(MODELS, TABLES, STALE_TABLES)],
        {"probes"},
    ),
    "sequences of one length handed back in another order": (
        ALWAYS_PACKED,
        [
            (
                MODELS,
                "self.model.emb_layer_norm_after(x)\n",
                "self.model.emb_layer_norm_after(x)\n"
                "        lengths = [rows.stop - rows.start for rows in sequences]\n"
                "        places = sorted(range(len(lengths)), key=lambda n: (-lengths[n], -n))\n"
                "        parts = hidden[number].split(lengths)\n"
                "        hidden[number] = torch.cat([parts[n] for n in places])\n",
            )
        ],
        {"probes"},
    ),
    "exactly 256 tokens lose a key": (
        ALWAYS_PACKED,
        [attention("k, v = (k[:, :-1], v[:, :-1]) if len(k[0]) == 256 else (k, v)")],
        {"probes"},
    ),
    "rows that nobody writes": (
        ALWAYS_PACKED,
        [(ATTENTION, IN_TURN, UNWRITTEN)],
        {"unwritten"},
    ),
}


@pytest.mark.parametrize("name", PACKED_FAULTS)
def test_the_packed_side_is_named(judge: Judge, name: str) -> None:
    base, edits, gates = PACKED_FAULTS[name]
    verdict = judge(base, *edits)
    assert verdict.outcome is Outcome.FAILED
    assert gates <= set(failing(verdict)), verdict.reason
    assert verdict.culprit is Culprit.PACKED, verdict.reason
    assert verdict.packed_outcome is Outcome.FAILED
    assert verdict.unpacked_outcome is Outcome.PASSED
    traced = verdict.documents["trace"]
    assert traced.get("signature") == CAUSES.get(name), verdict.reason
    if name in GROUPS:
        assert traced["group"]["name"] == GROUPS[name], verdict.reason


def test_an_unpacked_side_that_is_off_at_one_length_is_named(judge: Judge) -> None:
    """No sequence of the set has that length: only a probe shows it."""
    whole = '{"representations": self.model(tokens, repr_layers=repr_layers)["representations"]}'
    off = "{n: rows * (1 + 0.01 * (rows.shape[1] == 130)) for n, rows in "
    off += 'self.model(tokens, repr_layers=repr_layers)["representations"].items()}'
    verdict = judge(ALWAYS_PACKED, (MODELS, whole, f'{{"representations": {off}}}'), reuse=False)
    assert failing(verdict)["probes"].culprit is Culprit.UNPACKED
    assert verdict.culprit is Culprit.UNPACKED
    assert verdict.packed_outcome is Outcome.PASSED
    (traced,) = verdict.documents["trace"]["sequences"]
    assert traced["side"] == "unpacked"


def test_a_packed_call_that_rounds_the_weights_is_the_packed_sides_doing(judge: Judge) -> None:
    rounding = (
        MODELS,
        "        sequences = find_sequences(cu_seqlens)\n",
        "        sequences = find_sequences(cu_seqlens)\n"
        "        for weight in self.model.parameters():\n"
        "            weight.data = weight.data.to(torch.bfloat16).to(torch.float32)\n",
    )
    verdict = judge(ALWAYS_PACKED, rounding, reuse=False)
    weights = failing(verdict)["weights"]
    assert weights.culprit is Culprit.PACKED
    assert "A packed pass changed" in weights.detail
    assert "rounded to bfloat16" in weights.detail
    assert verdict.culprit is Culprit.PACKED
    assert verdict.unpacked_outcome is Outcome.PASSED
    assert verdict.documents["trace"]["signature"] == "weights bfloat16"
    since = "; since a pass of packed changed the weights that both use, both sides depart"
    assert since in verdict.reason


def test_weights_that_were_rounded_on_loading_are_named(judge: Judge) -> None:
    halved = (
        MODELS,
        "self.model: Any = model.to(device)",
        "self.model: Any = model.half().float()",
    )
    verdict = judge(ALWAYS_PACKED, halved, reuse=False)
    weights = failing(verdict)["weights"]
    assert weights.culprit is Culprit.BOTH
    assert "are not the checkpoint's" in weights.detail
    assert "rounded to float16" in weights.detail
    assert verdict.documents["trace"]["signature"] == "weights float16"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_healthy_target_in_half_precision_passes(judge: Judge, dtype: torch.dtype) -> None:
    """The monitor's own cast must not be held against it."""
    verdict = judge(PADDED_WHEN_SHORT, IN_HALF, dtype=dtype)
    assert failing(verdict) == {}, verdict.reason


@pytest.mark.parametrize("share", [2e-2, 5e-3, 1e-3])
def test_a_leak_in_bfloat16_is_not_blamed_on_the_baseline(judge: Judge, share: float) -> None:
    verdict = judge(PADDED_WHEN_SHORT, IN_HALF, leak(share), dtype=torch.bfloat16)
    assert failing(verdict)["leak"].culprit is Culprit.PACKED
    assert verdict.documents["trace"]["signature"] == "leak"
    assert verdict.culprit is Culprit.PACKED, verdict.reason
    assert verdict.unpacked_outcome is Outcome.PASSED


def test_a_baseline_that_is_off_does_not_hide_a_leak(judge: Judge) -> None:
    whole = '{"representations": self.model(tokens, repr_layers=repr_layers)["representations"]}'
    off = "{layer: 1.5 * rows for layer, rows in self.model(tokens, repr_layers=repr_layers)"
    off = '{"representations": ' + off + '["representations"].items()}}'
    verdict = judge(ALWAYS_PACKED, leak(1e-3), (MODELS, whole, off), reuse=False)
    assert verdict.packed_outcome is Outcome.FAILED
    assert verdict.unpacked_outcome is Outcome.FAILED
    assert failing(verdict)["leak"].culprit is Culprit.PACKED
    assert "an output scaled by 1.5; a neighbour's residues reach a sequence" in verdict.reason
