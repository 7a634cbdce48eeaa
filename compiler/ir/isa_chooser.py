"""Backends whose programs choose among instruction sets: a protocol beside those of `backend`."""

from typing import Protocol, Self, runtime_checkable

from tcc.compiler.ir.target import Target


@runtime_checkable
class IsaChooser(Protocol):
    """A backend that may be told which instructions its programs use here."""

    def with_isa(self, target: Target, name: str) -> Self:
        """Return the same, whose programs use the instruction set of a name.

        Raises:
            UserError: There is no such set, or no choice for the target (E0601). What this
                processor lacks is refused once a program runs.
        """
        ...
