"""The ways to measure a program: by the machine that it is for, and where that is."""

from pathlib import Path
from typing import TYPE_CHECKING

from tcc.backends.arm.codegen import runner_signature
from tcc.backends.arm.execute.runner import Calls, program_file
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.measure import board_runs, emulated, timed
from tcc.backends.arm.measure.places import BoardPlace, LocalPlace
from tcc.backends.arm.measure.program_facts import facts
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import BoardTask, Measurement, Workload
from tcc.compiler.support import atomic_files, regular_files
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from tcc.backends.arm.execute.runner import Outputs


def here(
    machine: Machine, folder: Path, source: Input, workload: Workload, progress: Progress
) -> Measurement:
    """Return what the program in a folder costs: timed where it runs by itself, or else counted.

    Raises:
        MissingTool: What counts is not here.
        UserError: The program fails (E0652), or is counted, and on more threads than one (E0601).
    """
    program = program_file(folder)
    with atomic_files.scratch_folder() as scratch:
        calls = Calls(machine, program, scratch)
        if machine.native:
            place = LocalPlace(calls)
            return timed.measure(place, facts(place, program), source, workload, progress)
        # Instructions of threads that wait for each other depend on the emulator's scheduling.
        if workload.threads != 1:
            message = f"{machine.target.name} is counted here, and that on one thread"
            raise fail("E0601", message, whole_file("command line: --threads"))
        return emulated.measure(calls, source, workload, progress)


def there(
    folder: Path, source: Input, task: BoardTask, progress: Progress
) -> "tuple[Measurement, list[Outputs]]":
    """Return what the program in a folder costs on a board, and what it gives for each case.

    Raises:
        UserError: The board does not do what it is asked (E0658), or the program fails (E0652).
    """
    program = program_file(folder)
    progress("copy", 0, 1)
    with regular_files.opened(program) as file:
        copied = task.board.put(program.name, file.read(), executable=True)
    signature = runner_signature.find(folder)
    if signature and (folder / signature.file).exists():
        with regular_files.opened(folder / signature.file) as file:
            task.board.put(signature.file, file.read())
    place = BoardPlace(task.board, program, copied)
    known = facts(place, program)
    found = timed.measure(place, known, source, task.workload, progress)
    return found, board_runs.outputs(place, known, source, task.cases, progress)
