"""ONNX Runtime for browsers: fetched by npm once, of one version, and kept.

The files are those of the package `onnxruntime-web`: its smallest build that knows all operators,
which is WebAssembly with SIMD. Whatever they come from, they are taken by their SHA-256.
"""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tcc.compiler.support import atomic_files, regular_files, scratch_folders, user_cache
from tcc.compiler.support.external_tools import FETCHED, MissingTool, Tool

PACKAGE = "onnxruntime-web"
VERSION = FETCHED[PACKAGE]
ARCHIVE = f"{PACKAGE}-{VERSION}.tgz"
FOLDER = "onnxruntime"
"""The folder of its files in a page."""
FILES: Mapping[str, str] = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""The files that are taken of it, and the SHA-256 of each."""
MAX_BYTES = 1 << 26
"""Most bytes that are read of a file or an archive of them."""
PATIENCE = 300
"""Seconds that npm may take."""


def tool() -> Tool:
    """Return it as a tool: it is here if files of it are kept, or npm can fetch them."""
    try:
        kept = [_place() / VERSION, _place() / ARCHIVE]
    except OSError:
        kept = []
    here = any(path.exists() for path in kept) or shutil.which("npm")
    return _tool(VERSION if here else None)


def files() -> Mapping[str, bytes]:
    """Return its files by their names, fetched where they are not kept.

    Raises:
        MissingTool: They are not here, and npm is not here or cannot fetch them.
    """
    kept = _kept()
    if kept is not None:
        return kept
    if shutil.which("npm") is None:
        raise MissingTool(_tool(None), "npm, which would fetch it, is not here")
    with scratch_folders.folder() as folder:
        _fetch(folder)
        found = _unpacked(folder / ARCHIVE)
    if found is None:
        raise MissingTool(_tool(None), "what npm fetched is not the package that tcc knows")
    atomic_files.write_tree(_place() / VERSION, found, frozenset(), _replaceable)
    return found


def _tool(version: str | None) -> Tool:
    return Tool(PACKAGE, "build pages for browsers", version)


def _place() -> Path:
    return user_cache.folder(PACKAGE)


def _replaceable(_: Path) -> None:
    """Let what is kept be replaced: it is not whole."""


def _kept() -> Mapping[str, bytes] | None:
    """Return the files that are kept, by themselves or as npm's archive; None if they are not."""
    try:
        place = _place()
        found = {name: _read(place / VERSION / name) for name in FILES}
        return found if _known(found) else None
    except FileNotFoundError:
        return _unpacked(place / ARCHIVE)
    except OSError:
        return None


def _unpacked(archive: Path) -> Mapping[str, bytes] | None:
    """Return the files of npm's archive; None if it is not that of the version."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_read(archive)), mode="r:gz") as opened:
            for name in FILES:
                member = opened.extractfile(f"package/dist/{name}")
                found[name] = member.read(MAX_BYTES) if member else b""
    except (OSError, KeyError, tarfile.TarError, EOFError):
        return None
    return found if _known(found) else None


def _known(found: Mapping[str, bytes]) -> bool:
    return all(hashlib.sha256(found[name]).hexdigest() == FILES[name] for name in FILES)


def _read(path: Path) -> bytes:
    with regular_files.opened(path) as file:
        return file.read(MAX_BYTES)


def _fetch(folder: Path) -> None:
    """Have npm bring its archive into a folder, from the registry that the user set.

    Raises:
        MissingTool: It cannot.
    """
    # Nothing that is fetched is run, and npm looks for no newer npm.
    words = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts"]
    environment = {**os.environ, "npm_config_update_notifier": "false"}
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, timeout=PATIENCE, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingTool(_tool(None), f"npm cannot fetch it: {type(error).__name__}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").split("\n")
        lines = [line.strip() for line in said if "npm error" in line.lower()]
        why = "; ".join(lines[:2])[:200] or f"it ends with {done.returncode}"
        raise MissingTool(_tool(None), f"npm cannot fetch it: {why}")
