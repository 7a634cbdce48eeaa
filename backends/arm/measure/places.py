"""Where a program runs that is measured: here, in an emulator, or on a board; and its input."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tcc.backends.arm.execute.runner import EACH, START, UNSIGNED, Calls, fail_unsigned, ppm
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import Workload
from tcc.compiler.ir.types import DType
from tcc.compiler.support import regular_files
from tcc.compiler.support.board import Board
from tcc.compiler.support.bounded_process import Ended
from tcc.compiler.support.diagnostics import UserError, fail, whole_file


class ProgramPlace(Protocol):
    """A program in a place that it can run in, and files beside it."""

    @property
    def how(self) -> str:
        """What runs it."""
        ...

    def put(self, name: str, data: bytes) -> str:
        """Write a file; return its path as the program takes it."""
        ...

    def path(self, name: str) -> str:
        """Return the path of a file that the program is to write."""
        ...

    def execute(self, words: Sequence[str], runs: int, written: int) -> Ended:
        """Run the program to its good end.

        Raises:
            UserError: It fails (E0652), or refuses its input (E0653).
        """
        ...

    def read(self, name: str, most: int) -> bytes:
        """Return the first bytes of a file that the program wrote.

        Raises:
            UserError: It did not (E0652).
        """
        ...

    def wrong(self, message: str, label: str = "") -> UserError:
        """Return the error of a program that does not do what it is for (E0652)."""
        ...


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A scratch folder of this machine."""

    calls: Calls

    @property
    def how(self) -> str:
        """Return the machine, with the instruction set that it is told to use, or its emulator."""
        machine = self.calls.machine
        # With options for an emulator, the counting plugin's, even this machine's programs go
        # through it.
        emulated = self.calls.options or not machine.native
        if emulated:
            return machine.qemu
        return f"this machine as {machine.isa}" if machine.isa else "this machine"

    def put(self, name: str, data: bytes) -> str:
        """Write a file."""
        (self.calls.folder / name).write_bytes(data)
        return self.path(name)

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.calls.folder / name)

    def execute(self, words: Sequence[str], runs: int, written: int) -> Ended:
        """Run the program as `tcc run` does."""
        return self.calls.ended(*words, inputs=runs, written=written)

    def read(self, name: str, most: int) -> bytes:
        """Read a file."""
        try:
            with regular_files.opened(self.calls.folder / name) as file:
                return file.read(most)
        except OSError:
            raise self.wrong("the program did not write what it was asked for", name) from None

    def wrong(self, message: str, label: str = "") -> UserError:
        """Return the error, located at the program."""
        return self.calls.wrong(message, label)


@dataclass(frozen=True, slots=True)
class BoardPlace:
    """A folder of a board, into which the program was copied."""

    board: Board
    program: Path
    copied: str

    @property
    def how(self) -> str:
        """Return the way to the board."""
        return self.board.way.name

    def put(self, name: str, data: bytes) -> str:
        """Copy a file there."""
        return self.board.put(name, data)

    def path(self, name: str) -> str:
        """Return the path of a file there."""
        return f"{self.board.folder}/{name}"

    def execute(self, words: Sequence[str], runs: int, written: int) -> Ended:
        """Run the program there; the board's own shell bounds nothing but the time."""
        ended = self.board.execute([self.copied, *words], START + EACH * runs)
        if ended.code == UNSIGNED:
            raise fail_unsigned(whole_file(str(self.program)), ended.err)
        if ended.code:
            said = ended.err.decode(errors="replace").strip().splitlines()
            label = said[-1][:160] if said else ""
            raise self.wrong(f"the program failed on the board with status {ended.code}", label)
        return ended

    def read(self, name: str, most: int) -> bytes:
        """Bring a file from there."""
        # What a board sends is cut here, as nothing there bounds it.
        return self.board.get(name)[:most]

    def wrong(self, message: str, label: str = "") -> UserError:
        """Return the error, located at the program."""
        return fail("E0652", message, whole_file(str(self.program)), label=label)


def write_input(
    place: ProgramPlace, source: Input, workload: Workload, name: str
) -> tuple[str, ...]:
    """Write the input where the program runs; return the runner's words for it."""
    if workload.image is not None:
        return (place.put(f"{name}.ppm", ppm(workload.image)),)
    kind = "u1" if source.type.dtype is DType.U8 else "<f4"
    tensor = np.ascontiguousarray(workload.tensor, kind)
    return ("--tensor", place.put(f"{name}.bin", tensor.tobytes()))
