"""Backends whose packages have a file that runs here: a protocol beside those of `backend`."""

from typing import Protocol, runtime_checkable

from tcc.compiler.ir.backend import Backend
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.target import Target


@runtime_checkable
class PackageSimulator(Protocol):
    """A backend whose packages hold a network that a runtime of this machine computes as well."""

    def simulator(self, target: Target) -> tuple[Backend, str] | None:
        """Return what runs that network, and its file in the artifact; None where there is none.

        The backend is a `Runner` of one target of the same name, which runs here. What it gives is
        what the file means: a maker's tool may make something else of it.
        """
        ...


def find_simulator(device: Device) -> Device | None:
    """Return what runs a package's network here; the maker's tool and the board are elsewhere."""
    if not isinstance(device.backend, PackageSimulator):
        return None
    simulation = device.backend.simulator(device.target)
    return simulation and Device(
        simulation[0], simulation[0].targets[0], simulated_file=simulation[1]
    )
