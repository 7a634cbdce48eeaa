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
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

STAGES: Mapping[str, str] = {
    "calibration": "what images showed of a network",
    "integers": "integer programs, and how they compare with floats",
    "bundle": "what was built for a target",
    "size": "what a target's files take in floats",
    "replay": "goldens that an artifact gave on this machine",
}
"""The stages that keep something, and what."""
FOLDER, LIMIT = "TCC_CACHE", "TCC_CACHE_LIMIT"
"""The variables that name another folder and another limit."""
USUAL_LIMIT = 1_000_000_000
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

    `tell` hears, once, why nothing can be kept.
    """

    folder: Path | None
    limit: int = USUAL_LIMIT
    tell: Callable[[str], None] = field(default=lambda _: None)

    def get(self, stage: str, key: str) -> Parts | None:
        """Return what a stage gave, or None where that is not known, or damaged."""
        if self.folder is None:
            return None
        path = self.folder / stage / key
        try:
            with regular_files.opened(path) as file:
                found = _parts(file.read(self.limit + 1), stage, key)
        except FileNotFoundError:
            return None
        except OSError:
            found = None
        with suppress(OSError):
            if found is None:
                path.unlink()  # a fresh one could not replace what may not be written to
            else:
                os.utime(path)
        return found

    def put(self, stage: str, key: str, parts: Parts) -> None:
        """Keep what a stage gave, if there is room for it; what was used long ago makes room."""
        if self.folder is None:
            return
        data = user_folders.seal(key, _encoded(stage, key, parts))
        if data is None:
            self._stop(f"nothing more is kept in {self.folder}: {user_folders.key_obstacle()}")
            return
        if len(data) > self.limit:
            return
        place = self.folder / stage
        try:
            user_folders.make(self.folder)
            place.mkdir(0o700, exist_ok=True)
            atomic_files.write_file(place / key, data)
            self._trim(place / key)
        except (OSError, UserError, MachineError) as error:
            # A build has what it was asked for without it.
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._stop(f"nothing more is kept in {self.folder}: {reason}")

    def uses(self) -> tuple[StageUse, ...]:
        """Return what each stage has."""
        found = {stage: list(self._entries(stage)) for stage in STAGES}
        return tuple(
            StageUse(stage, len(own), sum(each.size for each in own))
            for stage, own in found.items()
        )

    def clear(self, stage: str | None = None) -> tuple[StageUse, ...]:
        """Remove the entries of a stage, or of all, and what killed processes left; return them.

        Raises:
            OSError: An entry cannot be removed.
        """
        gone = []
        for name in STAGES if stage is None else (stage,):
            own = list(self._entries(name))
            for each in own:
                each.path.unlink(missing_ok=True)
            self._sweep(name)
            gone.append(StageUse(name, len(own), sum(each.size for each in own)))
        return tuple(gone)

    def _stop(self, why: str) -> None:
        self.folder = None
        self.tell(why)

    def _trim(self, fresh: Path) -> None:
        """Remove what was used longest ago until all entries fit; the fresh one stays."""
        for stage in STAGES:
            self._sweep(stage)
        entries = [each for stage in STAGES for each in self._entries(stage)]
        total, now = sum(each.size for each in entries), time.time()
        # A time that lies ahead is of a clock that was set back: such an entry would stay for ever.
        for each in sorted(entries, key=lambda each: (each.used <= now, each.used)):
            if total <= self.limit:
                return
            if each.path != fresh:
                each.path.unlink(missing_ok=True)
                total -= each.size

    def _entries(self, stage: str) -> Iterator[_Entry]:
        if self.folder is None:
            return
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(self.folder / stage) as all_,
        ):
            for each in all_:
                with suppress(FileNotFoundError):  # another process makes room as well
                    about = each.stat(follow_symlinks=False)
                    if S_ISREG(about.st_mode) and _KEY.fullmatch(each.name):
                        yield _Entry(Path(each.path), about.st_size, about.st_mtime)

    def _sweep(self, stage: str) -> None:
        if self.folder is not None:
            with suppress(OSError):
                found = (self.folder / stage).iterdir()
                left = [path for path in found if atomic_files.STAGED.fullmatch(path.name)]
                atomic_files.sweep(left, atomic_files.remove_path)


def of_user(tell: Callable[[str], None]) -> StageCache:
    """Return the cache in the user's own folder, or one that keeps nothing, which `tell` hears why.

    Raises:
        UserError: The environment names no folder, or no limit (E1400).
    """
    found, limit = place(), bytes_of_limit()
    if not limit:
        return StageCache(None)
    why = "there is no home: set XDG_CACHE_HOME" if found is None else user_folders.obstacle(found)
    why = why or user_folders.key_obstacle()
    if why:
        tell(f"nothing is kept for the next build: {why}")
    return StageCache(None if why else found, limit, tell)


def place() -> Path | None:
    """Return the folder of the cache, which may not be there yet; None where there is no home.

    Raises:
        UserError: The environment names one that is not below the root (E1400).
    """
    given = os.environ.get(FOLDER, "")
    if given and not os.path.isabs(given):
        # It would be another one wherever a build is begun.
        message = f"{FOLDER} names no folder from the root on"
        raise fail("E1400", message, whole_file(FOLDER), label=given[:80])
    if given:
        return Path(given) / "stages"
    return user_folders.folder("XDG_CACHE_HOME", "stages")


def bytes_of_limit() -> int:
    """Return the bytes that all entries may take; 0 keeps nothing.

    Raises:
        UserError: The environment says what is no size (E1400).
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return USUAL_LIMIT
    number = text.rstrip("KMGBkmgb ")
    unit = text[len(number) :].strip().upper() or "B"
    if not number.isascii() or not number.isdecimal() or len(number) > 15 or unit not in UNITS:
        help = "such as 500 MB, or 0 to keep nothing"
        raise fail("E1400", f"{LIMIT} is no size", whole_file(LIMIT), label=text[:80], help=help)
    return int(number) * UNITS[unit]


