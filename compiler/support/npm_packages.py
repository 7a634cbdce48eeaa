"""Packages of npm that pages hold a copy of: fetched once, of one version, and kept.

Whatever their files come from, they are taken by their SHA-256.
"""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tcc.compiler.support import atomic_files, regular_files, user_folders
from tcc.compiler.support.external_tools import FETCHED, MissingTool, Tool

MAX_BYTES = 1 << 26
"""Most bytes that are read of a file or an archive of them."""
QUIET = MappingProxyType(
    {f"npm_config_{name}": "false" for name in ("audit", "fund", "update_notifier")}
)
"""Settings without which npm asks its registry for more than a package."""
PATIENCE = 300
"""Seconds that npm may take."""


@dataclass(frozen=True)
class NpmPackage:
    """A package that `external_tools.FETCHED` names.

    `needed_for` completes "is needed to ..."; `hashes` has the SHA-256 of each file that is taken,
    by its path in the package. Files go by the last parts of these paths.
    """

    name: str
    needed_for: str
    hashes: Mapping[str, str]

    @property
    def version(self) -> str:
        """The version that is taken."""
        return FETCHED[self.name]

    @property
    def archive(self) -> str:
        """The name that `npm pack` gives its archive."""
        return f"{self.name}-{self.version}.tgz"

    def tool(self) -> Tool:
        """Return it as a tool: it is here if files of it are kept, or npm can fetch them."""
        try:
            kept = [self._place() / self.version, self._place() / self.archive]
        except OSError:
            kept = []
        here = any(path.exists() for path in kept) or shutil.which("npm")
        return self._tool(self.version if here else None)

    def files(self) -> Mapping[str, bytes]:
        """Return its files by their names, fetched where they are not kept.

        Raises:
            MissingTool: They are not here, and npm is not here or cannot fetch them.
        """
        kept = self._kept()
        if kept is not None:
            return kept
        if shutil.which("npm") is None:
            raise MissingTool(self._tool(None), "npm, which would fetch it, is not here")
        with atomic_files.scratch_folder() as folder:
            self._fetch(folder)
            found = self._unpacked(folder / self.archive)
        if found is None:
            raise MissingTool(
                self._tool(None), "what npm fetched is not the package that tcc knows"
            )
        place = self._place() / self.version
        atomic_files.write_tree(place, found, frozenset(), _replaceable)
        return found

    def _tool(self, version: str | None) -> Tool:
        return Tool(self.name, self.needed_for, version)

    def _place(self) -> Path:
        return user_folders.cache_folder(self.name)

    def _names(self) -> Mapping[str, str]:
        """Return the path of each file in the package by its name."""
        return {path.rpartition("/")[2]: path for path in self.hashes}

    def _kept(self) -> Mapping[str, bytes] | None:
        """Return the files that are kept, themselves or as npm's archive; None if they are not."""
        try:
            place = self._place()
            found = {name: _read(place / self.version / name) for name in self._names()}
            return found if self._known(found) else None
        except FileNotFoundError:
            return self._unpacked(place / self.archive)
        except OSError:
            return None

    def _unpacked(self, archive: Path) -> Mapping[str, bytes] | None:
        """Return the files of npm's archive; None if it is not that of the version."""
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(fileobj=io.BytesIO(_read(archive)), mode="r:gz") as opened:
                for name, path in self._names().items():
                    member = opened.extractfile(f"package/{path}")
                    found[name] = member.read(MAX_BYTES) if member else b""
        except (OSError, KeyError, tarfile.TarError, EOFError):
            return None
        return found if self._known(found) else None

    def _known(self, found: Mapping[str, bytes]) -> bool:
        return all(
            hashlib.sha256(found[name]).hexdigest() == self.hashes[path]
            for name, path in self._names().items()
        )

    def _fetch(self, folder: Path) -> None:
        """Have npm bring its archive into a folder, from the registry that the user set.

        Raises:
            MissingTool: It cannot.
        """
        # Nothing that is fetched is run, and npm asks for nothing but the package.
        words = ["npm", "pack", f"{self.name}@{self.version}", "--silent", "--ignore-scripts"]
        environment = os.environ | QUIET
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, timeout=PATIENCE,
                check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            why = f"npm cannot fetch it: {type(error).__name__}"
            raise MissingTool(self._tool(None), why) from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").split("\n")
            lines = [line.strip() for line in said if "npm error" in line.lower()]
            why = "; ".join(lines[:2])[:200] or f"it ends with {done.returncode}"
            raise MissingTool(self._tool(None), f"npm cannot fetch it: {why}")


def _replaceable(_: Path) -> None:
    """Let what is kept be replaced: it is not whole."""


def _read(path: Path) -> bytes:
    with regular_files.opened(path) as file:
        return file.read(MAX_BYTES)
