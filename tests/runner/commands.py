"""Commands as a user gives them, on the smallest model and a database of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from virnucpro_monitor.cli.main import run_command


def use_smallest_model(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    """Set by the environment: database and cache in `folder`, the demo's model, FP32, the CPU.

    Args:
        more: further settings by their variables' endings, as in BENCHMARK="seed".
    """
    settings = {
        "DB": f"sqlite:///{folder / 'monitor.db'}",
        "CACHE_DIR": str(folder / "cache"),
        "MODEL": "esm2_t6_demo",
        "WEIGHTS": "synthetic",
        "DEVICE": "cpu",
        "DTYPE": "float32",
        **more,
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"VIRNUCPRO_MONITOR_{name}", value)


def commands(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Gives (exit code, standard output, standard error) of a command's words."""

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_command(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def freeze_few(folder: Path) -> str:
    """Freeze four short sequences as a benchmark set; returns its name.

    For tests of what surrounds a measurement: tracing a fault in long ones takes most of their
    time.
    """
    fasta = folder / "few.fasta"
    fasta.write_text(
        ">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n>c\nMVHLT\n>d\nMKTAYIAKQRQISFVKSHFSRQAAVK\n"
    )
    assert run_command(["benchmark", "add", str(fasta), "--name", "few"]) == 0
    return "few"
