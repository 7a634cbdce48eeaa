"""Whose a slide is: of all runs that share a folder of results, one works on it.

What a run makes of a slide is the same whoever makes it, and is written whole: a lease saves work
that would be done twice, and no result rests on it. On one machine the kernel's lock of the lease
tells whether its holder lives. Machines that share a disk may not see each other's locks: so its
holder writes into it every `BEAT` seconds, and where somebody else has seen no change for `STALE`
seconds by a clock of his own, the holder is dead, or cut off. Assumed is that what one machine
wrote and closed, another reads within `STALE` less a beat, as NFS has it; clocks need not agree.
Who was taken for dead and is not finds another's name in his lease, and stops.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.compiler.support import atomic_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

BEAT, STALE = 5.0, 60.0
PATIENCE = 3.0
"""Seconds that the lock of a process that was just killed may take to be gone."""
LOOK = 0.2
"""Seconds between two looks at a lease that another holds."""
NAME = "lease"
MOST = 4096
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
        return file.read(MOST)


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
