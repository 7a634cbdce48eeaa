"""npm packages that are copied into HTML pages: fetched once, in one version, and cached.

Wherever the files come from, they are accepted by their SHA-256.
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
"""Bytes of a file, or of an archive of them, that are read."""
QUIET_SETTINGS = MappingProxyType(
    {f"npm_config_{name}": "false" for name in ("audit", "fund", "update_notifier")}
)
"""Settings that keep npm from asking its registry for anything but the package."""
TIMEOUT_SECONDS = 300
"""Time limit for npm, in seconds."""


@dataclass(frozen=True)
class NpmPackage:
    """A package that `external_tools.NPM_VERSIONS` names.

    `needed_for` completes "is needed to ..."; `hashes` has the SHA-256 of each file that is used,
    by its path in the package. Files are named by the last part of their path.
    """

    name: str
    needed_for: str
    hashes: Mapping[str, str]

    @property
    def version(self) -> str:
        """The version that is used."""
        return NPM_VERSIONS[self.name]

    @property
    def archive(self) -> str:
        """The name of the archive that `npm pack` writes."""
        return f"{self.name}-{self.version}.tgz"

    def find_tool(self) -> Tool:
        """Return it as a tool: available if its files are cached, or if npm can fetch them."""
        try:
            cached_paths = [self._get_folder() / self.version, self._get_folder() / self.archive]
        except OSError:
            cached_paths = []
        is_available = any(path.exists() for path in cached_paths) or shutil.which("npm")
        return self._make_tool(self.version if is_available else None)

    def load_files(self) -> Mapping[str, bytes]:
        """Return its files by name, fetched if they are not cached.

        Raises:
            MissingTool: They are not cached, and npm is missing or cannot fetch them.
        """
        cached_files = self._read_cached()
        if cached_files is not None:
            return cached_files
        if shutil.which("npm") is None:
            raise MissingTool(self._make_tool(None), "npm, which can fetch it, is not installed")
        with atomic_files.create_scratch_folder() as folder:
            self._fetch(folder)
            fetched_files = self._unpack_archive(folder / self.archive)
        if fetched_files is None:
            raise MissingTool(
                self._make_tool(None), "the package that npm fetched has unexpected content"
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
        """Return the cached files, unpacked or in npm's archive; None if they are not cached."""
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
        """Return the files of npm's archive; None if it is not the expected version."""
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
        """Have npm write its archive into a folder, from the registry that the user configured.

        Raises:
            MissingTool: npm fails.
        """
        # No fetched script is run, and npm asks for nothing but the package.
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
            reason = "; ".join(lines[:2])[:200] or f"npm exits with {completed.returncode}"
            raise MissingTool(self._make_tool(None), f"npm cannot fetch it: {reason}")


def _allow_replacing(_: Path) -> None:
    """Allow replacing cached files: they are incomplete."""


def _read_bytes(path: Path) -> bytes:
    with regular_files.open_file(path) as file:
        return file.read(MAX_BYTES)
