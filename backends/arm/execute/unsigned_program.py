"""A program without the check of its signature, to run the library of one that is not signed yet.

It is linked in a scratch folder from the artifact's own object and sources, and leaves with that
folder: no program that a bundle holds can skip its check.
"""

from pathlib import Path

from tcc.backends.arm.codegen import link, runner_signature
from tcc.backends.arm.machine import PROGRAM, Machine

NO_CHECK = "static void check_signature(void) {}\n"
"""What stands in place of the check."""


def remove_check(workspace: Path) -> None:
    """Replace the check in a workspace's sources, where they have one."""
    header = workspace / "src" / runner_signature.CHECK_HEADER
    if header.exists():
        header.write_text(NO_CHECK, "utf-8")
        for unit in runner_signature.UNITS:
            (workspace / "src" / unit).unlink()


def link_unsigned(machine: Machine, workspace: Path, name: str) -> Path:
    """Link `NAME.o` in a workspace with a runner that checks nothing; return the program.

    Raises:
        ZigError: It does not link.
    """
    remove_check(workspace)
    link.link_program(workspace, machine, name)
    return workspace / f"{name}{PROGRAM}"
