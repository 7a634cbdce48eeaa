"""Runs programs of the `host` target step by step, many from one shared library.

Each kernel runs on separate arrays, so that only lowering rules and kernels are tested.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.backends.arm.codegen import micro_objects, objects, zig
from tcc.backends.arm.codegen.link import LINK_OPTIONS
from tcc.backends.arm.kernels.base import Kernel, KernelCall, KernelWeights, Scratch, Value
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.schedule.program import Copy, Program, build_program
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.types import TensorType

Array = NDArray[Any]

_LAUNCH = """
typedef int (*body)(int task, void *environment, void *data);
static int launch(body run, void *data, int tasks)
{
    struct { void *handle; int tasks; } environment = {0, %d};
    int status = 0;
    for (int task = 0; task < environment.tasks; task++)
        status |= run(task, &environment, data);
    return status;
}
int (*__TVMBackendParallelLaunch)(body, void *, int) = launch;
"""


@dataclass(frozen=True)
class Library:
    """The kernels of some programs, compiled for this machine."""

    functions: ctypes.CDLL
    symbols: Mapping[Kernel, str]

    def run(self, program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the graph's outputs for inputs by name."""
        computed = dict(self.steps(program, inputs))
        return {o.name: computed[o.value] for o in program.graph.outputs}

    def steps(
        self,
        program: Program,
        inputs: Mapping[str, Array],
        overrides: Mapping[str, Array] | None = None,
    ) -> Iterator[tuple[str, Array]]:
        """Yield the value of each step by name, then the outputs.

        A value in `overrides` replaces the computed one for later steps.
        """
        graph = program.graph
        buffers = {placement.buffer for placement in program.locations.values()}
        memory = {b: np.full(graph.types[b].nbytes, 0xFF, np.uint8) for b in buffers}
        for name, tensor in inputs.items():
            self._get_view(program, memory, name)[:] = tensor.ravel()
        for step in program.steps:
            self._step(program, memory, step)
            if isinstance(step, KernelCall):
                yield step.output, self._copy_value(program, memory, step.output)
                if overrides is not None:
                    self._get_view(program, memory, step.output)[:] = overrides[step.output].ravel()
        for output in graph.outputs:
            yield output.value, self._copy_value(program, memory, output.value)

    def _copy_value(self, program: Program, memory: Mapping[str, Array], name: str) -> Array:
        kind = program.graph.types[name]
        return read_stored(self._get_view(program, memory, name), kind).reshape(kind.shape).copy()

    def _step(self, program: Program, memory: Mapping[str, Array], step: KernelCall | Copy) -> None:
        match step:
            case Copy(source, result, offset):
                copied_bytes = self._get_view(program, memory, source).view(np.uint8)
                into = self._get_view(program, memory, result).view(np.uint8)
                into[offset:][: copied_bytes.size] = copied_bytes
            case KernelCall(kernel, arguments, result):
                arrays: list[Array] = []
                for argument in arguments:
                    match argument:
                        case Value(name):
                            arrays.append(self._get_view(program, memory, name))
                        case KernelWeights(data):
                            arrays.append(data)
                        case Scratch(space):
                            arrays.append(np.full(space.nbytes, 0xFF, np.uint8).view(space.dtype))
                function = self.functions[self.symbols[kernel]]
                spaces = [_Guarded(a) for a in (*arrays, self._get_view(program, memory, result))]
                assert function(*(space.pointer for space in spaces)) == 0
                assert all(space.is_intact for space in spaces)
                self._get_view(program, memory, result)[:] = spaces[-1].values

    @staticmethod
    def _get_view(program: Program, memory: Mapping[str, Array], value_name: str) -> Array:
        placement, kind = program.locations[value_name], program.graph.types[value_name]
        return memory[placement.buffer][placement.offset :][: kind.nbytes].view(kind.dtype.value)


def read_stored(array: Array, kind: TensorType) -> Array:
    """Return the values whose low 8 bits are stored; other types as they are."""
    if not kind.zero_point:
        return array
    zero_point = np.uint8(kind.zero_point)
    return (array + zero_point).astype(np.int16) - zero_point


class _Guarded:
    """A copy of an array with the minimum vector alignment, surrounded by guard bytes of 255.

    Four of these bytes are NaN as a float.
    """

    def __init__(self, array: Array) -> None:
        self.space = np.full(array.nbytes + 256, 0xFF, np.uint8)
        self.start = 64 + -self.space.ctypes.data % 64 + 16
        self.end = self.start + array.nbytes
        self.values = self.space[self.start : self.end].view(array.dtype)
        self.values[:] = array.ravel()

    @property
    def pointer(self) -> ctypes.c_void_p:
        return self.values.ctypes.data_as(ctypes.c_void_p)

    @property
    def is_intact(self) -> bool:
        """Whether the guard bytes are unchanged."""
        around = np.concatenate([self.space[: self.start], self.space[self.end :]])
        return bool((around == 0xFF).all())


def compile_library(
    models: Sequence[Model], machine: Machine, folder: Path, tasks: int = 1
) -> tuple[Library, list[Program]]:
    """Return the programs of models with their compiled kernels.

    Loops run in `tasks` parts.
    """
    programs = [build_program(m.graph, m.weights, machine) for m in models]
    kernels = dict.fromkeys(k for p in programs for k in p.kernels)
    symbols = {k: f"k{i}_{k.name}" for i, k in enumerate(kernels)}
    object_code = objects.compile_kernels({s: k for k, s in symbols.items()}, machine)
    (folder / "kernels.o").write_bytes(object_code)
    (folder / "launch.c").write_text(_LAUNCH % tasks)
    micro = micro_objects.compile_kernels(kernels, machine)
    for file, content in micro.items():
        (folder / file).write_bytes(content)
    options = (
        *machine.get_zig_target("gnu"),
        *LINK_OPTIONS,
        "-fPIC",
        "-shared",
        "-o",
        "kernels.so",
    )
    zig.run(folder, "cc", *options, "launch.c", "kernels.o", *micro)
    return Library(ctypes.CDLL(str(folder / "kernels.so")), symbols), programs
