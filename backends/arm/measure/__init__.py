"""What a program costs: instructions counted under qemu, cycles modelled, or time taken."""

from pathlib import Path

from tcc.backends.arm.execute.runner import program_file
from tcc.backends.arm.machine import Machine
from tcc.compiler.ir.measurement import Measurement, Workload
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress


def measured(machine: Machine, folder: Path, workload: Workload, progress: Progress) -> Measurement:
    """Return what the program in a folder costs: timed where it runs by itself, or else counted."""
    from tcc.backends.arm.measure import emulated

    program = program_file(folder)
    if machine.native:
        message = f"programs for {machine.target.name} are not timed yet"
        raise fail("E0657", message, whole_file(str(program)))
    return emulated.measure(machine, program, workload, progress)
