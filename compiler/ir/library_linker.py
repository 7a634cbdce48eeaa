"""Backends whose artifacts have libraries: a protocol beside those of `backend`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from tcc.compiler.ir.target import Target


@dataclass(frozen=True, slots=True)
class LinkedLibrary:
    """A library of an artifact, and what linking with it showed.

    One of the others is set. `program` is a folder whose program uses the library, and runs as the
    artifact does. `same_bytes` is what linking gave again, byte for byte. `problem` is why it is no
    library of this artifact, and `unverified` why nothing is known of it here.
    """

    file: str
    program: Path | None = None
    same_bytes: str = ""
    problem: str = ""
    unverified: str = ""


@runtime_checkable
class LibraryLinker(Protocol):
    """A backend whose artifacts have libraries that others build with."""

    def link_libraries(
        self, target: Target, folder: Path, scratch: Path, *, same_tools: bool
    ) -> Iterator[LinkedLibrary]:
        """Link a program with each library of the artifact in `folder`.

        Args:
            target: One of the backend's.
            folder: Where the artifact's files are.
            scratch: An empty folder for what is made of them.
            same_tools: Whether the artifact was linked by the tools that are here, so that linking
                gives the same bytes.
        """
        ...
