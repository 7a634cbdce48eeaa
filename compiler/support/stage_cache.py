"""The stage cache: what stages of a build gave before, so that the next build need not do it again.

An entry is a plain file, `<stage>/<key>`, where the key is the SHA-256 of all that the stage is
given. It begins with a seal of the rest by a key of the user's (`cache_seal`). The first line of
the rest names stage, key and parts, and its other bytes are the parts. What has no such seal, since
somebody else wrote it or its writer was killed, is removed and made again. Each use sets an entry's
time; where all take more than the limit, those go that were used longest ago.
"""

import hashlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import Any

from tcc.compiler.support import atomic_files, cpu, regular_files, user_folders
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

STAGES: Mapping[str, str] = {
    "calibration": "what images showed of a network",
    "integers": "integer programs, and how they compare with floats",
    "bundle": "what was built for a target",
    "size": "what a target's files take in floats",
    "replay": "goldens that an artifact gave on this machine",
}
"""The stages that keep something, and what."""
FOLDER_VARIABLE, LIMIT_VARIABLE = "TCC_CACHE", "TCC_CACHE_LIMIT"
"""The variables that name another folder and another limit."""
DEFAULT_LIMIT = 1_000_000_000
"""Bytes that all entries may take together."""
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_KEY = re.compile("[0-9a-f]{64}")

Parts = Mapping[str, bytes]
"""What a stage gave: bytes by name."""


@dataclass(frozen=True, slots=True)
class StageUse:
    """How many entries a stage has, and the bytes that they take."""

    stage: str
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    size: int
    used: float


@dataclass
class StageCache:
    """The entries in a folder; without one it holds nothing, and keeps nothing.

    `warn` hears, once, why nothing can be kept.
    """

    folder: Path | None
    limit: int = DEFAULT_LIMIT
    warn: Callable[[str], None] = field(default=lambda _: None)

    def get(self, stage: str, key: str) -> Parts | None:
        """Return what a stage gave, or None where that is not known, or damaged."""
        if self.folder is None:
            return None
        path = self.folder / stage / key
        try:
            with regular_files.open_file(path) as file:
                parts = _decode_entry(file.read(self.limit + 1), stage, key)
        except FileNotFoundError:
            return None
        except OSError:
            parts = None
        with suppress(OSError):
            if parts is None:
                path.unlink()  # a fresh one could not replace what may not be written to
            else:
                os.utime(path)
        return parts

    def store(self, stage: str, key: str, parts: Parts) -> None:
        """Keep what a stage gave, if there is room for it; what was used long ago makes room."""
        if self.folder is None:
            return
        content = user_folders.seal(key, _encode_entry(stage, key, parts))
        if content is None:
            self._stop(f"nothing more is kept in {self.folder}: {user_folders.find_key_obstacle()}")
            return
        if len(content) > self.limit:
            return
        stage_folder = self.folder / stage
        try:
            user_folders.make_folder(self.folder)
            stage_folder.mkdir(0o700, exist_ok=True)
            atomic_files.write_file(stage_folder / key, content)
            self._trim(stage_folder / key)
        except (OSError, UserError, MachineError) as error:
            # A build has what it was asked for without it.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._stop(f"nothing more is kept in {self.folder}: {reason}")

    def measure_usage(self) -> tuple[StageUse, ...]:
        """Return what each stage has."""
        entries_by_stage = {stage: list(self._iter_entries(stage)) for stage in STAGES}
        return tuple(
            StageUse(stage, len(cached_entries), sum(cached.size for cached in cached_entries))
            for stage, cached_entries in entries_by_stage.items()
        )

    def clear(self, stage: str | None = None) -> tuple[StageUse, ...]:
        """Remove the entries of a stage, or of all, and what killed processes left; return them.

        Raises:
            OSError: An entry cannot be removed.
        """
        removed = []
        for name in STAGES if stage is None else (stage,):
            cached_entries = list(self._iter_entries(name))
            for cached in cached_entries:
                cached.path.unlink(missing_ok=True)
            self._remove_staged(name)
            removed.append(
                StageUse(name, len(cached_entries), sum(cached.size for cached in cached_entries))
            )
        return tuple(removed)

    def _stop(self, reason: str) -> None:
        self.folder = None
        self.warn(reason)

    def _trim(self, fresh_path: Path) -> None:
        """Remove what was used longest ago until all entries fit; the fresh one stays."""
        for stage in STAGES:
            self._remove_staged(stage)
        cached_entries = [cached for stage in STAGES for cached in self._iter_entries(stage)]
        total, now = sum(cached.size for cached in cached_entries), time.time()
        # A time that lies ahead is of a clock that was set back: such an entry would stay for ever.
        for cached in sorted(cached_entries, key=lambda cached: (cached.used <= now, cached.used)):
            if total <= self.limit:
                return
            if cached.path != fresh_path:
                cached.path.unlink(missing_ok=True)
                total -= cached.size

    def _iter_entries(self, stage: str) -> Iterator[_Entry]:
        if self.folder is None:
            return
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self.folder / stage) as dir_entries,
        ):
            for dir_entry in dir_entries:
                with suppress(FileNotFoundError):  # another process makes room as well
                    status = dir_entry.stat(follow_symlinks=False)
                    if S_ISREG(status.st_mode) and _KEY.fullmatch(dir_entry.name):
                        yield _Entry(Path(dir_entry.path), status.st_size, status.st_mtime)

    def _remove_staged(self, stage: str) -> None:
        if self.folder is not None:
            with suppress(OSError):
                paths = (self.folder / stage).iterdir()
                staged_paths = [
                    path for path in paths if atomic_files.STAGED_NAME.fullmatch(path.name)
                ]
                atomic_files.remove_unlocked(staged_paths, atomic_files.remove_path)


