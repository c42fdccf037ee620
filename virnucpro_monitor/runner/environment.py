"""What a run's surroundings are: host, GPU, driver, and what else changes a result's last bits."""

import os
import platform
import re
import socket
from importlib.metadata import PackageNotFoundError, version

from virnucpro_monitor.records import Environment
from virnucpro_monitor.runner.gpu import find_gpu

# Settings from outside that choose other kernels or other arithmetic.
_CHOOSING = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


def capture_environment(device: str = "cpu", num_threads: int | None = None) -> Environment:
    """Describe the surroundings of a run on `device` ("cpu" or "cuda:N"), without its packages.

    The GPU is asked for through NVML, so that no CUDA context is made. On the CPU, GPU, driver and
    CUDA stay out of it: they cannot change a result there.

    Args:
        num_threads: CPU threads of the run; on a GPU they cannot change a result.
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
        parts=_parts(on_gpu, num_threads),
    )


def _parts(on_gpu: bool, num_threads: int | None) -> dict[str, str]:
    import torch

    built = torch.__config__.show()
    found = {
        "blas": _first(r"BLAS_INFO=(\w+)", built),
        "mkl": _first(r"Math Kernel Library Version (\S+)", built),
        "onednn": _first(r"MKL-DNN v(\S+)", built),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    if on_gpu:
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        found["cudnn"] = str(cudnn) if cudnn else None
    elif num_threads is not None:
        found["threads"] = str(num_threads)
    found |= {name: os.environ.get(name) for name in _CHOOSING}
    return {name: value for name, value in found.items() if value}


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


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
