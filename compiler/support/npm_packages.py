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
from tcc.compiler.support.external_tools import NPM_VERSIONS, MissingTool, Tool

MAX_BYTES = 1 << 26
"""Most bytes that are read of a file or an archive of them."""
QUIET_SETTINGS = MappingProxyType(
    {f"npm_config_{name}": "false" for name in ("audit", "fund", "update_notifier")}
)
"""Settings without which npm asks its registry for more than a package."""
TIMEOUT_SECONDS = 300
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
        return NPM_VERSIONS[self.name]

    @property
    def archive(self) -> str:
        """The name that `npm pack` gives its archive."""
        return f"{self.name}-{self.version}.tgz"

    def find_tool(self) -> Tool:
        """Return it as a tool: it is here if files of it are kept, or npm can fetch them."""
        try:
            cached_paths = [self._get_folder() / self.version, self._get_folder() / self.archive]
        except OSError:
            cached_paths = []
        is_available = any(path.exists() for path in cached_paths) or shutil.which("npm")
        return self._make_tool(self.version if is_available else None)

    def load_files(self) -> Mapping[str, bytes]:
        """Return its files by their names, fetched where they are not kept.

        Raises:
            MissingTool: They are not here, and npm is not here or cannot fetch them.
        """
        cached_files = self._read_cached()
        if cached_files is not None:
            return cached_files
        if shutil.which("npm") is None:
            raise MissingTool(self._make_tool(None), "npm, which would fetch it, is not here")
        with atomic_files.create_scratch_folder() as folder:
            self._fetch(folder)
            fetched_files = self._unpack_archive(folder / self.archive)
        if fetched_files is None:
            raise MissingTool(
                self._make_tool(None), "what npm fetched is not the package that tcc knows"
            )
        cache_path = self._get_folder() / self.version
        atomic_files.write_tree(cache_path, fetched_files, frozenset(), _allow_replacing)
        return fetched_files

    def _make_tool(self, version: str | None) -> Tool:
        return Tool(self.name, self.needed_for, version)

    def _get_folder(self) -> Path:
        return user_folders.prepare_cache_folder(self.name)

    def _map_names_to_paths(self) -> Mapping[str, str]:
        """Return the path of each file in the package by its name."""
        return {path.rpartition("/")[2]: path for path in self.hashes}

    def _read_cached(self) -> Mapping[str, bytes] | None:
        """Return the files that are kept, themselves or as npm's archive; None if they are not."""
        try:
            cache_folder = self._get_folder()
            cached_files = {
                name: _read_bytes(cache_folder / self.version / name)
                for name in self._map_names_to_paths()
            }
            return cached_files if self._matches_hashes(cached_files) else None
        except FileNotFoundError:
            return self._unpack_archive(cache_folder / self.archive)
        except OSError:
            return None

    def _unpack_archive(self, archive: Path) -> Mapping[str, bytes] | None:
        """Return the files of npm's archive; None if it is not that of the version."""
        contents: dict[str, bytes] = {}
        try:
            with tarfile.open(fileobj=io.BytesIO(_read_bytes(archive)), mode="r:gz") as opened:
                for name, path in self._map_names_to_paths().items():
                    member = opened.extractfile(f"package/{path}")
                    contents[name] = member.read(MAX_BYTES) if member else b""
        except (OSError, KeyError, tarfile.TarError, EOFError):
            return None
        return contents if self._matches_hashes(contents) else None

    def _matches_hashes(self, contents: Mapping[str, bytes]) -> bool:
        return all(
            hashlib.sha256(contents[name]).hexdigest() == self.hashes[path]
            for name, path in self._map_names_to_paths().items()
        )

    def _fetch(self, folder: Path) -> None:
        """Have npm bring its archive into a folder, from the registry that the user set.

        Raises:
            MissingTool: It cannot.
        """
        # Nothing that is fetched is run, and npm asks for nothing but the package.
        command = ["npm", "pack", f"{self.name}@{self.version}", "--silent", "--ignore-scripts"]
        environment = os.environ | QUIET_SETTINGS
        try:
            completed = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT_SECONDS,
                check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"npm cannot fetch it: {type(error).__name__}"
            raise MissingTool(self._make_tool(None), reason) from None
        if completed.returncode:
            error_lines = completed.stderr.decode(errors="replace").split("\n")
            lines = [line.strip() for line in error_lines if "npm error" in line.lower()]
            reason = "; ".join(lines[:2])[:200] or f"it ends with {completed.returncode}"
            raise MissingTool(self._make_tool(None), f"npm cannot fetch it: {reason}")


def _allow_replacing(_: Path) -> None:
    """Let what is kept be replaced: it is not whole."""


def _read_bytes(path: Path) -> bytes:
    with regular_files.open_file(path) as file:
        return file.read(MAX_BYTES)
