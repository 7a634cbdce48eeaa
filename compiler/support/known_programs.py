"""The programs that were built here or that the user let run, by the SHA-256 of their files."""

from collections.abc import Iterable
from pathlib import Path

from tcc.compiler.support.digest_folder import DigestFolder

_PROGRAMS = DigestFolder("programs")


def folder() -> Path | None:
    """Return the folder that notes them; it may not be there yet; None where there is no home."""
    return _PROGRAMS.path


def is_known(digest: str) -> bool:
    """Whether a program of this SHA-256, in hex, may run."""
    return _PROGRAMS.has(digest)


def add(digests: Iterable[str]) -> None:
    """Let programs run from now on; where that cannot be noted, `obstacle` says why."""
    _PROGRAMS.add(digests)


def obstacle() -> str:
    """Return why the folder is not believed, or cannot be written to; nothing where it is fine."""
    return _PROGRAMS.obstacle()
