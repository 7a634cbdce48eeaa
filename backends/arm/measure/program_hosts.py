"""The places where a measured program runs: natively, in an emulator, or on a board."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tcc.backends.arm.execute.runner import (
    SECONDS_PER_INPUT,
    START_SECONDS,
    UNSIGNED,
    RunnerProcess,
    encode_ppm,
    fail_unsigned,
)
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import Workload
from tcc.compiler.ir.types import DType
from tcc.compiler.support import regular_files
from tcc.compiler.support.board import Board
from tcc.compiler.support.bounded_process import ProcessOutcome
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span


class ProgramHost(Protocol):
    """A program on a machine that runs it, with files next to it."""

    @property
    def description(self) -> str:
        """The machine or emulator, for reports."""
        ...

    def write_file(self, name: str, content: bytes) -> str:
        """Write a file; return its path for the program."""
        ...

    def get_path(self, name: str) -> str:
        """Return the path of a file that the program will write."""
        ...

    def execute(self, arguments: Sequence[str], runs: int, max_bytes: int) -> ProcessOutcome:
        """Run the program until it ends with success.

        Raises:
            UserError: The program fails (E0652), or refuses its input (E0653).
        """
        ...

    def read_file(self, name: str, max_bytes: int) -> bytes:
        """Return the first bytes of a file that the program wrote.

        Raises:
            UserError: The program did not write it (E0652).
        """
        ...

    def create_error(self, message: str, label: str = "") -> UserError:
        """Return the error of a program that misbehaves (E0652)."""
        ...


@dataclass(frozen=True, slots=True)
class LocalHost:
    """A scratch folder on this machine."""

    process: RunnerProcess

    @property
    def description(self) -> str:
        """Return this machine, with its instruction set if one was chosen, or the emulator."""
        machine = self.process.machine
        # With options for the emulator (the counting plugin), even native programs run in it.
        emulated = self.process.options or not machine.native
        if emulated:
            return machine.qemu
        return f"this machine as {machine.isa}" if machine.isa else "this machine"

    def write_file(self, name: str, content: bytes) -> str:
        """Write a file."""
        (self.process.folder / name).write_bytes(content)
        return self.get_path(name)

    def get_path(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.process.folder / name)

    def execute(self, arguments: Sequence[str], runs: int, max_bytes: int) -> ProcessOutcome:
        """Run the program as `tcc run` does."""
        return self.process.run_to_end(*arguments, inputs=runs, max_bytes=max_bytes)

    def read_file(self, name: str, max_bytes: int) -> bytes:
        """Read a file."""
        try:
            with regular_files.open_file(self.process.folder / name) as file:
                return file.read(max_bytes)
        except OSError:
            raise self.create_error(f"the program did not write the file {name}") from None

    def create_error(self, message: str, label: str = "") -> UserError:
        """Return the error, located at the program."""
        return self.process.create_error(message, label)


@dataclass(frozen=True, slots=True)
class BoardHost:
    """A folder on a board, with a copy of the program."""

    board: Board
    program: Path
    remote_program: str

    @property
    def description(self) -> str:
        """Return the name of the connection to the board."""
        return self.board.link.name

    def write_file(self, name: str, content: bytes) -> str:
        """Copy a file to the board."""
        return self.board.send(name, content)

    def get_path(self, name: str) -> str:
        """Return the path of a file on the board."""
        return f"{self.board.folder}/{name}"

    def execute(self, arguments: Sequence[str], runs: int, max_bytes: int) -> ProcessOutcome:
        """Run the program on the board; only its time is limited there."""
        outcome = self.board.execute(
            [self.remote_program, *arguments], START_SECONDS + SECONDS_PER_INPUT * runs
        )
        if outcome.code == UNSIGNED:
            raise fail_unsigned(make_file_span(str(self.program)), outcome.err)
        if outcome.code:
            error_lines = outcome.err.decode(errors="replace").strip().splitlines()
            label = error_lines[-1][:160] if error_lines else ""
            raise self.create_error(
                f"the program failed on the board with status {outcome.code}", label
            )
        return outcome

    def read_file(self, name: str, max_bytes: int) -> bytes:
        """Copy a file from the board."""
        # Truncated here, because nothing on the board limits its size.
        return self.board.fetch(name)[:max_bytes]

    def create_error(self, message: str, label: str = "") -> UserError:
        """Return the error, located at the program."""
        return fail("E0652", message, make_file_span(str(self.program)), label=label)


def write_input(
    host: ProgramHost, network_input: Input, workload: Workload, name: str
) -> tuple[str, ...]:
    """Write the input where the program runs; return the runner's arguments for it."""
    if workload.image is not None:
        return (host.write_file(f"{name}.ppm", encode_ppm(workload.image)),)
    kind = "u1" if network_input.type.dtype is DType.U8 else "<f4"
    tensor = np.ascontiguousarray(workload.tensor, kind)
    return ("--tensor", host.write_file(f"{name}.bin", tensor.tobytes()))
