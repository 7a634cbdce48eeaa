"""Set the user's folders of a case: trusted keys, recorded state and the cache."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass
class CaseFolders:
    """The environment variables of the next case; a finished case has no folder any more."""

    folder: Path | None = None
    names: tuple[str, ...] = ()

    def set(self, folder: Path, *names: str) -> None:
        """Set folders in `folder` for the next forked process, by variable."""
        self.folder, self.names = folder, names

    def enter(self) -> None:
        """Use the folders in a process that was just forked."""
        if self.folder and self.folder.is_dir():
            for name in self.names:
                os.environ[name] = str(self.folder / name.lower())
            if "TCC_CACHE" in self.names:
                os.environ.pop("TCC_CACHE_LIMIT", None)  # it would disable the cache


CASE_FOLDERS = CaseFolders()
os.register_at_fork(after_in_child=CASE_FOLDERS.enter)
