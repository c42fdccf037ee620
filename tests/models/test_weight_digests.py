from pathlib import Path

import pytest

from virnucpro_monitor.models import weight_digests
from virnucpro_monitor.models.weight_digests import remembered


@pytest.mark.parametrize("writable", [True, False])
def test_a_digest_is_computed_once_while_its_file_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """Beside the file; where nothing can be written there, in each process."""
    computed: list[int] = []

    def compute() -> str:
        computed.append(path.stat().st_size)
        return f"{len(computed)}" * 64

    def fail(_: Path) -> None:
        raise PermissionError

    if not writable:
        monkeypatch.setattr(weight_digests, "replacing", fail)
    path = tmp_path / "weights.pt"
    path.write_bytes(b"one")
    assert [remembered(path, "sha256", compute) for _ in range(2)] == ["1" * 64] * 2
    path.write_bytes(b"other")
    assert [remembered(path, "sha256", compute) for _ in range(2)] == ["2" * 64] * 2
    assert computed == [3, 5]
    assert path.with_name("weights.pt.sha256").exists() == writable
