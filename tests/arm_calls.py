"""Kernel calls in a separate program, run here or under qemu, each on correct inputs.

Each argument ends at the end of a page. The memory after it cannot be read.
"""

import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from arm_steps import read_stored
from numpy.typing import NDArray

from tcc.backends.arm.codegen import micro_objects, objects, zig
from tcc.backends.arm.codegen.link import LINK_OPTIONS
from tcc.backends.arm.kernels.base import Kernel, KernelCall, KernelWeights, Scratch, Value
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.schedule.program import Program, build_program
from tcc.compiler.ir.graph import Model

Array = NDArray[Any]
DRIVER = Path(__file__).with_name("arm_calls.c")
INITIALIZED, BLANK = 0, 1


class BrokenCallError(AssertionError):
    """A kernel failed, wrote outside its outputs, or read beyond an argument."""


@dataclass(frozen=True)
class CallProgram:
    """A program that calls kernels on a machine."""

    machine: Machine
    path: Path
    symbols: Mapping[Kernel, str]

    def results(self, plan: Program, reference_values: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of each kernel call of a plan, computed from reference inputs.

        Raises:
            BrokenCallError: A call fails or accesses memory outside its arguments.
        """
        steps = [step for step in plan.steps if isinstance(step, KernelCall)]
        calls, results_file = self.path.with_name("calls.bin"), self.path.with_name("results.bin")
        order = {kernel: i for i, kernel in enumerate(self.symbols)}
        with calls.open("wb") as file:
            for step in steps:
                file.writelines(_record(plan, order[step.kernel], step, reference_values))
        emulator = [] if self.machine.native else [self.machine.qemu, "-cpu", self.machine.qemu_cpu]
        completed = subprocess.run([*emulator, self.path, calls, results_file], check=False)
        output_bytes = results_file.read_bytes()
        outputs: dict[str, Array] = {}
        offset = 0
        for step in steps:
            kind = plan.graph.types[step.output]
            if offset + 4 + kind.nbytes > len(output_bytes):
                raise BrokenCallError(f"{step.output} ({step.kernel}): exit {completed.returncode}")
            if status := output_bytes[offset]:
                raise BrokenCallError(f"{step.output} ({step.kernel}): status {status}")
            array = np.frombuffer(
                output_bytes[offset + 4 : offset + 4 + kind.nbytes], kind.dtype.value
            )
            outputs[step.output] = read_stored(array, kind).reshape(kind.shape)
            offset += 4 + kind.nbytes
        return outputs


def _record(
    plan: Program, kernel: int, step: KernelCall, reference_values: Mapping[str, Array]
) -> Iterator[bytes]:
    yield struct.pack("<II", kernel, len(step.arguments) + 1)
    for argument in step.arguments:
        match argument:
            case Value(name):
                # The low 8 bits of quantized values are stored.
                dtype = plan.graph.types[name].dtype.value
                yield from _pack_array(reference_values[name].astype(dtype))
            case KernelWeights(data):
                yield from _pack_array(data)
            case Scratch(space):
                yield struct.pack("<IQ", BLANK, space.nbytes)
    yield struct.pack("<IQ", BLANK, plan.graph.types[step.output].nbytes)


def _pack_array(array: Array) -> Iterator[bytes]:
    yield struct.pack("<IQ", INITIALIZED, array.nbytes)
    yield np.ascontiguousarray(array).tobytes()


def call_program(
    models: Sequence[Model],
    machine: Machine,
    folder: Path,
    tasks: int = 1,
    checked: Sequence[str] = (),
) -> tuple[CallProgram, list[Program]]:
    """Return a program with the kernels of models, and their plans.

    Loops run in `tasks` parts. `checked` is a compiler of this machine with its options. It
    compiles the driver and all micro-kernels from C.
    """
    plans = [build_program(m.graph, m.weights, machine) for m in models]
    kernels = dict.fromkeys(k for p in plans for k in p.kernels)
    symbols = {k: f"k{i}_{k.name}" for i, k in enumerate(kernels)}
    object_code = objects.compile_kernels({s: k for k, s in symbols.items()}, machine)
    (folder / "kernels.o").write_bytes(object_code)
    declared = "".join(f"int {symbol}();\n" for symbol in symbols.values())
    table = f"static int (*const kernels[])() = {{{', '.join(symbols.values())}}};\n"
    defined = f"#define TASKS {tasks}\n#define LAUNCH __TVMBackendParallelLaunch\n"
    (folder / "calls.c").write_text(declared + table + defined + DRIVER.read_text("utf-8"))
    options = ("-std=gnu11", "-o", "calls", "calls.c", "kernels.o")
    if checked:
        micro_objects.write_sources(folder)
        micro_names = sorted({micro.name for kernel in kernels for micro in kernel.micro_kernels})
        files = [f"{micro_name}.c" for micro_name in micro_names]
        subprocess.run([*checked, *options, *files], cwd=folder, check=True)
        return CallProgram(machine, folder / "calls", symbols), plans
    micro = micro_objects.compile_kernels(kernels, machine)
    for file, content in micro.items():
        (folder / file).write_bytes(content)
    zig.run(
        folder, "cc", *machine.get_zig_target("musl"), *LINK_OPTIONS, "-static", *options, *micro
    )
    return CallProgram(machine, folder / "calls", symbols), plans
