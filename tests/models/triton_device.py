"""Where the Triton kernels are tested: on a GPU, or else in Triton's interpreter on the CPU."""

import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    # Read by `triton.jit` when the kernels are imported, which tests do after this module.
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="needs Triton, which there is on Linux alone")
MARKS = [pytest.mark.gpu] if DEVICE == "cuda" else []
HALF_DTYPES = [torch.float16]
if DEVICE == "cuda":
    HALF_DTYPES.append(torch.bfloat16)  # the interpreter cuts it off instead of rounding it
