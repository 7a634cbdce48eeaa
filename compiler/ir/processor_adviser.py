"""Backends that know what this machine's processor makes of a precision."""

from typing import Protocol, runtime_checkable

from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.target import Target


@runtime_checkable
class ProcessorAdviser(Protocol):
    """A backend whose artifacts this machine's processor may not run as fast as others do."""

    def advice(self, target: Target, precision: Precision) -> str:
        """Return what whoever runs them here should know; empty if there is nothing."""
        ...
