"""The stage cache: stores results of build stages, so that the next build can reuse them.

An entry is a file, `<stage>/<key>`. The key is the SHA-256 of all inputs of the stage. The file
begins with a seal of the rest, made with the user's key (`user_folders.seal`). The first line of
the rest names stage, key and parts; the bytes of the parts follow. An entry without a valid seal
(written by somebody else, or truncated) is removed and computed again. Each use updates an entry's
time; if all entries exceed the limit, the least recently used ones are removed.
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
    "calibration": "results of calibrations",
    "integers": "int8 models, and their comparison with the fp32 model",
    "bundle": "bundles that were built for a target",
    "size": "sizes of a target's files in fp32",
    "replay": "test vectors that an artifact computed on this machine",
}
"""The stages that store entries, and what they store."""
FOLDER_VARIABLE, LIMIT_VARIABLE = "TCC_CACHE", "TCC_CACHE_LIMIT"
"""Environment variables that set another folder and another limit."""
DEFAULT_LIMIT = 1_000_000_000
"""Total size of all entries, in bytes."""
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_KEY = re.compile("[0-9a-f]{64}")

Parts = Mapping[str, bytes]
"""The result of a stage: bytes by name."""


@dataclass(frozen=True, slots=True)
class StageUse:
    """The number of entries of a stage, and their size in bytes."""

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
    """The entries in a folder; without a folder it is empty and stores nothing.

    `warn` is called once with the reason if nothing can be stored.
    """

    folder: Path | None
    limit: int = DEFAULT_LIMIT
    warn: Callable[[str], None] = field(default=lambda _: None)

    def get(self, stage: str, key: str) -> Parts | None:
        """Return the stored result of a stage; None if there is none, or it is damaged."""
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
                path.unlink()  # a new entry could not replace a read-only file
            else:
                os.utime(path)
        return parts

    def store(self, stage: str, key: str, parts: Parts) -> None:
        """Store the result of a stage, if it fits; the least recently used entries are removed."""
        if self.folder is None:
            return
        content = user_folders.seal(key, _encode_entry(stage, key, parts))
        if content is None:
            self._stop(
                f"caching in {self.folder} is off for this run: {user_folders.find_key_obstacle()}"
            )
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
            # A build succeeds without its cache.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._stop(f"caching in {self.folder} is off for this run: {reason}")

    def measure_usage(self) -> tuple[StageUse, ...]:
        """Return the use of each stage."""
        entries_by_stage = {stage: list(self._iter_entries(stage)) for stage in STAGES}
        return tuple(
            StageUse(stage, len(cached_entries), sum(cached.size for cached in cached_entries))
            for stage, cached_entries in entries_by_stage.items()
        )

    def clear(self, stage: str | None = None) -> tuple[StageUse, ...]:
        """Remove the entries of one stage or all, and leftovers of killed processes; return them.

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
        """Remove the least recently used entries until the rest fits; the new one stays."""
        for stage in STAGES:
            self._remove_staged(stage)
        cached_entries = [cached for stage in STAGES for cached in self._iter_entries(stage)]
        total, now = sum(cached.size for cached in cached_entries), time.time()
        # A time in the future comes from a clock that was set back: such an entry would never go.
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
                with suppress(FileNotFoundError):  # another process may trim the cache
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
    """Return the cache in the user's folder, or an inactive one after a warning with the reason.

    Raises:
        UserError: An environment variable has an invalid folder or limit (E1400).
    """
    folder, limit = find_cache_folder(), read_limit()
    if not limit:
        return StageCache(None)
    reason = (
        "there is no home folder: set XDG_CACHE_HOME"
        if folder is None
        else user_folders.find_obstacle(folder)
    )
    reason = reason or user_folders.find_key_obstacle()
    if reason:
        warn(f"caching is off for this run: {reason}")
    return StageCache(None if reason else folder, limit, warn)


