"""Released protocols are frozen; none loosens the seed."""

import copy
import json
import os
from pathlib import Path

import pytest

from virnucpro_monitor.data.limits import RESIDUE_LETTERS
from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.records import GATES, Thresholds, informing_gates
from virnucpro_monitor.validation import protocol as protocols
from virnucpro_monitor.validation.evidence import MIN_RUNS, freeze_limits, round_up
from virnucpro_monitor.validation.probe_texts import probe_benchmark
from virnucpro_monitor.validation.protocol import (
    limit_names,
    limits_for,
    limits_key,
    load_protocol,
    parse_protocol,
    seed_rule,
)

DIGESTS = {
    "1": "9316aacbf2dabf538f88916c9774e17fadd4d0cb044e7b099e7b0fb1b8b87383",
    "2": "9742f8f43261b5672cc7e8637e123708f9045cc91ba269d1c06ffccca5fa039d",
}


def test_the_digest_of_each_released_protocol() -> None:
    assert protocols.RELEASED_DIGESTS == DIGESTS
    for version, digest in DIGESTS.items():
        assert load_protocol(version).digest == digest


def test_the_thresholds_are_the_seeds() -> None:
    assert seed_rule(load_protocol()) == Thresholds(0.999, 0.995, 0.01)


@pytest.mark.parametrize("version", DIGESTS)
def test_every_limit_follows_from_the_evidence_in_the_file(version: str) -> None:
    content = load_protocol(version).content
    evidence = content["evidence"]
    frozen = content["limits"].keys() - set(evidence["provisional"])
    if version == "1":
        assert {"float32", "float16", "bfloat16"} <= frozen
    records = [r for r in evidence["runs"] if limits_key(r["dtype"], r["device"]) in frozen]
    limits = freeze_limits(records)
    # The first protocol has limits by dtype alone.
    told = {name: limits[name] for name in limits if version != "1" or name in frozen}
    assert frozen <= told.keys()
    assert told == {name: content["limits"][name] for name in told}


def test_a_limit_needs_200_healthy_runs() -> None:
    worst = dict.fromkeys(limit_names("1"), 1e-3)
    record = {"dtype": "float16", "device": "cuda", "model": "esm2_t6_8M_UR50D", "worst": worst}
    record["num_runs"] = MIN_RUNS - 1
    with pytest.raises(ValueError, match="199 healthy runs"):
        freeze_limits([record])
    assert freeze_limits([{**record, "num_runs": MIN_RUNS}])["float16"]["gain"] == 3e-3


@pytest.mark.parametrize(
    ("value", "rounded"), [(1.21e-5, 1.3e-5), (3e-3, 3e-3), (9.99, 10.0), (0.0, 0.0)]
)
def test_limits_are_rounded_up(value: float, rounded: float) -> None:
    assert round_up(value) == pytest.approx(rounded, rel=1e-12)


def test_the_allowance_is_the_floor() -> None:
    rule = Thresholds(0.999, 0.995, 0.01)
    assert [rule.allowance(n) for n in (3, 99, 100, 200, 2900)] == [0, 0, 1, 2, 29]


def test_an_altered_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(protocols.RELEASED_DIGESTS, "1", "0" * 64)
    with pytest.raises(ProtocolError, match="altered"):
        load_protocol("1")


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(ProtocolError, match="no protocol '7'"):
        load_protocol("7")


def test_a_users_own_protocol_from_a_file(tmp_path: Path) -> None:
    content = copy.deepcopy(dict(load_protocol().content))
    content["version"] = "mine"
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    found = load_protocol(str(path))
    assert found.version == "mine"
    assert found.digest != load_protocol().digest


def test_an_edited_protocol_does_not_go_by_a_released_name(tmp_path: Path) -> None:
    content = copy.deepcopy(dict(load_protocol().content))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content))
    assert load_protocol(str(path)).digest == load_protocol().digest
    content["policy"] = {"leak": {"who": "Ada", "why": "our kernel"}}
    path.write_text(json.dumps(content))
    assert informing_gates(load_protocol(str(path)).content) == {
        "leak": "policy of Ada: our kernel"
    }
    content["limits"]["float32"]["gain"] = 1.0
    path.write_text(json.dumps(content))
    with pytest.raises(ProtocolError, match="calls itself protocol 2, but differs"):
        load_protocol(str(path))


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ProtocolError, match="no plain file"):
        load_protocol(str(tmp_path / "pipe.json"))


@pytest.mark.parametrize(
    ("name", "value"), [("strict", 0.99), ("lenient", 0.99), ("lenient_fraction", 0.05)]
)
def test_a_loosened_threshold_is_refused(name: str, value: float) -> None:
    content = copy.deepcopy(dict(load_protocol().content))
    content["thresholds"][name] = value
    with pytest.raises(ProtocolError, match="loosens the seed"):
        parse_protocol(json.dumps(content), "mine.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "1"}', "nul"])
def test_what_is_no_protocol_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="not a protocol file"):
        parse_protocol(text, "x.json")


