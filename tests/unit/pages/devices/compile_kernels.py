"""Compile every kernel in Triton for an NVIDIA GPU, which need not be there; print a line a kernel.

Run it without TRITON_INTERPRET: `python tests/unit/pages/devices/compile_kernels.py 90`.
"""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stoker.pages.devices import triton_kernels as kernels

W, B, H = "*i64", "*u8", "*i16"
SIGNATURES = {
    "compare_tiles": ([W] * 8, {"UPDATE": True}),
    "cast_tiles": (["*i32", W, H, W, W, W, W, W, W], {}),
    "emit_tiles": ([B, W, W, W, W, W, B], {}),
    "apply_tiles": ([B, W, W, W, W, W, B], {}),
    "count_elements": ([H, H, "i32", W], {"BLOCK": 1024}),
    "compact_elements": ([H, H, "i32", W, W, H, H], {"BLOCK": 1024}),
    "hash_tiles": ([W, W, W, "i32", W, W, W, W, "i64"], {"TILES": 16}),
    "copy_tiles": ([W] * 5, {}),
    "zero_tiles": ([W] * 3, {}),
    "unequal_tiles": ([W] * 5, {}),
}


def compiled(name: str, capability: int) -> str:
    """Return the assembly text of a kernel for a compute capability such as 90."""
    kernel = getattr(kernels, name)
    types, constants = SIGNATURES[name]
    signature = dict(zip(kernel.arg_names, [*types, *["constexpr"] * len(constants)], strict=True))
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    source = ASTSource(kernel, signature, constexprs=places)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]


if __name__ == "__main__":
    for name in SIGNATURES:
        text = compiled(name, int(sys.argv[1]))
        sys.stdout.write(f"{name}: {len(text.splitlines())} lines of PTX\n")
