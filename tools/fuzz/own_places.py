"""Folders of the user's that a case brings with it: what he trusts, what was noted, the cache."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class CaseFolders:
    """The variables of the next case; a case that is over has no folder any more."""

    folder: Path | None = None
    names: tuple[str, ...] = ()

    def set(self, folder: Path, *names: str) -> None:
        """Have the process that is forked next take folders in `folder`, by variable."""
        self.folder, self.names = folder, names

    def enter(self) -> None:
        """Take them, in a process that was just forked."""
        if self.folder and self.folder.is_dir():
            for name in self.names:
                os.environ[name] = str(self.folder / name.lower())
            if "TCC_CACHE" in self.names:
                os.environ.pop("TCC_CACHE_LIMIT", None)  # by which others build anew


CASE_FOLDERS = CaseFolders()
os.register_at_fork(after_in_child=CASE_FOLDERS.enter)
