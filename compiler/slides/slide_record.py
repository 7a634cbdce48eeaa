"""What is known of a slide's run beside its result: whether it is finished, and who works on it.

It lies in a hidden folder beside the results. The result itself holds no times, so that it is the
same wherever it was made; whether a slide's file is the one that it was made of is told by them.

Of all runs that share a folder of results, one works on a slide. What a run makes of a slide is the
same whoever makes it, and is written whole: a lease saves work that would be done twice, and no
result rests on it. On one machine the kernel's lock of the lease tells whether its holder lives.
Machines that share a disk may not see each other's locks: so its holder writes into it every `BEAT`
seconds, and where somebody else has seen no change for `STALE` seconds by a clock of his own, the
holder is dead, or cut off. Assumed is that what one machine wrote and closed, another reads within
`STALE` less a beat, as NFS has it; clocks need not agree. Who was taken for dead and is not finds
another's name in his lease, and stops.
"""

import errno
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.compiler.slides import stored_result
from tcc.compiler.slides.stored_result import SUMMARY
from tcc.compiler.support import atomic_files, json_records, regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.version import __version__

HIDDEN = ".tcc-slides"
RECORD = "finished.json"
LONGEST = 230
"""Bytes of a result's name: file systems take 255, and while it is written it has a longer one."""
MOST = 1 << 24
"""Bytes of a record, and of a summary, that are read."""


def check_name(place: Path) -> None:
    """Refuse a name that leaves no room for what it is called while it is written (E0603)."""
    if len(os.fsencode(place.name)) > LONGEST:
        error = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        raise atomic_files.explain(error, place, "write this")


def folder(place: Path) -> Path:
    """Return where that of a slide lies whose result is to lie at a place."""
    name = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]
    return place.parent / HIDDEN / name


def blocks(place: Path, digest: str) -> Path:
    """Return where the finished blocks of a job lie."""
    return folder(place) / f"blocks-{digest}"


def digest(slide: Path, bundle: bytes, words: Sequence[object]) -> str:
    """Return what tells runs apart whose results differ, in hex.

    Args:
        slide: Its file: one that was touched is another.
        bundle: The bundle's manifest.
        words: What else decides.

    Raises:
        OSError: There is no such slide.
    """
    file = slide.stat()
    about: list[Any] = [os.fsencode(slide.name).hex(), file.st_size]
    about += [file.st_mtime_ns, file.st_ctime_ns, hashlib.sha256(bundle).hexdigest()]
    return hashlib.sha256(json.dumps([__version__, about, *words]).encode()).hexdigest()


def finished(place: Path, request: str) -> dict[str, Any] | None:
    """Return the summary of the result at a place, if it is whole and what is asked for."""
    with suppress(OSError, ValueError, RecursionError):
        with regular_files.opened(folder(place) / RECORD) as file:
            record = json.loads(file.read(MOST))
        if record == {"request": request, "result": _result(place)}:
            with regular_files.opened(place / SUMMARY) as file:
                found: dict[str, Any] = json_records.encode(stored_result.decode(file.read(MOST)))
                return found
    return None


def finish(place: Path, request: str) -> None:
    """Note that a result is finished, and clear away what it was made of."""
    own = folder(place)
    data = {"request": request, "result": _result(place)}
    atomic_files.write_file(own / RECORD, json.dumps(data).encode())
    for each in own.glob("blocks-*"):
        atomic_files.remove_path(each)


def _result(place: Path) -> str:
    """Return what tells a result from one that files were taken from, or that is another."""
    sizes = sorted((each.name, each.stat().st_size) for each in place.iterdir() if each.is_file())
    made = hashlib.sha256(json.dumps(sizes).encode())
    with regular_files.opened(place / SUMMARY) as file:
        made.update(file.read(MOST))
    return made.hexdigest()


BEAT, STALE = 5.0, 60.0
PATIENCE = 3.0
"""Seconds that the lock of a process that was just killed may take to be gone."""
LOOK = 0.2
"""Seconds between two looks at a lease that another holds."""
NAME = "lease"
MOST_BYTES = 4096
"""Bytes of a lease that are read."""


