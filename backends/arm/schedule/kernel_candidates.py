"""Kernels that can compute the same, and which of them costs least on a core."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tcc.backends.arm.kernels.base import Kernel, KernelCall
from tcc.backends.arm.kernels.micro_winograd import MicroWinograd
from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro import core_costs
from tcc.backends.arm.schedule import kernel_amounts

LEAST_SAVED = 0.1
"""Share of the costs for which results may be rounded in more steps, by Winograd's method."""


@dataclass(frozen=True, slots=True)
class KernelCandidate:
    """A kernel that can compute something, and what makes its call, with weights as it reads them.

    Weights are brought into the order of the kernel that is called, and of no other.
    """

    kernel: Kernel
    call: Callable[[], KernelCall]


def cost(kernel: Kernel, machine: Machine) -> float:
    """Return what a kernel costs on a machine's core, in what its costs are counted in.

    Raises:
        MachineError: Its costs on this core are not known (E0604).
    """
    name, amounts = kernel_amounts.of(kernel)
    unit_costs = machine.costs.kernels.get(name)
    if unit_costs is None:
        raise core_costs.missing(f"kernel {name!r} of core {machine.core!r}", machine.target.name)
    return sum(unit_costs[unit] * amount for unit, amount in amounts.items())


def cheapest(candidates: Iterable[KernelCandidate], machine: Machine) -> KernelCandidate:
    """Return the candidate that costs least, of those that cost the same the first."""

    def weighed(candidate: KernelCandidate) -> float:
        found = cost(candidate.kernel, machine)
        return found / (1 - LEAST_SAVED) if isinstance(candidate.kernel, MicroWinograd) else found

    return min(candidates, key=weighed)
