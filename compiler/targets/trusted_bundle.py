"""A bundle for a command that runs it: its program was built here, is signed, or is let run."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.ir.device import Device


def load(
    folder: Path, *, trust: bool, key: Path | None = None, isa: str | None = None
) -> "tuple[Bundle, Device]":
    """Return the bundle in a folder, whose program may run, and its target.

    Args:
        folder: The bundle.
        trust: Whether the user lets it run.
        key: The public key of who is to have signed it, if anybody is.
        isa: The instruction set that its program is to use; None for the best that there is.

    Raises:
        MissingTool: What verifies signatures is not installed.
        Untrusted: It holds a program that was not built here, and nobody says that it may run.
        UserError: As `devices.load` and `Device.with_isa`.
    """
    from tcc.compiler.bundle import artifact_runs
    from tcc.compiler.targets import devices

    policy = devices.create_signature_policy(key, any_key=trust)
    bundle, device = devices.load_bundle(folder, policy)
    device = device if isa is None else device.with_isa(isa)
    if key is not None:
        return replace(bundle, trusted=True), device
    if trust:
        return artifact_runs.mark_trusted(bundle, device), device
    try:
        artifact_runs.check_trust(bundle, device)
    except artifact_runs.Untrusted as error:
        if not _accept_program(error):
            raise
        return artifact_runs.mark_trusted(bundle, device), device
    # Looked at once: a signature is of all the files.
    return replace(bundle, trusted=True), device


def _accept_program(error: Exception) -> bool:
    """Whether somebody at a terminal lets a program run, once told what that means."""
    # Both ends: a question that nobody reads, or that a file answers, is none.
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return False
    typer.echo(str(error), err=True)
    return typer.confirm("run it, now and later?", default=False, err=True)