def open_user_cache(warn: Callable[[str], None]) -> StageCache:
    """Return the cache in the user's own folder, or one that keeps nothing, which `warn` hears why.

    Raises:
        UserError: The environment names no folder, or no limit (E1400).
    """
    folder, limit = find_cache_folder(), read_limit()
    if not limit:
        return StageCache(None)
    reason = (
        "there is no home: set XDG_CACHE_HOME"
        if folder is None
        else user_folders.find_obstacle(folder)
    )
    reason = reason or user_folders.find_key_obstacle()
    if reason:
        warn(f"nothing is kept for the next build: {reason}")
    return StageCache(None if reason else folder, limit, warn)


def find_cache_folder() -> Path | None:
    """Return the folder of the cache, which may not be there yet; None where there is no home.

    Raises:
        UserError: The environment names one that is not below the root (E1400).
    """
    configured_folder = os.environ.get(FOLDER_VARIABLE, "")
    if configured_folder and not os.path.isabs(configured_folder):
        # It would be another one wherever a build is begun.
        message = f"{FOLDER_VARIABLE} names no folder from the root on"
        raise fail("E1400", message, make_file_span(FOLDER_VARIABLE), label=configured_folder[:80])
    if configured_folder:
        return Path(configured_folder) / "stages"
    return user_folders.locate_folder("XDG_CACHE_HOME", "stages")