def key(stage: str, given: Mapping[str, Any]) -> str:
    """Return the key of what a stage is given: plain data, whatever its order."""
    text = json.dumps([stage, given], sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _encoded(stage: str, key: str, parts: Parts) -> bytes:
    head = {"stage": stage, "key": key, "parts": {name: len(data) for name, data in parts.items()}}
    return b"".join((json.dumps(head).encode(), b"\n", *parts.values()))


def _parts(data: bytes, stage: str, key: str) -> Parts | None:
    """Return the parts of an entry's bytes; None where it is not whole, or another's."""
    body = user_folders.open_sealed(key, data)
    if body is None:
        return None
    line, _, rest = body.partition(b"\n")
    try:
        head = json.loads(line)
        sizes = {str(name): int(size) for name, size in head["parts"].items()}
        own = (head["stage"], head["key"]) == (stage, key)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    if not own or min(sizes.values(), default=0) < 0 or sum(sizes.values()) != len(rest):
        return None
    found, start = {}, 0
    for name, size in sizes.items():
        found[name] = rest[start : start + size]
        start += size
    return found


SOURCES = ("compiler", "backends", "spec", "zoo")
"""Folders of tcc whose files decide what is built: code, blocks, drawings, calibrations."""
COMPILED = "__pycache__"
PIECE = 1 << 17
"""Bytes that are read at a time."""
VARIABLES = ("CPATH", "C_INCLUDE_PATH", "GLIBC_TUNABLES", "LD_LIBRARY_PATH", "LD_PRELOAD")
PREFIXES = ("NPY_", "OPENBLAS_", "ORT_", "QEMU_", "TVM_", "ZIG_")
"""Variables that choose other code for the same numbers, here or in compilers."""


@cache
def digest_surroundings() -> str:
    """Return the SHA-256 of all of it, by which results of the same inputs may differ.

    Packages count by name, version and the time they were installed at: who edits one by hand has
    to clear what was kept.
    """
    found = hashlib.sha256()
    for each in (*_list_packages(), *_list_environment(), *cpu.identity(), sys.version):
        found.update(f"{each}\n".encode(errors="surrogateescape"))
    root = str(Path(__file__).parents[2])
    for name in list_sources():
        content = _read_source(os.path.join(root, name))
        # With its length: no content can pass for the next file's name.
        found.update(f"\n{name}\n{len(content)}\n".encode(errors="surrogateescape"))
        found.update(content)
    return found.hexdigest()


def list_sources() -> Iterator[str]:
    """Yield the files of tcc that decide what is built, below its root, in order."""
    root = str(Path(__file__).parents[2])
    for name in SOURCES:
        yield from _walk_sources(root, name)


def _walk_sources(root: str, folder: str) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, folder)) as found:
            entries = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in found)
    except OSError:  # gone meanwhile
        return
    for name, is_folder in entries:
        if not is_folder:
            yield f"{folder}/{name}"
        elif name != COMPILED:
            yield from _walk_sources(root, f"{folder}/{name}")


def _read_source(path: str) -> bytes:
    # Without Python's buffers, which take longer than the reading: these are a thousand files.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # an editor's link to nowhere, or gone meanwhile
        return b""
    try:
        parts = [os.read(file, PIECE)]
        while parts[-1]:
            parts.append(os.read(file, PIECE))
    except OSError:
        return b""
    finally:
        os.close(file)
    return b"".join(parts)


def _list_packages() -> Iterator[str]:
    """Yield what is installed, by the folders that say so, where Python looks for it."""
    for place in sys.path:
        try:
            with os.scandir(place or ".") as entries:
                named = [e for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for each in sorted(named, key=lambda each: each.name):
            with suppress(OSError):
                yield f"{each.name} {each.stat().st_mtime_ns}"


def _list_environment() -> Iterator[str]:
    yield from (platform.machine(), platform.system())
    with suppress(AttributeError, OSError, ValueError):  # where the C library is another one
        yield os.confstr("CS_GNU_LIBC_VERSION") or ""
    for name, value in sorted(os.environ.items()):
        if name in VARIABLES or name.startswith(PREFIXES):
            yield f"{name}={value}"
