"""Compiles kernels to one object file with TVM and its LLVM.

The functions have plain C signatures, `int kernel(float *, ...)`. Of TVM's runtime they need only
the function that runs a loop in parallel (see `runtime/pool.h`).

Floating-point arithmetic is strict, except that a product and a sum may be fused into one
rounding. NaN and infinity keep their meaning everywhere.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import IRModule, PointerType, PrimType

from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.kernels.conv import DirectConv
from tcc.backends.arm.kernels.loops import channels, conv, map, micro, micro_float, pool
from tcc.backends.arm.kernels.map import (
    Bilinear,
    BorderKernel,
    ChannelGather,
    ElementwiseKernel,
    LayerNormKernel,
    Lookup,
    Nearest,
    SoftmaxKernel,
)
from tcc.backends.arm.kernels.micro import MicroDepthwise, MicroMatrix, MicroVector
from tcc.backends.arm.kernels.micro_float import MicroFloatDepthwise, MicroFloatMatrix
from tcc.backends.arm.kernels.micro_winograd import MicroQuantizedWinograd, MicroWinograd
from tcc.backends.arm.kernels.pool import ChannelPool, WindowPool
from tcc.backends.arm.machine import Machine
from tcc.compiler.support.progress import Progress, silent

LoopBuilder = Callable[[Any, str], Any]
"""Return a kernel's function under a symbol, as a TVM PrimFunc."""

BUILDERS: Mapping[type[Kernel], LoopBuilder] = {
    DirectConv: conv.build,
    ElementwiseKernel: map.build_elementwise,
    ChannelGather: map.build_gather,
    BorderKernel: map.build_border,
    Lookup: map.build_lookup,
    Nearest: map.build_nearest,
    Bilinear: map.build_bilinear,
    WindowPool: pool.build_window,
    ChannelPool: pool.build_channel,
    SoftmaxKernel: channels.build_softmax,
    LayerNormKernel: channels.build_layer_norm,
    MicroMatrix: micro.build_matrix,
    MicroVector: micro.build_vector,
    MicroDepthwise: micro.build_depthwise,
    MicroFloatMatrix: micro_float.build_matrix,
    MicroFloatDepthwise: micro_float.build_depthwise,
    MicroWinograd: micro_float.build_winograd,
    MicroQuantizedWinograd: micro_float.build_quantized_winograd,
}
"""The loop builder of every kernel type; kernels themselves do not depend on TVM."""


def build_function(kernel: Kernel, symbol: str) -> Any:
    """Return a kernel's function under a symbol, as a TVM PrimFunc."""
    # Look up the exact type: an unknown kernel must fail, not match a base class.
    return BUILDERS[type(kernel)](kernel, symbol)


class CodegenError(Exception):
    """TVM cannot build a kernel: a defect of tcc. `symbol` is the kernel's name."""

    def __init__(self, symbol: str, error: Exception) -> None:
        super().__init__(f"{symbol}: {error}")
        self.symbol = symbol


def compile_kernels(
    kernels: Mapping[str, Kernel], machine: Machine, progress: Progress = silent
) -> bytes:
    """Return the object file with a function for each symbol.

    Raises:
        CodegenError: TVM cannot build a kernel.
    """
    target = tvm.target.Target({"kind": "llvm", **machine.llvm})
    lowered = {}
    for index, (symbol, kernel) in enumerate(kernels.items()):
        progress("write kernels", index, len(kernels))
        try:
            lowered[symbol] = _lower_kernel(symbol, kernel, target)
        except Exception as error:  # TVM raises many types
            raise CodegenError(symbol, error) from error
    progress("write kernels", len(kernels), len(kernels))
    progress("compile kernels", 0, 1)
    try:
        object_bytes = _compile_object(lowered, target)
    except Exception as error:  # LLVM raises many types
        raise CodegenError(_find_failing_symbol(lowered, target), error) from error
    progress("compile kernels", 1, 1)
    return object_bytes


def _lower_kernel(symbol: str, kernel: Kernel, target: Any) -> Any:
    """Return a kernel's function, lowered for LLVM."""
    module = IRModule({symbol: build_function(kernel, symbol)})
    module = tvm.transform.Sequential(
        [
            tirx.transform.BindTarget(target.with_host(target)),
            tirx.transform.FlattenBuffer(),
            tirx.transform.NarrowDataType(32),
            tirx.transform.VerifyMemory(),
        ]
    )(module)
    module = IRModule({symbol: _replace_buffers(module[symbol])})
    final_passes = [tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()]
    return tvm.transform.Sequential(final_passes)(module)[symbol]


def _replace_buffers(function: Any) -> Any:
    """Return a function that takes pointers instead of buffers, and returns 0."""
    body = function.body
    # Device type 1 is the CPU (`kDLCPU` of DLPack).
    for key, device_number in (("device_type", 1), ("device_id", 0)):
        body = tirx.AttrStmt(
            tvm.ir.StringImm("default"), key, tirx.IntImm("int32", device_number), body
        )
    pointers = [
        tirx.Var(f"{buffer.name}_pointer", PointerType(PrimType(str(buffer.dtype))))
        for buffer in function.params
    ]
    declared = [
        tirx.DeclBuffer(buffer, data=pointer)
        for buffer, pointer in zip(function.params, pointers, strict=True)
    ]
    return_statement = tirx.stmt.Return(tirx.IntImm("int32", 0))
    statements = tirx.SeqStmt([*declared, body, return_statement])
    return tirx.PrimFunc(pointers, statements, PrimType("int32"), attrs=function.attrs)


def _compile_object(functions: Mapping[str, Any], target: Any) -> bytes:
    library = tvm.get_global_func("target.build.llvm")(IRModule(dict(functions)), target)
    # LLVM writes only to a path, and aborts if the disk is full: use a file in memory.
    with open(os.memfd_create("kernels"), "rb") as file:
        library.write_to_file(f"/proc/self/fd/{file.fileno()}", "o")
        return file.read()


def _find_failing_symbol(functions: Mapping[str, Any], target: Any) -> str:
    """Return the first function that does not compile alone; if all do, the first function."""
    for symbol, function in functions.items():
        try:
            _compile_object({symbol: function}, target)
        except Exception:
            return symbol
    return next(iter(functions))
