"""`selftest`: the matrix as a table and as JSON, and its exit code."""

import json

import pytest

from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor import validating
from virnucpro_monitor.records import Culprit
from virnucpro_monitor.settings import Settings
from virnucpro_monitor.validation.faults import FAULTS
from virnucpro_monitor.validation.harmless import CONTROLS
from virnucpro_monitor.validation.kill_matrix import FaultResult, SelftestReport


def fault(name: str, *killed_by: str, kind: str = "fault", **changes: object) -> FaultResult:
    values = {
        "name": name,
        "kind": kind,
        "killed_by": killed_by,
        "margin": 12.5 if killed_by else None,
        "culprit": Culprit.PACKED if killed_by else Culprit.NONE,
        "seed_killed": "seed" in killed_by,
        "below_noise": False,
        "effect": 0.5,
        "reason": "because",
        **changes,
    }
    return FaultResult(**values)  # type: ignore[arg-type]


def report(*faults: FaultResult, controls: tuple[FaultResult, ...] = ()) -> SelftestReport:
    return SelftestReport(
        model="m",
        dtype="float16",
        device="cpu",
        backend="sdpa",
        protocol="1",
        faults=faults,
        controls=controls,
        healthy={"seed": 100.0, "ceiling": 3.2, "leak": None},
        num_healthy_runs=2,
        gates=("seed", "ceiling", "leak"),
    )


GOOD = report(
    fault("0.88 missing", "seed", "ceiling"),
    fault("tanh GELU", kind="arithmetic", below_noise=True, effect_gate="ceiling", floor=0.3125),
    fault("leaky", "leak", margin=None),
    controls=(fault("packs shuffled", kind="control"),),
)
BAD = report(fault("forgotten"), controls=(fault("packs shuffled", "leak", kind="control"),))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch):
    """Stands in for the runs themselves; returns what they were asked for."""
    asked: list[Settings] = []

    def use(found: SelftestReport) -> list[Settings]:
        monkeypatch.setattr(
            validating, "selftest_builtin", lambda setup, **_: asked.append(setup) or found
        )
        return asked

    return use


def test_the_table_shows_faults_by_gates(ran, capsys: pytest.CaptureFixture[str]) -> None:
    ran(GOOD)
    assert run_command(["selftest"]) == 0
    captured = capsys.readouterr()
    rows = {line.split("  ")[0].strip(): line for line in captured.out.splitlines()}
    assert rows["0.88 missing"].split()[2:] == ["x", "x", "·", "12.5", "killed,", "packed"]
    assert "below noise" in rows["tanh GELU"]
    assert "exact" in rows["leaky"]
    assert "passes" in rows["packs shuffled"]
    assert (
        "Below noise: tanh GELU moves the ceiling gate to 0.5 x its limit; healthy models move it "
        "to 0.31 x."
    ) in captured.err
    assert "2 of 3 faults killed; the seed's rule alone kills 1" in captured.err
    assert "ceiling, 3.2 x below its limit" in captured.err


def test_a_survivor_and_a_false_alarm_exit_2(ran, capsys: pytest.CaptureFixture[str]) -> None:
    ran(BAD)
    assert run_command(["selftest"]) == 2
    out = capsys.readouterr().out
    assert "SURVIVES" in out
    assert "FIRES" in out


def test_json_has_the_agreed_keys(ran, capsys: pytest.CaptureFixture[str]) -> None:
    ran(GOOD)
    assert run_command(["selftest", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["faults"][0].items()
        >= {
            "name": "0.88 missing",
            "kind": "fault",
            "killed_by": ["seed", "ceiling"],
            "margin": 12.5,
        }.items()
    )
    assert found["controls"][0]["killed_by"] == []
    assert found["healthy"] == {"seed": 100.0, "ceiling": 3.2, "leak": None}


def test_the_cpu_is_tested_in_float32_with_the_smallest_model(ran) -> None:
    asked = ran(GOOD)
    run_command(["selftest"])
    (setup,) = asked
    assert (setup.device, setup.model) == ("cpu", "esm2_t6_8M_UR50D")
    assert (setup.dtype, setup.weights) == ("float32", "synthetic")


def test_a_gpu_is_tested_in_both_half_precisions(ran) -> None:
    asked = ran(GOOD)
    run_command(["selftest", "--device", "cuda:0"])
    assert [(setup.model, setup.dtype, setup.weights) for setup in asked] == [
        ("esm2_t33_650M_UR50D", "float16", "synthetic"),
        ("esm2_t33_650M_UR50D", "bfloat16", "synthetic"),
    ]


def test_the_environment_counts_and_a_flag_outranks_it(
    ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ran(GOOD)
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DEVICE", "cuda:3")
    monkeypatch.setenv("VIRNUCPRO_MONITOR_DTYPE", "bfloat16")
    run_command(["selftest", "--model", "esm2_t6_8M_UR50D"])
    run_command(["selftest", "--device", "cpu"])
    assert [(setup.device, setup.model, setup.dtype) for setup in asked] == [
        ("cuda:3", "esm2_t6_8M_UR50D", "bfloat16"),
        ("cpu", "esm2_t6_8M_UR50D", "bfloat16"),
    ]


def test_its_help_shows_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["selftest", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for default in (
        "cpu]",
        "esm2_t6_8M_UR50D; on a GPU esm2_t33_650M_UR50D]",
        "synthetic]",
        "float32; on a GPU float16 and bfloat16]",
    ):
        assert f"default: {default}" in said


def test_a_real_run_of_two_faults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = validating.run_selftest
    names = ("0.88 missing", "softmax in low precision")
    faults = [fault for fault in FAULTS if fault.name in names]
    chosen = {"faults": faults, "controls": CONTROLS[3:4]}
    monkeypatch.setattr(
        validating, "run_selftest", lambda *a, **named: original(*a, **named, **chosen)
    )
    assert run_command(["selftest", "--device", "cpu", "--healthy-runs", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["signature"] for row in found["faults"]] == ["rescale missing", "softmax bfloat16"]
    assert found["passed"]
