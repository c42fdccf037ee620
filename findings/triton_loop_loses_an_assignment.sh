#!/usr/bin/env bash
# triton 3.9.0 (3.6 to 3.8 alike), compiled: a loop drops an assignment to a variable that was another's equal.
#
# `before = value` ahead of a loop, and in it `before = value; value += 1`: each pass should find in
# `before` what `value` was one pass ago. The compiler asks whether a variable is another object at the
# body's end than ahead of the loop; `before` is not, since both are `value` as it was, and so it is taken
# for a constant. The interpreter (TRITON_INTERPRET=1) runs the same kernel as Python would, so a test on
# a CPU passes. Here the variable was a ring's slot, and the kernel waited for ever.
#
# Seen: in the compiled loop the store's operand is what was loaded before the loop, at every pass. With
# `before = value + 0.0` ahead of the loop, which is the same number, it is carried.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q triton==3.9.0
cat >"$folder/show.py" <<'PYTHON'
import re
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def lost(source, target, count):
    value = tl.load(source)
    before = value
    for place in range(count):
        tl.store(target + place, before)
        before = value
        value += 1.0


@triton.jit
def carried(source, target, count):
    value = tl.load(source)
    before = value + 0.0
    for place in range(count):
        tl.store(target + place, before)
        before = value
        value += 1.0


def carries_what_it_stores(kernel):
    signature = {"source": "*fp32", "target": "*fp32", "count": "i32"}
    ir = triton.compile(ASTSource(kernel, signature), target=GPUTarget("cuda", 90, 32)).asm["ttir"]
    stored = re.search(r"tt\.store %\S+, (%\w+) ", ir).group(1)
    arguments = re.search(r"iter_args\(([^)]*)\)", ir).group(1)
    print(f"{kernel.__name__}: stores {stored}, the loop carries {arguments}")
    return stored in re.findall(r"(%\w+) =", arguments)


sys.exit(not (carries_what_it_stores(carried) and not carries_what_it_stores(lost)))
PYTHON
cd "$folder"
TRITON_CACHE_DIR=$folder/cache venv/bin/python show.py 2>/dev/null
