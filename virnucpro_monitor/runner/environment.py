"""What a run's surroundings are: host, GPU, driver and the packages that compute."""

import platform
import socket
from importlib.metadata import PackageNotFoundError, version

from virnucpro_monitor.records import Environment
from virnucpro_monitor.runner.gpu import find_gpu


def capture_environment(device: str = "cpu") -> Environment:
    """Describe the surroundings of a run on `device` ("cpu" or "cuda:N").

    The GPU is asked for through NVML, so that no CUDA context is made. On the CPU, GPU, driver and
    CUDA stay out of it: they cannot change a result there.
    """
    import torch

    on_gpu = device.startswith("cuda")
    gpu = find_gpu(device) if on_gpu else None
    return Environment(
        host=socket.gethostname(),
        platform=f"{platform.system()} {platform.machine()} {_processor()}".strip(),
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda if on_gpu else None,
        gpu=gpu.name if gpu else None,
        driver=gpu.driver if gpu else None,
        flash_attn=_version("flash-attn") if on_gpu else None,
        fair_esm=_version("fair-esm"),
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The CPU's model: kernels are chosen by it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
