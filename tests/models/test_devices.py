import pytest
import torch

from virnucpro_monitor.errors import DeviceError
from virnucpro_monitor.models.devices import checked_device


@pytest.mark.parametrize(
    ("visible", "count", "told"),
    [
        (None, 0, "sees 0 CUDA devices here; use --device cpu, or check the driver."),
        (None, 1, "sees 1 CUDA device here; use cuda:0."),
        (None, 3, "sees 3 CUDA devices here; use one up to cuda:2."),
        ("0,0", 0, "sees 0 CUDA devices here; use --device cpu, or check the driver and "
         "CUDA_VISIBLE_DEVICES, which is '0,0'."),
        ("2", 1, "sees 1 CUDA device here; use cuda:0, or check CUDA_VISIBLE_DEVICES, "
         "which is '2'."),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there_is_named_beside_those_that_are(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, told: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(DeviceError) as raised:
        checked_device("cuda:3")
    assert str(raised.value) == f"There is no cuda:3: PyTorch {told}"
