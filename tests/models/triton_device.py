"""Where the Triton kernels are tested: on a GPU, or, with TRITON_INTERPRET=1, on the CPU."""

import os

import pytest
import torch

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
MARKS = [] if DEVICE == "cpu" else [pytest.mark.gpu]
HALF_DTYPES = [torch.float16]
if DEVICE == "cuda":
    HALF_DTYPES.append(torch.bfloat16)  # the interpreter cuts it off instead of rounding it
