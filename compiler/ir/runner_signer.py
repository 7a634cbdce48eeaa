"""Backends whose programs start only beside a signature that they check themselves."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from tcc.compiler.ir.device import Device
from tcc.compiler.ir.target import Target
from tcc.compiler.support.diagnostics import fail, whole_file


@dataclass(frozen=True, slots=True)
class RunnerSignature:
    """The signature that an artifact's program asks for when it starts: Ed25519, 64 bytes.

    `file` is its name beside the program, `public_key` the 32 bytes of the key that is compiled
    into the program, and `message` the bytes to sign, for the files as they are now.
    """

    file: str
    public_key: bytes
    message: bytes


@runtime_checkable
class RunnerSigner(Protocol):
    """A backend that builds programs that check a signature."""

    signer: bytes | None
    """The public key of whoever signs what it builds; None where programs check nothing."""

    def with_signer(self, target: Target, public_key: bytes) -> Self:
        """Return the same, whose programs start only beside a signature by this key.

        What it runs are programs without the check, linked with the same library: what it builds
        is not signed yet.
        """
        ...

    def runner_signature(self, target: Target, folder: Path) -> RunnerSignature | None:
        """Return what the program in a folder asks for; None where it asks for nothing.

        Raises:
            UserError: The artifact is damaged (E0652).
        """
        ...


def find_signer(device: Device) -> bytes | None:
    """Return the public key whose signature the programs of a target ask for, if any."""
    return device.backend.signer if isinstance(device.backend, RunnerSigner) else None


def with_signer(device: Device, public_key: bytes) -> Device:
    """Return a target whose programs start only beside a signature by a key.

    Raises:
        UserError: What is built for it has no program that checks one (E0601).
    """
    if not isinstance(device.backend, RunnerSigner):
        message = f"what is built for {device.name} has no program that checks a signature"
        at = whole_file("command line: --require-signature")
        raise fail("E0601", message, at, help="build it without, and sign the bundle")
    return replace(device, backend=device.backend.with_signer(device.target, public_key))


def find_signature(device: Device, folder: Path) -> RunnerSignature | None:
    """Return the signature that the program of the artifact in a folder asks for, if any.

    Raises:
        UserError: The artifact is damaged (E0652).
    """
    if isinstance(device.backend, RunnerSigner):
        return device.backend.runner_signature(device.target, folder)
    return None
