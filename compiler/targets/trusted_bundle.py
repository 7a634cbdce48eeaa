"""Load a bundle for a command that runs it, after checking that its program may run."""

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
    """Return the bundle in a folder, with a program that may run, and its target.

    Args:
        folder: The bundle.
        trust: Whether the user allows it to run.
        key: The public key that must have signed it, if any.
        isa: The instruction set for its program; None for the best available one.

    Raises:
        MissingTool: The package that verifies signatures is not installed.
        Untrusted: Its program was not built here, and the user does not allow it to run.
        UserError: As `devices.load_bundle` and `Device.with_isa`.
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
    # Checked once here: a valid signature covers all files.
    return replace(bundle, trusted=True), device


def _accept_program(error: Exception) -> bool:
    """Ask the user on a terminal whether a program may run; false without a terminal."""
    # Both streams: the user must see the question, and a file must not answer it.
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return False
    typer.echo(str(error), err=True)
    return typer.confirm("allow it to run, now and later?", default=False, err=True)
