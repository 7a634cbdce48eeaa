"""What was noted by its SHA-256: a folder of empty files in the user's state, each called by it.

It is there or it is not, however many processes write and wherever one is killed.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tcc.compiler.support import atomic_files, user_folders
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import UserError


@dataclass(frozen=True, slots=True)
class DigestFolder:
    """The folder `~/.local/state/tcc/NAME`; others than the user can note nothing in it."""

    name: str

    @property
    def path(self) -> Path | None:
        """The folder, which may not be there yet; None where there is no home."""
        return user_folders.folder("XDG_STATE_HOME", self.name)

    def has(self, digest: str) -> bool:
        """Whether a SHA-256, in hex, was noted."""
        folder = self.path
        return (
            folder is not None and not user_folders.obstacle(folder) and (folder / digest).is_file()
        )

    def add(self, digests: Iterable[str]) -> None:
        """Note SHA-256s; where that cannot be done, `obstacle` says why."""
        folder, names = self.path, tuple(digests)
        if folder is None or not names:
            return
        try:
            user_folders.make(folder)
            if not user_folders.obstacle(folder):
                for name in names:
                    # Nothing in it could be half-written: the name is all that counts.
                    atomic_files.write_file(folder / name, b"")
        except (OSError, UserError, MachineError):
            return  # a build is not to fail for it: it has done what was asked

    def obstacle(self) -> str:
        """Return why the folder is not believed, or cannot be written to; nothing if it is fine."""
        folder = self.path
        if folder is None:
            return "there is no home to note in what was built here: set XDG_STATE_HOME"
        if folder.exists() and not os.access(folder, os.W_OK):
            return f"nothing can be noted in {folder}"
        return user_folders.obstacle(folder)
