"""How the artifacts of a target are measured: counted or timed, alone or by a program of theirs."""

from typing import Protocol, runtime_checkable

from tcc.compiler.ir.device import Device
from tcc.compiler.ir.target import Target


@runtime_checkable
class InstructionCounter(Protocol):
    """A measurer that counts instructions of targets that do not run here by themselves."""

    def counts(self, target: Target) -> bool:
        """Return whether it counts one run of a target's artifacts instead of timing many."""
        ...


@runtime_checkable
class BoardRunnerUser(Protocol):
    """A board measurer whose artifacts are run by a program that the user brings."""

    @property
    def board_runner(self) -> str:
        """The name of that program."""
        ...


def is_counted(device: Device) -> bool:
    """Return whether measuring here counts the instructions of one run instead of timing many."""
    backend = device.backend
    return isinstance(backend, InstructionCounter) and backend.counts(device.target)


def needs_board_runner(device: Device) -> bool:
    """Return whether artifacts run on a board by a program that the user brings."""
    return isinstance(device.backend, BoardRunnerUser)
