"""Backends whose programs start only beside a signature that they check themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from tcc.compiler.ir.target import Target


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