def read_limit() -> int:
    """Return the bytes that all entries may take; 0 keeps nothing.

    Raises:
        UserError: The environment says what is no size (E1400).
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT
    number = text.rstrip("KMGBkmgb ")
    unit = text[len(number) :].strip().upper() or "B"
    if not number.isascii() or not number.isdecimal() or len(number) > 15 or unit not in UNITS:
        help = "such as 500 MB, or 0 to keep nothing"
        raise fail(
            "E1400",
            f"{LIMIT_VARIABLE} is no size",
            make_file_span(LIMIT_VARIABLE),
            label=text[:80],
            help=help,
        )
    return int(number) * UNITS[unit]


def compute_key(stage: str, stage_inputs: Mapping[str, Any]) -> str:
    """Return the key of what a stage is given: plain data, whatever its order."""
    text = json.dumps([stage, stage_inputs], sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _encode_entry(stage: str, key: str, parts: Parts) -> bytes:
    head = {"stage": stage, "key": key, "parts": {name: len(part) for name, part in parts.items()}}
    return b"".join((json.dumps(head).encode(), b"\n", *parts.values()))


def _decode_entry(content: bytes, stage: str, key: str) -> Parts | None:
    """Return the parts of an entry's bytes; None where it is not whole, or another's."""
    body = user_folders.open_sealed(key, content)
    if body is None:
        return None
    line, _, payload = body.partition(b"\n")
    try:
        head = json.loads(line)
        sizes = {str(name): int(size) for name, size in head["parts"].items()}
        is_matching = (head["stage"], head["key"]) == (stage, key)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    if not is_matching or min(sizes.values(), default=0) < 0 or sum(sizes.values()) != len(payload):
        return None
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = payload[start : start + size]
        start += size
    return parts


SOURCE_FOLDERS = ("compiler", "backends", "spec", "zoo")
"""Folders of tcc whose files decide what is built: code, blocks, drawings, calibrations."""
BYTECODE_FOLDER = "__pycache__"
CHUNK_BYTES = 1 << 17
"""Bytes that are read at a time."""
VARIABLES = ("CPATH", "C_INCLUDE_PATH", "GLIBC_TUNABLES", "LD_LIBRARY_PATH", "LD_PRELOAD")
PREFIXES = ("NPY_", "OPENBLAS_", "ORT_", "QEMU_", "TVM_", "ZIG_")
"""Variables that choose other code for the same numbers, here or in compilers."""


@cache
def digest_environment() -> str:
    """Return the SHA-256 of all of it, by which results of the same inputs may differ.

    Packages count by name, version and the time they were installed at: who edits one by hand has
    to clear what was kept.
    """
    digest = hashlib.sha256()
    for line in (*_list_packages(), *_list_environment(), *cpu.read_identity(), sys.version):
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    root = str(Path(__file__).parents[2])
    for name in list_sources():
        content = _read_source(os.path.join(root, name))
        # With its length: no content can pass for the next file's name.
        digest.update(f"\n{name}\n{len(content)}\n".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def list_sources() -> Iterator[str]:
    """Yield the files of tcc that decide what is built, below its root, in order."""
    root = str(Path(__file__).parents[2])
    for name in SOURCE_FOLDERS:
        yield from _walk_sources(root, name)


def _walk_sources(root: str, folder: str) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, folder)) as dir_entries:
            children = sorted(
                (dir_entry.name, dir_entry.is_dir(follow_symlinks=False))
                for dir_entry in dir_entries
            )
    except OSError:  # gone meanwhile
        return
    for name, is_folder in children:
        if not is_folder:
            yield f"{folder}/{name}"
        elif name != BYTECODE_FOLDER:
            yield from _walk_sources(root, f"{folder}/{name}")


def _read_source(path: str) -> bytes:
    # Without Python's buffers, which take longer than the reading: these are a thousand files.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # an editor's link to nowhere, or gone meanwhile
        return b""
    try:
        parts = [os.read(file, CHUNK_BYTES)]
        while parts[-1]:
            parts.append(os.read(file, CHUNK_BYTES))
    except OSError:
        return b""
    finally:
        os.close(file)
    return b"".join(parts)


def _list_packages() -> Iterator[str]:
    """Yield what is installed, by the folders that say so, where Python looks for it."""
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as dir_entries:
                package_entries = [
                    dir_entry
                    for dir_entry in dir_entries
                    if dir_entry.name.endswith((".dist-info", ".egg-info"))
                ]
        except OSError:
            continue
        for package_entry in sorted(package_entries, key=lambda package_entry: package_entry.name):
            with suppress(OSError):
                yield f"{package_entry.name} {package_entry.stat().st_mtime_ns}"


def _list_environment() -> Iterator[str]:
    yield from (platform.machine(), platform.system())
    with suppress(AttributeError, OSError, ValueError):  # where the C library is another one
        yield os.confstr("CS_GNU_LIBC_VERSION") or ""
    for name, setting in sorted(os.environ.items()):
        if name in VARIABLES or name.startswith(PREFIXES):
            yield f"{name}={setting}"