def find_cache_folder() -> Path | None:
    """Return the folder of the cache, which may not exist yet; None without a home folder.

    Raises:
        UserError: TCC_CACHE is not an absolute path (E1400).
    """
    configured_folder = os.environ.get(FOLDER_VARIABLE, "")
    if configured_folder and not os.path.isabs(configured_folder):
        # A relative path would depend on the folder in which a build starts.
        message = f"{FOLDER_VARIABLE} must be an absolute path"
        raise fail("E1400", message, make_file_span(FOLDER_VARIABLE), label=configured_folder[:80])
    if configured_folder:
        return Path(configured_folder) / "stages"
    return user_folders.locate_folder("XDG_CACHE_HOME", "stages")


def read_limit() -> int:
    """Return the size limit of all entries in bytes; 0 stores nothing.

    Raises:
        UserError: TCC_CACHE_LIMIT is not a size (E1400).
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT
    number = text.rstrip("KMGBkmgb ")
    unit = text[len(number) :].strip().upper() or "B"
    if not number.isascii() or not number.isdecimal() or len(number) > 15 or unit not in UNITS:
        help = "use a size such as 500 MB, or 0 to turn the cache off"
        raise fail(
            "E1400",
            f"{LIMIT_VARIABLE} must be a size",
            make_file_span(LIMIT_VARIABLE),
            label=text[:80],
            help=help,
        )
    return int(number) * UNITS[unit]


def compute_key(stage: str, stage_inputs: Mapping[str, Any]) -> str:
    """Return the key of a stage's inputs, which are plain data; their order does not matter."""
    text = json.dumps([stage, stage_inputs], sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _encode_entry(stage: str, key: str, parts: Parts) -> bytes:
    head = {"stage": stage, "key": key, "parts": {name: len(part) for name, part in parts.items()}}
    return b"".join((json.dumps(head).encode(), b"\n", *parts.values()))


def _decode_entry(content: bytes, stage: str, key: str) -> Parts | None:
    """Return the parts of an entry's bytes; None if it is damaged, or of another key."""
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
"""Folders of tcc whose files affect what is built: code, blocks, figures, calibrations."""
BYTECODE_FOLDER = "__pycache__"
CHUNK_BYTES = 1 << 17
"""Bytes that are read at a time."""
VARIABLES = ("CPATH", "C_INCLUDE_PATH", "GLIBC_TUNABLES", "LD_LIBRARY_PATH", "LD_PRELOAD")
PREFIXES = ("NPY_", "OPENBLAS_", "ORT_", "QEMU_", "TVM_", "ZIG_")
"""Variables that select other code for the same results, here or in compilers."""


@cache
def digest_environment() -> str:
    """Return the SHA-256 of everything in the environment that may change results.

    Packages count by name, version and time of installation: after editing an installed package by
    hand, clear the cache.
    """
    digest = hashlib.sha256()
    for line in (*_list_packages(), *_list_environment(), *cpu.read_identity(), sys.version):
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    root = str(Path(__file__).parents[2])
    for name in list_sources():
        content = _read_source(os.path.join(root, name))
        # With its length: no content can be mistaken for the next file's name.
        digest.update(f"\n{name}\n{len(content)}\n".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def list_sources() -> Iterator[str]:
    """Yield the files of tcc that affect what is built, relative to its root, in order."""
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
    except OSError:  # removed meanwhile
        return
    for name, is_folder in children:
        if not is_folder:
            yield f"{folder}/{name}"
        elif name != BYTECODE_FOLDER:
            yield from _walk_sources(root, f"{folder}/{name}")


def _read_source(path: str) -> bytes:
    # Without Python's buffers, which take longer than reading itself: there are a thousand files.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a broken link of an editor, or removed meanwhile
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
    """Yield the installed packages on `sys.path`, by their metadata folders."""
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
    with suppress(AttributeError, OSError, ValueError):  # not glibc
        yield os.confstr("CS_GNU_LIBC_VERSION") or ""
    for name, setting in sorted(os.environ.items()):
        if name in VARIABLES or name.startswith(PREFIXES):
            yield f"{name}={setting}"
