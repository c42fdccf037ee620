import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.host import doctor
from virnucpro_monitor.runner.gpu import GIB, Gpu

CPU = ["--device", "cpu", "--model", "esm2_t6_8M_UR50D", "--weights", "synthetic"]


def examine(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, dict[str, dict[str, str]]]:
    code = run_command(["doctor", "--json", *arguments])
    return code, {one["name"]: one for one in json.loads(capsys.readouterr().out)}


def test_a_cpu_machine_is_fine_for_the_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    assert run_command(["db", "create", "--db", url]) == 0
    capsys.readouterr()
    code, found = examine(capsys, *CPU, "--db", url)
    assert code == 0
    assert set(found) == {
        "GPU", "torch", "flash-attn", "weights", "disk", "isolation", "git", "cron", "database"
    }  # fmt: skip
    assert found["database"]["level"] == "ok"
    assert found["git"]["level"] == "ok"


def test_what_is_missing_comes_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "esm2_t6_8M_UR50D.pt"
    damaged.write_bytes(b"x")
    url = f"sqlite:///{tmp_path / 'none.db'}"
    code, found = examine(
        capsys, "--device", "cuda:0", "--model", "esm2_t6_8M_UR50D",
        "--weights", str(damaged), "--db", url,
    )  # fmt: skip
    assert code == 1
    assert found["weights"]["level"] == "problem"
    assert found["database"]["remedy"].startswith("virnucpro-monitor db create --db")


def test_people_get_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["doctor", *CPU, "--db", f"sqlite:///{tmp_path / 'none.db'}"])
    said = capsys.readouterr().out
    assert "warning  database" in said
    assert "-> virnucpro-monitor db create" in said


def test_a_busy_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu("H200", "575", 140 * GIB, 100 * GIB, (12345678,), 50)
    monkeypatch.setattr(doctor, "find_gpu", lambda _: gpu)
    finding = doctor._gpu("cuda:0", True)
    assert finding.level == "warning"
    assert finding.text == ("H200, driver 575, 100 of 140 GiB free; 1 other process computes on it")
    monkeypatch.setattr(doctor, "find_gpu", lambda _: None)
    assert doctor._gpu("cuda:0", True).level == "problem"
    assert doctor._gpu("cpu", False).level == "warning"


@pytest.mark.parametrize(
    ("device", "level", "text"),
    [
        ("cuda:0", "ok", "H200, driver 575, 100 of 140 GiB free"),
        ("cuda:1", "ok", "A100, driver 575, 100 of 140 GiB free"),
        ("cuda:0,7", "warning",
         "cuda:0 H200, driver 575, 100 of 140 GiB free; cuda:7 is not there"),
        ("cuda", "warning",
         "cuda:0 H200, driver 575, 100 of 140 GiB free; cuda:1 A100, driver 575, 100 of 140 GiB "
         "free; it is of another kind than the first, and left out beside that"),
        ("cuda:6,7", "problem",
         "cuda:6 and cuda:7: there is no such card, of 2 (CUDA_VISIBLE_DEVICES is '5,3')"),
    ],
)  # fmt: skip
def test_each_card_that_is_asked_for_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, device: str, level: str, text: str
) -> None:
    kinds = {"cuda:0": "H200", "cuda:1": "A100"}

    def look(name: str) -> Gpu | None:
        return Gpu(kinds[name], "575", 140 * GIB, 100 * GIB, (), 0) if name in kinds else None

    monkeypatch.setattr(doctor, "find_gpu", look)
    monkeypatch.setattr(doctor, "count_gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    finding = doctor._gpu(device, True)
    assert (finding.level, finding.text) == (level, text)
    assert finding.remedy == (
        "virnucpro-monitor run --model esm2_t6_8M_UR50D --device cuda" if level == "problem" else ""
    )


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 1 << 60)
    assert doctor._disk(tmp_path / "cache" / "deep").level == "warning"


def test_a_machine_without_a_gpu_is_not_told_to_install_what_needs_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "find_gpu", lambda _: None)
    monkeypatch.setattr(doctor, "version", _not_installed)
    _, found = examine(capsys, "--device", "cuda:0", *CPU[2:])
    assert found["flash-attn"]["level"] == "ok"
    assert found["flash-attn"]["remedy"] == ""
    assert found["GPU"]["level"] == "problem"


def _not_installed(name: str) -> str:
    raise PackageNotFoundError(name)
