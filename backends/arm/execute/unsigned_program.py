"""A program without the check of its signature, to run the library of one that is not signed yet.

It is linked in a scratch folder from the artifact's own object and sources, and leaves with that
folder: no program that a bundle holds can skip its check.
"""

from pathlib import Path

from tcc.backends.arm.codegen import c_header, link, runner_signature
from tcc.backends.arm.machine import PROGRAM, Machine


def remove_check(workspace: Path, name: str) -> None:
    """Replace the one source in a workspace that calls the check by that of other programs."""
    header = runner_signature.POINT_HEADER
    text = c_header.runtime(name, frozenset())[header]
    (workspace / "src" / header).write_text(text, "utf-8")
    for unit in runner_signature.UNITS:
        (workspace / "src" / unit).unlink(missing_ok=True)


def link_unsigned(machine: Machine, workspace: Path, name: str) -> Path:
    """Link `NAME.o` in a workspace with a runner that checks nothing; return the program.

    Raises:
        ZigError: It does not link.
    """
    remove_check(workspace, name)
    link.link_program(workspace, machine, name)
    return workspace / f"{name}{PROGRAM}"