def test_a_missing_limit_is_named() -> None:
    content = copy.deepcopy(dict(load_protocol().content))
    del content["limits"]["float16"]["gain"]
    with pytest.raises(ProtocolError, match="float16 lack gain"):
        parse_protocol(json.dumps(content), "x.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="cannot be read"):
        load_protocol(str(tmp_path / "none.json"))


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_dtype_has_every_limit(dtype: str, device: str) -> None:
    for version in DIGESTS:
        limits = limits_for(load_protocol(version), limits_key(dtype, device))
        assert limits.keys() == set(limit_names(version))
    assert set(limit_names("2")) - set(limit_names("1")) == {"probes"}


def test_an_old_protocol_still_judges_by_its_own_probes() -> None:
    """Its runs are judged again under it, and new runs may still be."""
    assert "longest" not in load_protocol("1").content["probes"]
    definition = load_protocol("2").content["probes"]
    packs = [definition[key] for key in ("sequences", "long", "longest")]
    packs += [shape["sequences"] for shape in definition["shapes"]]
    longest = {max(map(len, texts)) for texts in packs}
    # In tokens: 64, one more than a tile of 64, 128 and 512, two more than 128, and the limit.
    assert {62, 63, 127, 511, 128, 1022} <= longest


def test_the_probes_hold_every_length_and_letter_they_promise() -> None:
    sequences = probe_benchmark(load_protocol()).sequences
    lengths = {len(one.residues) for one in sequences}
    assert {1, 2, 14, 30, 61, 62, 63, 126, 127, 128, 254, 256, 511, 1022} <= lengths
    (tiny,) = [s for s in load_protocol().content["probes"]["shapes"] if s.get("times")]
    assert len({text for text in tiny["sequences"] if len(text) == 1}) >= 3  # of one length
    long = [one.residues for one in sequences if len(one.residues) >= 30]
    assert all(set(text) == set(RESIDUE_LETTERS) for text in long)
    assert len(RESIDUE_LETTERS) == 25


def test_half_precision_on_the_cpu_has_limits_of_its_own() -> None:
    assert limits_key("bfloat16", "cpu") == "bfloat16 on cpu"
    assert limits_key("bfloat16", "cuda:1") == "bfloat16"
    assert limits_key("float32", "cpu") == limits_key("float32", "cuda") == "float32"


EVIDENCE = {"dtype": "float32", "device": "cpu", "model": "m", "worst": {}}
NO_NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "null", '"0.999"', "[]", "{}", "true", "-1"]


def with_value(place: str, value: str) -> str:
    """The latest protocol as JSON text, with one value replaced by `value` as it is."""
    content = copy.deepcopy(dict(load_protocol().content))
    *parents, last = place.split(".")
    holder = content
    for part in parents:
        holder = holder[part]
    holder[last] = "@value@"
    return json.dumps(content).replace('"@value@"', value)


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(
    "place",
    [
        "thresholds.strict",
        "thresholds.lenient",
        "thresholds.lenient_fraction",
        "oracle_factor",
        "limits.float32.gain",
        "limits.bfloat16 on cpu.ceiling",
        "exact.leak",
    ],
)
def test_a_number_that_is_none_is_refused(place: str, value: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_protocol(with_value(place, value), "mine.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("thresholds.strict", "5"),
        ("thresholds.lenient", "1.5"),
        ("exact.repeat", "0.1"),
        ("limits", "[]"),
        ("limits.float32", "null"),
        ("probes", "null"),
        ("probes.sequences", "[]"),
        ("probes.sequences", "[1]"),
        ("probes.sequences", '["acgt"]'),
        ("probes.sequences", '["JJ"]'),
        ("probes.longest", json.dumps(["M" * 1023])),
        ("probes.longest", "null"),
        ("probes.long", '"MKV"'),
        ("probes.smallest", "5"),
        ("probes.witness", '""'),
        ("probes.shapes", '["MK"]'),
        ("probes.shapes", '[{"name": "two"}]'),
        ("probes.shapes", '[{"name": "two", "sequences": ["M"], "times": 0}]'),
        ("probes.collator", "[]"),
        ("probes.collator.per_call", "0"),
        ("probes.collator.sequences", "1000000000000"),
        ("probes.collator.lengths", "[]"),
        ("own_noise", "[]"),
        ("own_noise.least", '"x"'),
        ("own_noise.factors", "{}"),
        ("own_noise.factors.half.gain", "-1"),
        ("own_noise.factors.float32", '{"gain": 1}'),
        ("limits", "{}"),
        ("limits", '{"float32": {}, "float32": {}}'),
        ("calibrated", "[]"),
        ("probes.mask_fractions", "[1.0]"),
        ("probes.mask_fractions", "[NaN]"),
        ("evidence", "7"),
        ("evidence.runs", "[null]"),
        ("evidence.runs", '[{"dtype": "float32", "device": "cpu", "model": "m", "worst": {}}]'),
        ("evidence.runs", json.dumps([EVIDENCE | {"num_runs": "many"}])),
        ("version", "1"),
        ("version", '""'),
        ("version", '" "'),
        ("version", '"a\\u0000b"'),
        ("version", '"\\ud800"'),
        ("metrics", "[" * 100 + "]" * 100),
        ("metrics", "[" * 100_000 + "]" * 100_000),
        ("metrics", '{"a":' * 30 + "1" + "}" * 30),
        ("metrics", "9" * 5000),
    ],
)
def test_what_a_protocol_cannot_hold_is_one_sentence(place: str, value: str) -> None:
    with pytest.raises(ProtocolError, match="is not a protocol file") as caught:
        parse_protocol(with_value(place, value), "mine.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_released_protocols_pass_their_own_check() -> None:
    for version in protocols.RELEASED_DIGESTS:
        assert load_protocol(version).version == version


def test_the_readme_lists_every_gate_as_it_is_declared() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.split("| gate | asks |\n|---|---|\n")[1].split("\n\n")[0]
    assert [f"| {gate.name} | {gate.asks} |" for gate in GATES] == table.splitlines()
