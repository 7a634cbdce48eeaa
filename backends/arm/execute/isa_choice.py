"""The instruction set that a program is told to use, in place of the best that there is."""

from tcc.backends.arm.machine import Machine
from tcc.backends.arm.micro.isas import ISAS
from tcc.compiler.support.diagnostics import Span, UserError, fail, whole_file

REFUSED = b"--isa: takes one that this processor has"
"""What a program says of a set that this processor lacks: `set_isa` of `runtime/runner.c`."""


def words(machine: Machine) -> tuple[str, ...]:
    """Return the words that tell a program of the choice."""
    return ("--isa", machine.isa) if machine.isa else ()


def check(machine: Machine, name: str) -> None:
    """Refuse a name that no set has, and a machine whose programs choose none (E0601)."""
    if not machine.variants:
        message = f"what is built for {machine.target.name} chooses no instruction set"
        raise fail("E0601", message, _typed())
    names = [isa.name for isa in ISAS]
    if name not in names:
        message, help = "there is no such instruction set", f"say one of {', '.join(names)}"
        raise fail("E0601", message, _typed(), label=name[:40], help=help)


def lacking(machine: Machine, said: bytes) -> UserError | None:
    """Return the error of a set that this processor lacks, if a program refuses it for that."""
    if not machine.isa or REFUSED not in said:
        return None
    message, help = "this processor has no such instructions", "leave it out for the best it has"
    return fail("E0601", message, _typed(), label=machine.isa, help=help)


def _typed() -> Span:
    return whole_file("command line: --isa")
