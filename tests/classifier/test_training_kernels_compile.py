"""The kernels are built for a Hopper GPU, which the compiler can do without one; the interpreter accepts more."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from nucpro.classifier import kernels

NUMBERS = {"ahead": "i32", "rows": "i32", "stride": "i32", "row_stride": "i32"}
FACTORS = {"momentum": "fp32", "dropout": "fp32", "epsilon": "fp32"}
POINTERS = {"order": "*i64", "clock": "*i64", "labels": "*i64"}
SHAPES = {
    "_first_product": dict(WIDTH=2048, HIDDEN=512, STEPS=4, ROWS=32, COLUMNS=32, DEPTH=64),
    "_hidden_layer": dict(SUMS=8, HIDDEN=512, ROWS=32, COLUMNS=16),
    "_output_layer": dict(HIDDEN=512, BLOCKS=32, ROWS=32, COLUMNS=16),
    "_first_update": dict(WIDTH=2048, HIDDEN=512, ROWS=32, HIDDEN_ROWS=32, COLUMNS=64),
}
for name, shape in SHAPES.items():
    kernel = getattr(kernels, name)
    types = dict.fromkeys(kernel.arg_names, "*fp32") | NUMBERS | FACTORS | POINTERS | dict.fromkeys(shape, "constexpr")
    signature = {argument: types[argument] for argument in kernel.arg_names}
    constants = {(kernel.arg_names.index(key),): value for key, value in shape.items()}
    options = {"num_warps": 4, "enable_fp_fusion": True}
    built = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 90, 32), options=options)
    print(name, built.metadata.shared)
"""


def test_all_kernels_are_built() -> None:
    pytest.importorskip("triton")
    # In a process of its own: another test may have made Triton interpret.
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    shared = {name: int(size) for name, size in map(str.split, done.stdout.splitlines())}
    assert list(shared) == ["_first_product", "_hidden_layer", "_output_layer", "_first_update"]
    assert max(shared.values()) <= 99 * 1024  # what workstation GPUs give a program
