"""Writes the overlapped kernel's PTX for Hopper, made without a GPU."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from virnucpro_monitor.models.overlapped_kernel import ROTATE, linear_kernel

LAYOUT = gl.NVMMASharedLayout.get_default_for([128, 64], gl.float16)
CONSTANTS = {
    "ROWS": 128, "COLUMNS": 128, "PART": 64, "DEPTH": 64, "GROUP": 8, "PROGRAMS": 132,
    "STAGES": 5, "EPILOGUE": ROTATE, "HEAD_DIM": 64,
}  # fmt: skip


def main() -> None:
    tiles = f"tensordesc<fp16[128, 64],{LAYOUT!r}>"
    signature = dict.fromkeys(("x", "weight", "out"), tiles)
    signature |= {"bias": "*fp16", "cos": "*fp32", "sin": "*fp32", "scale": "fp32"}
    signature |= dict.fromkeys(("num_rows", "num_columns", "depth", "width"), "i32")
    signature |= dict.fromkeys(CONSTANTS, "constexpr")
    names = linear_kernel.arg_names
    source = GluonASTSource(
        linear_kernel,
        {name: signature[name] for name in names},
        {(names.index(name),): value for name, value in CONSTANTS.items()},
    )
    target = GPUTarget("cuda", 90, 32)
    compiled = triton.compile(source, target, {"num_warps": 4, "maxnreg": 168})
    sys.stdout.write(compiled.asm["ptx"])


if __name__ == "__main__":
    main()