@dataclass(eq=False)
class SlideLease:
    """A slide that is ours: the progress of its patches is told to whoever looks."""

    path: Path
    token: str
    patches: tuple[int, int] = (0, 0)
    lost: threading.Event = field(default_factory=threading.Event)

    def check(self, slide: Path) -> None:
        """Stop where another took the slide over meanwhile (E1309)."""
        if self.lost.is_set():
            raise _taken(slide, "it took this run for dead")

    def beat(self) -> None:
        """Say that we live, unless the lease is another's by now."""
        with suppress(OSError):  # a disk that is away for a while is no reason to stop
            held = _read(self.path)
            if held and _decoded(held).get("token") != self.token:
                self.lost.set()
            if not self.lost.is_set():
                self._write()

    def _write(self) -> None:
        about: dict[str, Any] = {"token": self.token, "kernel": _kernel(), "pid": os.getpid()}
        about |= {"host": platform.node(), "beat": time.monotonic(), "patches": self.patches}
        # In place, opened and closed: other machines see what is closed, and keep the file.
        with self.path.open("r+b") as file:
            file.write(json.dumps(about).encode())
            file.truncate()

    def beats(self, ended: threading.Event) -> None:
        """Go on saying so until it is ended."""
        while not ended.wait(BEAT):
            self.beat()


@contextmanager
def held(folder: Path, slide: Path) -> Iterator[SlideLease]:
    """Give the lease of a slide, which lies in the folder of its unfinished work.

    Raises:
        UserError: Another run has it, and lives (E1309), or the folder cannot be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise atomic_files.explain(error, path, "write this") from error
    ended = threading.Event()
    try:
        lease = _taken_over(path, descriptor, slide)
        thread = threading.Thread(target=lease.beats, args=(ended,), daemon=True)
        thread.start()
        yield lease
        ended.set()
        thread.join()
        if not lease.lost.is_set():
            os.ftruncate(descriptor, 0)
    finally:
        ended.set()
        os.close(descriptor)


def progress(folder: Path) -> tuple[int, int] | None:
    """Return how many patches of how many whoever holds a lease has done; None if nobody says."""
    with suppress(OSError, TypeError, ValueError, KeyError):
        done, total = _decoded(_read(folder / NAME))["patches"]
        return (done, total) if type(done) is type(total) is int else None
    return None


def _taken_over(path: Path, descriptor: int, slide: Path) -> SlideLease:
    """Return a lease that nobody alive holds."""
    until = time.monotonic() + PATIENCE
    while (locked := atomic_files.lock(descriptor)) is None:
        if time.monotonic() > until:
            raise _taken(slide, _who(path))
        time.sleep(LOOK)
    try:
        _await_death(path, slide, exact=locked)
        lease = SlideLease(path, os.urandom(8).hex())
        lease._write()
    except OSError as error:
        raise atomic_files.explain(error, path, "write this") from error
    return lease


def _await_death(path: Path, slide: Path, *, exact: bool) -> None:
    """Wait until it is clear that a lease's holder is dead; one of this kernel had the lock."""
    seen = _read(path)
    if not seen or (exact and _decoded(seen).get("kernel") == _kernel()):
        return
    until = time.monotonic() + STALE
    while time.monotonic() < until:
        time.sleep(LOOK)
        now = _read(path)
        if not now:
            return
        if now != seen:
            raise _taken(slide, _who(path))


def _read(path: Path) -> bytes:
    # Opened anew each time: that is when a shared disk is asked for what others wrote.
    with path.open("rb") as file:
        return file.read(MOST_BYTES)


def _decoded(data: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        found = json.loads(data)
        return found if isinstance(found, dict) else {}
    return {}


def _kernel() -> str:
    """Return what tells the running kernel from any other, and from itself before it was booted."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.urandom(8).hex()


def _who(path: Path) -> str:
    with suppress(OSError):
        about = _decoded(_read(path))
        if "host" in about:
            return f"process {about.get('pid')} of {about['host']}"[:100]
    return ""


def _taken(slide: Path, label: str) -> UserError:
    help = "its patches are not lost: run the command again when that run has ended"
    message = "another run works on this slide"
    return fail("E1309", message, whole_file(str(slide)), label=label, help=help)
